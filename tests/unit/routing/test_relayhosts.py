"""Relayhosts by sender: what a line means, which line holds, and what becomes of a line that nobody understands."""

from __future__ import annotations

import pytest

from relay.mail.envelope import NULL_SENDER, Address, Sender
from relay.mail.names import Domain, IpLiteral
from relay.routing.relayhosts import AsOthers, NoRelayhost, SenderEntry, SenderTables, lookup_keys, parse_relayhosts
from relay.routing.transport import Malformed, Via

JOE = Address("Joe@client.test", Domain("client.test"))


def held(*texts: str, by: Sender) -> str:
    """The place of the entry for a sender, empty if there is none."""
    tables = SenderTables(tuple(parse_relayhosts(text, f"map{n}", port=25) for n, text in enumerate(texts)))
    entry = tables.lookup(by)
    return "" if isinstance(entry, NoRelayhost) else entry.place


def entry(line: str) -> SenderEntry:
    table = parse_relayhosts(line, "senders", port=25)
    (key,) = table.source.keys()
    found = table.lookup(key)
    assert isinstance(found, SenderEntry)
    return found


def test_an_address_comes_before_its_domain_in_whatever_map() -> None:
    assert list(lookup_keys(JOE)) == ["joe@client.test", "@client.test"]
    assert held("@client.test a.example\n", "joe@client.test b.example\n", by=JOE) == "map1:1"
    assert held("JOE@CLIENT.test a.example\n", "joe@client.test b.example\n", by=JOE) == "map0:1"
    assert held("@client.test a.example\n", by=Address("joe@deep.client.test", Domain("deep.client.test"))) == ""
    assert held("@[127.0.0.1] a.example\n", by=Address("joe@[127.0.0.1]", IpLiteral.parse("127.0.0.1"))) == "map0:1"


def test_reports_go_by_a_key_of_their_own() -> None:
    assert held("@client.test a.example\n<> b.example\n", by=NULL_SENDER) == "map0:2"
    assert held("@client.test a.example\n", by=NULL_SENDER) == ""


def test_values() -> None:
    via = entry("@client.test [a.example]:587, b.example\n").action
    assert isinstance(via, Via)
    assert [(hop.key, hop.port) for hop in via.next_hops] == [("[a.example]:587", 587), ("b.example", 25)]
    assert entry("joe@client.test dunno\n").action == AsOthers()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("@client.test\n", "expected format: key whitespace value"),
        ("@client.test [a.example\n", "not a next-hop"),
        ("@client.test smtp:[a.example]:25\n", "not a next-hop"),
        ("@client.test 192.0.2.1\n", '"192.0.2.1"'),
        (" @client.test a.example\n", "must not start with whitespace"),
        ("@client.test a.example\n@client.test b.example\n", 'duplicate entry: "@client.test" (first at senders:1)'),
    ],
)
def test_a_line_that_nobody_understands_keeps_its_key(line: str, found: str) -> None:
    table = parse_relayhosts(line, "senders", port=25)
    broken = table.lookup("@client.test")
    assert isinstance(broken, SenderEntry)
    assert isinstance(broken.action, Malformed)
    assert found in broken.action.found
    assert [problem.is_error for problem in table.problems] == [True]


def test_a_key_that_no_sender_has_is_told() -> None:
    (problem,) = parse_relayhosts("client.test a.example\n", "senders", port=25).problems
    assert problem.is_error
    assert "write @client.test" in problem.text


def test_the_same_line_twice_is_only_told() -> None:
    table = parse_relayhosts("@client.test a.example\n@client.test a.example\n", "senders", port=25)
    assert entry("@client.test a.example\n@client.test a.example\n").place == "senders:1"
    assert [problem.is_error for problem in table.problems] == [False]
