"""Transport maps: what a line means, which line holds, and what becomes of a line that nobody understands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.envelope import Address
from relay.mail.names import Domain, IpLiteral
from relay.mail.reply import EnhancedStatus
from relay.routing.transport import (
    Action,
    ByDomain,
    Discard,
    Malformed,
    NoTransport,
    Refuse,
    TransportEntry,
    TransportTables,
    Unchanged,
    Via,
    lookup_keys,
    parse_transport,
)


def address(text: str) -> Address:
    local, _, domain = text.rpartition("@")
    literal = domain.startswith("[")
    return Address(f"{local}@{domain}", IpLiteral.parse(domain[1:-1]) if literal else Domain.parse(domain))


def looked_up(text: str, key: str) -> TransportEntry:
    entry = parse_transport(text, "m", port=25).lookup(key)
    assert isinstance(entry, TransportEntry)
    return entry


def action(value: str) -> Action:
    return looked_up(f"example.com {value}\n", "example.com").action


def held(*texts: str, to: str) -> str:
    """The place of the entry for a recipient, empty if there is none."""
    names = "abcdef"
    tables = TransportTables(tuple(parse_transport(text, name, port=25) for text, name in zip(texts, names)))  # noqa: B905 - there are more names than maps
    entry = tables.lookup(address(to))
    return entry.place if isinstance(entry, TransportEntry) else ""


@pytest.mark.parametrize(
    ("value", "next_hops"),
    [
        ("smtp:[mail.example.net]:2525", [("[mail.example.net]:2525", 2525, False)]),
        ("smtp:[mail.example.net]", [("[mail.example.net]", 25, False)]),
        ("smtp:example.net", [("example.net", 25, True)]),
        ("relay:example.net:587", [("example.net:587", 587, True)]),
        (":[192.0.2.1]:26", [("[192.0.2.1]:26", 26, False)]),
        ("smtp:[2001:db8::1]", [("[2001:db8::1]", 25, False)]),
        ("smtp:[A.Example.net]", [("[a.example.net]", 25, False)]),
        ("smtp:a.net, [b.net]:26 c.net", [("a.net", 25, True), ("[b.net]:26", 26, False), ("c.net", 25, True)]),
        ("smtp:a.net,a.net", [("a.net", 25, True)]),
    ],
)
def test_next_hops_are_kept_as_written(value: str, next_hops: list[tuple[str, int, bool]]) -> None:
    got = action(value)
    assert isinstance(got, Via)
    assert [(hop.key, hop.port, hop.use_mx) for hop in got.next_hops] == next_hops


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (":", Unchanged()),
        ("smtp:", ByDomain()),
        ("relay:", ByDomain()),
        ("smtp", ByDomain()),
        ("error:5.1.2 no such place", Refuse(EnhancedStatus(5, 1, 2), "no such place")),
        (
            "error:mail for *.example.com is not deliverable",
            Refuse(EnhancedStatus(5, 0, 0), "mail for *.example.com is not deliverable"),
        ),
        ("error:", Refuse(EnhancedStatus(5, 0, 0), "")),
        ("error:5.1.2", Refuse(EnhancedStatus(5, 1, 2), "")),
        ("error:5.1.2.3 is no code", Refuse(EnhancedStatus(5, 0, 0), "5.1.2.3 is no code")),
        ("retry:4.2.1 come back", Refuse(EnhancedStatus(4, 2, 1), "come back")),
        ("retry:later", Refuse(EnhancedStatus(4, 0, 0), "later")),
        ("discard:thrown away", Discard("thrown away")),
        ("discard:", Discard("")),
    ],
)
def test_what_a_line_means(value: str, expected: Action) -> None:
    assert action(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "lmtp:unix:/run/lmtp",
        "local:",
        "SMTP:example.net",
        "example.net",
        "[mail.example.net]:25",
        "smtp:[mail.example.net",
        "smtp:[mail.example.net]:0",
        "smtp:[mail.example.net]:65536",
        "smtp:[mail.example.net]:submission",
        "smtp:192.0.2.1",
        "smtp:a..b",
        "smtp:a.net,[b",
        "smtp:,",
        "error:4.1.1 not an error",
        "retry:5.1.1 not to be tried again",
        "error:2.0.0 fine",
        "",
        "smtp:\udcff",
    ],
)
def test_what_nobody_understands_is_malformed_and_told(value: str) -> None:
    table = parse_transport(f"# first line\nexample.com {value}\n", "transport", port=25)
    entry = table.lookup("example.com")
    assert isinstance(entry, TransportEntry)
    assert isinstance(entry.action, Malformed)
    (problem,) = table.problems
    assert problem.place == "transport:2"
    assert problem.is_error
    assert str(problem).startswith("transport:2: example.com: ")
    str(problem).encode()


def test_an_indented_first_line_defers_its_key() -> None:
    assert isinstance(looked_up("  example.com smtp:a.net\n", "example.com").action, Malformed)


def test_keys_are_tried_as_postfix_tries_them() -> None:
    assert list(lookup_keys(address("Ann+x@a.b.example"))) == [
        "ann+x@a.b.example",
        "a.b.example",
        ".b.example",
        ".example",
        "*",
    ]
    assert list(lookup_keys(address("ann@[192.0.2.1]"))) == ["ann@[192.0.2.1]", "[192.0.2.1]", "*"]


MAP = """\
*                  smtp:everybody.net
.example.com       smtp:below.net
example.com        smtp:domain.net
Ann@Example.COM.   smtp:ann.net
bücher.example     smtp:books.net
[192.0.2.1]        smtp:literal.net
"""


@pytest.mark.parametrize(
    ("to", "line"),
    [
        ("ann@example.com", 4),
        ("ANN@example.com", 4),
        ("ann+x@example.com", 3),
        ("bob@example.com", 3),
        ("bob@a.example.com", 2),
        ("bob@a.b.example.com", 2),
        ("bob@notexample.com", 1),
        ("bob@xn--bcher-kva.example", 5),
        ("bob@[192.0.2.1]", 6),
        ("bob@[192.0.2.2]", 1),
    ],
)
def test_which_line_holds(to: str, line: int) -> None:
    assert held(MAP, to=to) == f"a:{line}"


def test_a_closer_key_in_a_later_map_wins_and_the_first_map_for_one_key() -> None:
    assert held("* smtp:a.net\n.example.com smtp:a.net", "x.example.com smtp:b.net", to="u@x.example.com") == "b:1"
    assert held("example.com smtp:a.net", "example.com smtp:b.net", to="u@example.com") == "a:1"
    assert held("", "other.example smtp:b.net", to="u@example.com") == ""
    assert isinstance(TransportTables().lookup(address("u@example.com")), NoTransport)


def test_a_malformed_line_is_not_passed_over_for_a_wider_one() -> None:
    assert held("* smtp:a.net\nexample.com lmtp:x", to="u@example.com") == "a:2"


@pytest.mark.parametrize("key", ["a..b", "@example.com", "ann@", "ann@*", "*.example.com", "..example.com", "[x]"])
def test_a_key_that_never_matches_is_told(key: str) -> None:
    (problem,) = parse_transport(f"{key} smtp:a.net\n", "transport", port=25).problems
    assert problem.is_error
    assert f'no recipient ever matches the key "{key}"' in problem.text


def test_the_same_key_twice() -> None:
    same = parse_transport("a.example smtp:b.net\nA.example. smtp:b.net\n", "m", port=25)
    assert looked_up("a.example smtp:b.net\nA.example. smtp:b.net\n", "a.example").place == "m:1"
    assert [(str(p), p.is_error) for p in same.problems] == [
        ('m:2: duplicate entry: "a.example" (first at m:1)', False)
    ]
    contradicting = "a.example smtp:b.net\na.example smtp:c.net\na.example smtp:b.net\n"
    other = parse_transport(contradicting, "m", port=25)
    assert isinstance(looked_up(contradicting, "a.example").action, Malformed)
    assert all(problem.is_error for problem in other.problems)


@given(st.text(alphabet=" \t\n#:,.@[]*abz059-", max_size=80))
def test_no_line_disappears(text: str) -> None:
    """Reading never fails, and the key of every line has an entry, of that line or of one that says so."""
    table = parse_transport(text, "m", port=25)
    lines = [line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")]
    starts = [line for number, line in enumerate(lines) if not number or not line[0].isspace()]
    repeated = {problem.place for problem in table.problems if problem.text.startswith("duplicate entry")}
    assert len(table.source) + len(repeated) == len(starts)
