"""Password and token maps: which entry is found, and what is wrong with a line, told without the line."""

from __future__ import annotations

import pytest

from relay.mail.envelope import NULL_SENDER, Address, Sender
from relay.mail.names import Domain, IpLiteral, NextHop
from relay.sasl.credentials import (
    BadCredentials,
    Credentials,
    NoCredentials,
    Owner,
    Password,
    Standing,
    TokenCommand,
    TokenFile,
)
from relay.sasl.passwords import CredentialTables, parse_passwords, parse_tokens

JOE = Address("Joe@Example.com", Domain("example.com"))
MAP = """\
# a comment
[smtp.provider.test]:587   next-hop:one
smtp.provider.test         host:two
provider.test              domain:three
joe@example.com            sender:four
@example.com               everyone:five
[192.0.2.7]:25             literal:six
2001:db8::7                literal6:seven
MÜNCHEN.test               idn:eight
"""


def find(text: str, hop: str, *, host: str = "", sender: Sender = NULL_SENDER, by_sender: bool = False) -> Standing:
    next_hop = NextHop.parse(hop, default_port=25)
    tables = CredentialTables(tables=(parse_passwords(text, "sasl_passwd"),), by_sender=by_sender)
    return tables.lookup(sender, next_hop, Domain.parse(host) if host else next_hop.host)


@pytest.mark.parametrize(
    ("hop", "host", "by_sender", "user", "owner"),
    [
        ("[smtp.provider.test]:587", "", False, "host", Owner.HOST),
        ("provider.test", "mx.other.test", False, "domain", Owner.NEXT_HOP),
        ("provider.test", "smtp.provider.test", False, "host", Owner.HOST),
        ("[192.0.2.7]:25", "", False, "literal", Owner.NEXT_HOP),
        ("[2001:db8::7]", "", False, "literal6", Owner.HOST),
        ("xn--mnchen-3ya.test", "mx.other.test", False, "idn", Owner.NEXT_HOP),
        ("[smtp.provider.test]:587", "", True, "sender", Owner.SENDER),
    ],
)
def test_the_order_is_sender_host_next_hop(hop: str, host: str, by_sender: bool, user: str, owner: Owner) -> None:
    found = find(MAP, hop, host=host, sender=JOE, by_sender=by_sender)
    assert isinstance(found, Credentials)
    assert (found.user, found.owner) == (user, owner)


def test_a_port_is_part_of_the_key() -> None:
    only_587 = "[smtp.provider.test]:587 joe:x"
    assert isinstance(find(only_587, "[smtp.provider.test]:587"), Credentials)
    assert isinstance(find(only_587, "[smtp.provider.test]"), NoCredentials)
    assert isinstance(find(only_587, "[smtp.provider.test]:465"), NoCredentials)


def test_senders_are_keys_only_where_that_was_asked_for() -> None:
    by_sender = "joe@example.com joe:x\n@example.com all:y"
    assert isinstance(find(by_sender, "[a.test]", sender=JOE), NoCredentials)
    assert isinstance(find(by_sender, "[a.test]", sender=NULL_SENDER, by_sender=True), NoCredentials)
    other = find(by_sender, "[a.test]", sender=Address("ann@example.com", Domain("example.com")), by_sender=True)
    assert isinstance(other, Credentials)
    assert other.user == "all"


def test_a_password_may_have_colons_and_blanks() -> None:
    found = find("[a.test]\tjoe: pass: word # no comment  \n", "[a.test]")
    assert isinstance(found, Credentials)
    assert isinstance(found.proof, Password)
    assert (found.user, found.proof.secret.reveal()) == ("joe", " pass: word # no comment")
    assert found.place == "sasl_passwd:1"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("[a.test] hunter2", "no colon behind the user name"),
        ("[a.test] :hunter2", "an empty user name"),
        ("[a.test] joe:", "an empty password"),
        ("[a.test]", "nothing behind the key"),
        ("[a.test] joe:hunter2" + "x" * 9000, "too long"),
        ("[a.test] joe:hunter2\0", "control character"),
        ("[a.test] joe:hunter2\n[a.test] joe:hunter3", "duplicate entry"),
        (" [a.test] joe:hunter2", "white space"),
    ],
)
def test_a_line_that_cannot_be_used_holds_its_mail_and_is_not_quoted(line: str, found: str) -> None:
    table = parse_passwords(f"{line}\na.test other:x", "sasl_passwd")
    assert any(problem.is_error and found in problem.text for problem in table.problems), table.problems
    assert not any("hunter" in str(problem) for problem in table.problems)
    if line[0] != " ":
        standing = CredentialTables(tables=(table,)).lookup(
            NULL_SENDER, NextHop.parse("[a.test]", default_port=25), Domain("mx.test")
        )
        assert isinstance(standing, BadCredentials), "a wider key must not take its place"
        assert "hunter" not in repr(standing)


def test_a_key_that_nothing_matches_is_told_and_not_quoted() -> None:
    (problem,) = parse_passwords("joe:hunter2", "sasl_passwd").problems[:1]
    assert problem.is_error
    assert "hunter2" not in str(problem)
    wrong = parse_passwords("hunter2!! joe:x", "sasl_passwd").problems
    assert "hunter2" not in str(wrong)


def test_the_same_line_twice_is_harmless() -> None:
    table = parse_passwords("a.test joe:x\na.test joe:x", "sasl_passwd")
    assert [problem.is_error for problem in table.problems] == [False]


def test_tokens_come_from_a_file_or_a_command() -> None:
    table = parse_tokens(
        "[a.test] joe:file:tokens/joe\n"
        "[b.test] joe:file:/run/token\n"
        "[c.test] joe:command:/usr/bin/get-token --user 'joe doe'\n"
        "[d.test] joe:hunter2\n"
        "[e.test] joe:command:get-token\n"
        "[f.test] joe:command:/bin/x 'open\n",
        "sasl_tokens",
        base="/etc/dane-relay",
    )
    tables = CredentialTables(tables=(table,))

    def at(name: str) -> Standing:
        return tables.lookup(NULL_SENDER, NextHop.parse(f"[{name}]", default_port=25), IpLiteral.parse("192.0.2.1"))

    proofs = [each.proof for each in map(at, ("a.test", "b.test", "c.test")) if isinstance(each, Credentials)]
    assert proofs == [
        TokenFile("/etc/dane-relay/tokens/joe"),
        TokenFile("/run/token"),
        TokenCommand(("/usr/bin/get-token", "--user", "joe doe")),
    ]
    for name in ("d.test", "e.test", "f.test"):
        assert isinstance(at(name), BadCredentials)
    assert "hunter2" not in str(table.problems)
