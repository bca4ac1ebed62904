"""docs/side-by-side.md, made from what a run found. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from tests.interop.side_by_side_case import Case, Section
from tests.interop.side_by_side_differences import DIFFERENCES, POSTFIX, SECTIONS
from tests.interop.side_by_side_run import PANIC, Fate, Pair

WRITE = "RELAY_TEST_WRITE"
_HEAD = """\
# Side by side with Postfix

`tests/interop/test_side_by_side.py` sends one message to each of these destinations twice: through Postfix {version}
(Debian 12's) and through dane-relay. Both have level `dane` where nothing else is said, the same validating Unbound, the
same trusted CA and the same policy map; their logs and what the hosts recorded are compared, first attempt with first
attempt. Of {total} destinations {same} come out the same in status, DSN, the word for each session, the host named, the
text of the reason (up to our `: expected …; found …; rule …`), and how far each host was reached. The test fails when
anything else differs, when one of the differences told here is gone, and when this document is not what it would write
(`{write}=1` writes it).

*Session* is the word in the log before `TLS connection established`. *No MAIL*: the host was connected to and heard no
MAIL command; *MAIL*: a recipient or the sender was refused. Several hosts stand in order of preference. *Policy line* is a
line of the policy map; `PORT` stands for the port in use.
"""


def document(pairs: Mapping[str, Pair]) -> str:
    """The whole document.

    :param pairs: what was found, by the names of all cases.
    """
    same = sum(pair.postfix == pair.ours for pair in pairs.values())
    head = _HEAD.format(version=POSTFIX, total=len(pairs), same=same, write=WRITE)
    return head + "".join(_section(section, pairs) for section in SECTIONS)


def _section(section: Section, pairs: Mapping[str, Pair]) -> str:
    rows = [
        f"| destination | what it is | Postfix {POSTFIX} | dane-relay | why they differ |",
        "|---|---|---|---|---|",
        *(_row(case, pairs[case.name]) for case in section.cases),
    ]
    return f"\n## {section.title}\n\n" + "\n".join(rows) + "\n"


def _row(case: Case, pair: Pair) -> str:
    ours = "the same" if pair.postfix == pair.ours else _shown(pair.ours)
    why = DIFFERENCES[case.name].why if case.name in DIFFERENCES else ""
    return f"| {case.name} | {case.what} | {_shown(pair.postfix)} | {ours} | {why} |"


def _shown(fate: Fate) -> str:
    """One cell: outcome; words of the sessions, if there were any; each host in turn."""
    outcome = "no status: the client dies" if fate.status == PANIC else f"{fate.status} {fate.dsn}"
    sessions = f"session {', '.join(fate.sessions)}" if fate.sessions else ""
    return "; ".join(part for part in (outcome, sessions, " → ".join(fate.reached)) if part)
