"""judge() against OpenSSL's own DANE verification, over generated chains and TLSA sets.

The counts are printed in pytest's summary. Classes of difference that are known and meant are in dane_differences.py,
each with a predicate and a cap; what falls under none of them is a failure. ``MUTANTS`` prove that the comparison has teeth:
without any one of our rules it finds differences.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Final

import pytest

from relay.tls import chain, judge, names, signature
from tests.interop.dane_cases import CELLS, cases
from tests.interop.dane_chains import KeyPool
from tests.interop.dane_differences import CLASSES, Tally, compare
from tests.interop.openssl_dane import OpensslDane, required

pytestmark = pytest.mark.interop

SEED: Final = 7672
CASES: Final = 21_000
LONG_SEEDS: Final = range(1, 11)
LONG_CASES: Final = 60_000

AT_LEAST: Final = 20_000
AT_LEAST_ACCEPTED: Final = 4_000
AT_LEAST_IN_A_CELL: Final = 100
AT_LEAST_BY_KEY: Final = 20


class _Summary:
    """Prints lines at the end of the test session."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """See pytest's hook of this name."""
        terminalreporter.section("judge() against OpenSSL")
        for line in self._lines:
            terminalreporter.line(line)


@pytest.fixture(scope="module")
def oracle() -> Iterator[OpensslDane]:
    with required() as running:
        yield running


@pytest.fixture(scope="module")
def keys() -> KeyPool:
    return KeyPool()


@pytest.fixture(scope="module")
def summary(request: pytest.FixtureRequest) -> list[str]:
    lines: list[str] = []
    request.config.pluginmanager.register(_Summary(lines))
    return lines


def told(tally: Tally, oracle: OpensslDane) -> list[str]:
    """The counts, for people."""
    can = [cell for cell in CELLS if cell.can_be_accepted]
    lines = [
        f"{tally.cases} cases with {oracle.version}",
        f"accepted by OpenSSL: {tally.accepted.total() + tally.by_key.total()}, refused: {tally.refused.total()}",
        f"without a usable record: {tally.none_usable}",
        f"unexplained differences: {len(tally.unexplained)}",
    ]
    lines += [
        f"known difference: {name}: {tally.classes[name]} (at most {limit * tally.cases:.0f})"
        for name, (_, limit) in CLASSES.items()
    ]
    lines.append(
        f"accepted by each of {len(can)} kinds of record and depths: {min(tally.accepted[cell] for cell in can)} "
        f"to {max(tally.accepted[cell] for cell in can)} times; by a bare key, by depth: "
        + ", ".join(str(tally.by_key[depth]) for depth in range(4))
    )
    lines.append(
        f"refused for each of {len(CELLS)} kinds and depths: {min(tally.refused[cell] for cell in CELLS)} "
        f"to {max(tally.refused[cell] for cell in CELLS)} times"
    )
    return lines


def check(tally: Tally, counts: str) -> None:
    """Everything that must hold of a tally of enough cases."""
    assert not tally.unexplained, f"{counts}\n" + "\n".join(tally.unexplained[:10])
    for name, (_, limit) in CLASSES.items():
        assert tally.classes[name] <= limit * tally.cases, f"{name}: more than its cap\n{counts}"
    assert tally.cases >= AT_LEAST, counts
    assert tally.accepted.total() + tally.by_key.total() >= AT_LEAST_ACCEPTED, counts
    for cell in CELLS:
        assert tally.refused[cell] >= AT_LEAST_IN_A_CELL, f"refused {cell}\n{counts}"
        if cell.can_be_accepted:
            assert tally.accepted[cell] >= AT_LEAST_IN_A_CELL, f"accepted {cell}\n{counts}"
        else:
            assert tally.accepted[cell] == 0, f"accepted {cell}\n{counts}"
    assert all(tally.by_key[depth] >= AT_LEAST_BY_KEY for depth in range(4)), counts


def test_both_say_the_same(
    oracle: OpensslDane, keys: KeyPool, summary: list[str], record_property: Callable[[str, object], None]
) -> None:
    tally = compare(oracle, cases(SEED, CASES, keys))
    summary += told(tally, oracle)
    counts = "\n".join(summary)
    print(counts)  # noqa: T201 - for `pytest -s`; the summary has it in any case
    record_property("judge_against_openssl", counts)
    check(tally, counts)


