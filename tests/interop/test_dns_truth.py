"""What our resolvers say of a signed tree is what was built into it, and what three other validators say.

The tree has zones and names of every kind (tests/interop/signed_tree_zones.py); NSD serves it in a network namespace, where
Unbound, BIND and Knot Resolver find their way through it from the root down. Our resolvers ask through each of them
(``trust-ad``), and validate for themselves (``validate``). Differences are named here, with the most there may be of each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from relay.dns.answer import RRType
from tests.interop import servers
from tests.interop.dns_truth import Different, status
from tests.interop.dns_truth_gather import cases
from tests.interop.signed_tree import Kind, Question, State
from tests.interop.signed_tree_zones import VARIANTS, grow
from tests.interop.validators import ADDRESSES, in_own_network

pytestmark = pytest.mark.interop

PATIENCE: Final = 300
VALIDATORS: Final = tuple(sorted(ADDRESSES, reverse=True))  # Unbound first: one asker is compared in more ways
TREE, QUESTIONS = grow()
TRUTH: Final = Counter(status(TREE.truth(question)) for question in QUESTIONS)
ASKERS: Final = (
    *(f"trust-ad, {name}" for name in VALIDATORS),
    "trust-ad, unbound once more",
    "validate, full recursion",
    *(f"validate, through {name}" for name in VALIDATORS),
    *(f"{name} itself" for name in VALIDATORS),
)
GATHERERS: Final = tuple(asker for asker in ASKERS if not asker.endswith(("itself", "once more")))


@dataclass(frozen=True, slots=True)
class Class:
    """Differences of one kind that are not ours to mend.

    :param asker: a part of the names of those who asked.
    :param cap: the most of them that one asker may have.
    """

    name: str
    asker: str
    applies: Callable[[Different], bool]
    cap: int


def _end_is_missing(difference: Different) -> bool:
    """Whether a name is below an alias to a name that does not exist."""
    alias = difference.name.removeprefix("_25._tcp.")
    zone = TREE.zone_of(alias)
    is_alias = "CNAME" in zone.records.get(alias, {}) and alias != difference.name
    return is_alias and TREE.truth(Question(alias, RRType.A)).kind is Kind.NXDOMAIN


def _under_broken_alias(name: str) -> bool:
    return name.startswith(("_25._tcp.alias.missing.sick.", "_25._tcp.alias.foreign-key.sick."))


KNOWN: Final = (
    # Of extended errors (RFC 8914), named 9.18 sends none for DNSSEC: for all we can see, the look-up failed.
    Class(
        "named does not say that it was bogus",
        "trust-ad, named",
        lambda it: (it.truth, it.got) == (Kind.BOGUS, Kind.FAILURE),
        TRUTH["bogus"],
    ),
    # Knot Resolver 5 calls a CNAME record whose signature is wrong "0 (other error)", and sometimes nothing.
    Class(
        "kresd does not say that it was bogus",
        "trust-ad, kresd",
        lambda it: (it.truth, it.got) == (Kind.BOGUS, Kind.FAILURE),
        TRUTH["bogus"] // 4,
    ),
    # Looking for a proof that the name need not be signed, named meets the unsigned name again, and waits for itself.
    Class(
        "named waits for itself",
        "named itself",
        lambda it: (it.truth, it.got) == (Kind.BOGUS, Kind.FAILURE) and "timed out" in it.why,
        TRUTH["bogus"] // 4,
    ),
    Class(
        "named looks for a DS record at an alias above the name, and trips over its signature",
        "named",
        lambda it: _under_broken_alias(it.name) and it.got in (Kind.BOGUS, Kind.FAILURE),
        2 * len(VARIANTS),
    ),
    # Unbound 1.17 answers DS for a name below such an alias with the proof for the alias's end (harden-below-nxdomain).
    Class(
        "Unbound takes the missing end of an alias for what is below the alias",
        "validate, through unbound",
        lambda it: it.got == Kind.BOGUS and it.truth.startswith("secure nxdomain") and _end_is_missing(it),
        24,
    ),
)


@dataclass(frozen=True, slots=True)
class Told:
    """What the program inside the namespace printed.

    :param missing: why a validator was not started, by name.
    """

    reports: Mapping[str, Mapping[str, Any]]
    gathered: Mapping[str, Mapping[str, Sequence[Any]]]
    missing: Mapping[str, str]

    def report(self, asker: str) -> Mapping[str, Any]:
        """What one asker was told; the running test is left out if there was nobody to ask."""
        for name, why in self.missing.items():
            if name in asker:
                servers.leave_out(name, why)
        return self.reports[asker]


class _Summary:
    """Prints lines at the end of the test session."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """See pytest's hook of this name."""
        terminalreporter.section("the signed tree")
        for line in self._lines:
            terminalreporter.line(line)


