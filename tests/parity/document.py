"""docs/map-parity.md, made from the committed results. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tests.parity.case import Case, Group, Result
from tests.parity.differences import DIFFERENCES
from tests.parity.groups import CASES, GROUPS, POSTFIX

_HEAD = """\
# Policy maps: what Postfix does with each line

{total} look-ups and the deliveries that follow, by Debian 12's Postfix ({version}, `tests/interop/test_map_parity.py`): the
effective level from `smtp -v`, the outcome, and the word of the TLS session. They are kept in
`tests/parity/postfix-{version}.json`; dane-relay delivers the same in every test run (`tests/integration/test_map_parity.py`).
In {same} of them level, status, DSN, session, reason and warnings are the same; the rest is told below. `RELAY_TEST_WRITE=1`
with Postfix at hand writes results and this page anew.

`{{domain}}` is the domain that mail goes to where *to* is empty, `{{host}}` its one host `mx.{{domain}}`; `{{leaf}}` and
`{{key}}` are digests of the host's certificate and key, `{{ca}}` is the CA's file and `{{other_ca}}` that of a CA which
signed nothing here.
"""
_TITLES = {
    "text": "One texthash, level may where it has no line",
    "dane": "Level dane where it has no line",
    "secure": "Level secure where it has no line",
    "patterns": "regexp:, then inline:, then a texthash",
    "static": "A texthash, then static:{encrypt ciphers=high}",
    "contradicting": "A texthash with a key twice",
}


def document(results: Mapping[str, Result]) -> str:
    """The whole page."""
    head = _HEAD.format(version=POSTFIX, total=len(CASES), same=len(CASES) - len(DIFFERENCES))
    return head + "".join(part for group in GROUPS for part in _section(group, results))


def _section(group: Group, results: Mapping[str, Result]) -> Iterator[str]:
    yield f"\n## {_TITLES[group.name]}\n\n"
    for name, text in group.files.items():
        yield f"`{name}`:\n\n```\n{text}```\n\n"
    for spec in group.maps:
        if spec.startswith("inline:"):
            yield f"`{spec}`\n\n"
    yield f"| | lines | to | host | Postfix {POSTFIX} | where we differ |\n|---|---|---|---|---|---|\n"
    yield from (_row(case, results[case.name]) for case in group.cases)


def _row(case: Case, result: Result) -> str:
    lines = " ⏎ ".join(f"`{line.strip()}`" for line in case.lines if line.strip()).replace("|", "\\|")
    to = case.destination if case.below else case.route
    difference = DIFFERENCES.get(case.name)
    why = f"{', '.join(sorted(difference.fields))}: {difference.why}" if difference else ""
    told = " ".join(result.warnings).replace("|", "\\|")
    came = f"{result.level}: {result.status} {result.dsn}" + (f", {result.session}" if result.session else "")
    came += f" ({told or result.reason})" if told or result.reason else ""
    return f"| {case.name} | {lines or '(none)'} | {f'`{to}`' if to else ''} | {case.posture.value.words} | {came} | {why} |\n"