@pytest.mark.long
@pytest.mark.parametrize("seed", LONG_SEEDS)
def test_both_say_the_same_of_many_more(oracle: OpensslDane, keys: KeyPool, seed: int) -> None:
    tally = compare(oracle, cases(seed, LONG_CASES, keys))
    check(tally, "\n".join(told(tally, oracle)))


@dataclass(frozen=True, slots=True)
class Change:
    """Texts in the source of one of our functions, and what to put in their places.

    :param module: that calls the function, by this name.
    """

    module: ModuleType
    function: str
    texts: dict[str, str]

    def make(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Until the end of the test."""
        original = getattr(self.module, self.function)
        source = "from __future__ import annotations\n" + inspect.getsource(original)
        for old, new in self.texts.items():
            assert source.count(old) == 1, f"{self.function} has changed: this mutant says nothing any more"
            source = source.replace(old, new)
        home = original.__globals__
        monkeypatch.setitem(home, self.function, original)
        exec(compile(source, "mutant", "exec"), home)
        monkeypatch.setattr(self.module, self.function, home[self.function])


_SIGNED_NOTHING: Final = """leaf = presented[0]
    for der in own.certificates:
        if der in presented[1:]:
            return ChainOk((leaf, der))
"""

MUTANTS: Final[dict[str, list[Change]]] = {
    "names do not count": [Change(judge, "_named", {"isinstance(match, NameMatch)": "True"})],
    "a common name counts beside a dNSName": [
        Change(judge, "match_names", {"leaf.dns_names or (": "leaf.dns_names + ("}),
    ],
    "a wildcard covers a top level domain": [
        Change(names, "covers", {"_WILDCARD.": 're.compile(r"[*]((?:[.][a-z0-9-]+)+)").'}),
    ],
    "dates do not count": [Change(chain, "_path_to_any", {"PARTIAL_CHAIN)": "PARTIAL_CHAIN | _NO_CHECK_TIME)"})],
    "dates of no anchor count": [Change(chain, "_path_in_date", {" and not facts[-1].self_issued": ""})],
    "dates of every anchor count": [Change(chain, "_path_in_date", {"facts.pop()": "pass"})],
    "digest agility": [Change(judge, "_dane", {"counting(policy.tlsa)": "policy.tlsa"})],
    "a TA that signed nothing": [Change(chain, "_own_path", {"leaf = presented[0]\n": _SIGNED_NOTHING})],
    "the leaf is its own TA": [
        Change(
            judge,
            "_authority_anchors",
            {"peer.chain[1:] if each.der != leaf.der": "peer.chain", " and record.data != leaf.der": ""},
        ),
        Change(judge, "_authority", {"depth > 0 and ": ""}),
        Change(chain, "_own_path", {" if der != leaf]": "]"}),
    ],
    "usage 3 above the leaf": [
        Change(
            judge,
            "_dane",
            {
                "matches(record, der=leaf.der, spki=leaf.spki)": (
                    "any(matches(record, der=each.der, spki=each.spki) for each in peer.chain)"
                )
            },
        )
    ],
    "the purpose does not count": [Change(chain, "_new_store", {"X509_PURPOSE_SSL_SERVER": "X509_PURPOSE_ANY"})],
    "keys may be small": [Change(signature, "_is_small", {"key.key_size < MIN_RSA_BITS": "False"})],
    "digests may be broken": [Change(chain, "weakness", {"depth < len(path) - 1 and": "False and"})],
    "full certificates supply nothing": [
        Change(judge, "_authority_anchors", {"in full if record.selector is Selector.CERT": "in full if False"}),
    ],
    "bare keys supply nothing": [Change(chain, "_own_path", {"if not own.keys or": "if True or"})],
    "anchors hide each other": [Change(chain, "_path_to", {"len(anchors) > 1": "False"})],
}


@pytest.mark.parametrize("rule", MUTANTS)
def test_without_a_rule_they_differ(
    monkeypatch: pytest.MonkeyPatch, oracle: OpensslDane, keys: KeyPool, rule: str
) -> None:
    """The comparison stops at the first difference that no class explains."""
    for change in MUTANTS[rule]:
        change.make(monkeypatch)
    tally = compare(oracle, cases(SEED, CASES, keys), stop_at_first=True)
    assert tally.unexplained, "nothing would notice that this rule is gone"