@pytest.fixture(scope="module")
def summary(request: pytest.FixtureRequest) -> list[str]:
    """Lines for people."""
    lines = [f"{len(TREE.zones)} zones, {len(QUESTIONS)} names with types: {dict(TRUTH)}"]
    request.config.pluginmanager.register(_Summary(lines))
    return lines


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Everybody asked everything, once."""
    for name in ("nsd", "unbound", "ldns-keygen", "ldns-signzone", "ldns-key2ds", "dnssec-signzone"):
        servers.require(name)
    servers.require_libunbound()
    missing: dict[str, str] = {}
    for name in VALIDATORS:
        try:
            servers.find(name)
        except servers.UnavailableError as error:
            missing[name] = str(error)
    present = [name for name in VALIDATORS if name not in missing]
    directory = tmp_path_factory.mktemp("tree")
    program = [sys.executable, "-m", "tests.interop.dns_truth", str(directory), *present]
    try:
        command = in_own_network(program)
    except servers.UnavailableError as error:
        servers.leave_out("network namespace", str(error))
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "RELAY_TEST_INSTALL": "0"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return Told(**json.loads(done.stdout), missing=missing)


def test_the_tree_has_enough_of_everything() -> None:
    assert len(QUESTIONS) == len(set(QUESTIONS)) >= 2000
    assert all(TRUTH[kind] >= 100 for kind in TRUTH), TRUTH
    assert len(TRUTH) == 8, TRUTH
    assert {question.rrtype for question in QUESTIONS} >= {RRType.MX, RRType.A, RRType.AAAA, RRType.TLSA, RRType.CNAME}
    assert {zone.state for zone in TREE.zones.values()} == set(State)
    assert grow() == (TREE, QUESTIONS), "the same seed, and another tree"
    large = TREE.truth(Question("_25._tcp.big.good.ec", RRType.TLSA))
    assert sum(len(digits) // 2 for digits in large.rdata) > 4000, "it would fit into a datagram"


@pytest.mark.parametrize(
    ("name", "rrtype", "truth"),
    [
        ("good.ec", RRType.MX, "secure records"),
        ("_25._tcp.mx1.good.ec", RRType.TLSA, "secure records"),
        ("_25._tcp.mx2.good.rsa", RRType.TLSA, "secure nxdomain"),
        ("_25._tcp.mx3.good.ed", RRType.TLSA, "secure nodata"),
        ("_tcp.mx2.good.ec", RRType.TLSA, "secure nodata"),
        ("a.b.good.ec", RRType.A, "secure nodata"),
        ("nope.rsa", RRType.MX, "secure nxdomain"),
        ("nope.ed", RRType.MX, "insecure nxdomain"),  # Opt-Out
        ("nope.good.ed", RRType.MX, "secure nxdomain"),
        ("nope.iterations.ec", RRType.MX, "insecure nxdomain"),
        ("iterations.ec", RRType.MX, "secure records"),
        ("mx1.plain.ed", RRType.A, "insecure records"),
        ("expired.plain.rsa", RRType.MX, "insecure records"),
        ("island.ec", RRType.MX, "insecure records"),
        ("y.z.hosts.wild.ec", RRType.A, "secure records"),
        ("under.exists.hosts.wild.ec", RRType.A, "secure nxdomain"),
        ("exists.hosts.wild.ec", RRType.A, "secure nodata"),
        ("some.alias.wild.rsa", RRType.A, "secure records"),
        ("to-plain.alias.ec", RRType.A, "insecure records"),
        ("to-plain.alias.ec", RRType.CNAME, "secure records"),
        ("long0.alias.ec", RRType.A, "secure records"),
        ("loop1.alias.ec", RRType.A, "failure"),
        ("mx1.moved.alias.ec", RRType.A, "secure records"),
        ("mx1.moved-out.alias.ec", RRType.A, "insecure records"),
        ("to-wrong-ds.alias.ec", RRType.A, "bogus"),
        ("liar.ec", RRType.MX, "secure records"),
        ("nope.liar.ec", RRType.MX, "bogus"),
        ("any.wild.liar.ec", RRType.A, "bogus"),
        ("child.liar.ec", RRType.MX, "bogus"),
        ("trusty.liar.ec", RRType.MX, "secure records"),
        ("altered.sick.ec", RRType.A, "bogus"),
        ("altered.sick.ec", RRType.AAAA, "secure nodata"),
        ("to-silent.alias.ec", RRType.A, "failure"),
    ],
)
def test_truth_in_examples(name: str, rrtype: RRType, truth: str) -> None:
    """What the model makes of names whose status is plain to see."""
    assert status(TREE.truth(Question(name, rrtype))) == truth


@pytest.mark.parametrize("asker", ASKERS)
def test_everybody_says_what_was_built_in(told: Told, summary: list[str], asker: str) -> None:
    report = told.report(asker)
    assert report["asked"] == len(QUESTIONS)
    classes: Counter[str] = Counter()
    unexplained: list[Different] = []
    for difference in (Different(**one) for one in report["different"]):
        known = next((one for one in KNOWN if one.asker in asker and one.applies(difference)), None)
        if known is None:
            unexplained.append(difference)
        else:
            classes[known.name] += 1
    named = "; ".join(f"{name}: {number}" for name, number in classes.items()) or "none"
    summary.append(f"{asker}: {report['asked']} asked in {report['seconds']} s, differences: {named}")
    assert not unexplained, f"{len(unexplained)} differences: {unexplained[:10]}"
    for one in KNOWN:
        assert classes[one.name] <= one.cap, (
            f"{one.name}: {classes[one.name]}, and at most {one.cap} were to be expected"
        )


def test_without_trust_nothing_is_secure(told: Told) -> None:
    """The comparison sees what it must see: the same answers from a server whose AD bit does not count."""
    report = told.report("trust-ad without trust")
    assert not [kind for kind in report["outcomes"] if kind.startswith("secure")]
    differences = Counter((status_of(one["truth"]), status_of(one["got"])) for one in report["different"])
    assert differences == {
        (kind, kind.replace("secure", "insecure")): TRUTH[kind] for kind in TRUTH if kind.startswith("secure")
    }


def status_of(text: str) -> str:
    """An outcome's text without its particulars."""
    return text.partition(" at ")[0]


@pytest.mark.parametrize("top", [variant.name for variant in VARIANTS])
@pytest.mark.parametrize("asker", GATHERERS)
def test_destinations_are_gathered_so(told: Told, asker: str, top: str) -> None:
    """MX, addresses and TLSA records as a delivery sees them (RFC 7672 section 2.2)."""
    told.report(asker)
    gathered = told.gathered[asker]
    wrong = {
        case.next_hop: gathered[case.next_hop]
        for case in cases(top)
        if gathered[case.next_hop] != [case.destination, case.hosts]
    }
    assert not wrong
