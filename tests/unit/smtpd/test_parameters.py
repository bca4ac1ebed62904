from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.envelope import NULL_SENDER, Address, BodyType, Notify, Ret
from relay.mail.names import Domain, IpLiteral
from relay.mail.reply import Reply
from relay.smtpd.parameters import MailParameters, RcptParameters, parse_mail, parse_rcpt

HERE = Domain("relay.example")


def mail(argument: str) -> MailParameters:
    parsed = parse_mail(argument, local_domain=HERE)
    assert isinstance(parsed, MailParameters), parsed
    return parsed


def rcpt(argument: str, *, smtputf8: bool = False) -> RcptParameters:
    parsed = parse_rcpt(argument, local_domain=HERE, smtputf8=smtputf8)
    assert isinstance(parsed, RcptParameters), parsed
    return parsed


def refused_mail(argument: str) -> str:
    parsed = parse_mail(argument, local_domain=HERE)
    assert isinstance(parsed, Reply), parsed
    return str(parsed)


def refused_rcpt(argument: str, *, smtputf8: bool = False) -> str:
    parsed = parse_rcpt(argument, local_domain=HERE, smtputf8=smtputf8)
    assert isinstance(parsed, Reply), parsed
    return str(parsed)


@pytest.mark.parametrize(
    ("path", "text", "domain"),
    [
        ("<user@example.org>", "user@example.org", "example.org"),
        ("<User.Name+tag@Example.ORG>", "User.Name+tag@Example.ORG", "example.org"),
        ('<"a b\\" @ c"@example.org>', '"a b\\" @ c"@example.org', "example.org"),
        ('<">"@example.org>', '">"@example.org', "example.org"),
        ("<a@[192.0.2.1]>", "a@[192.0.2.1]", "[192.0.2.1]"),
        ("<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
        ("<@one.example,@two.example:user@example.org>", "user@example.org", "example.org"),
        ("<user@example.org.>", "user@example.org", "example.org"),
        ("<a..b.@example.org>", "a..b.@example.org", "example.org"),
        ("<postmaster>", "postmaster@relay.example", "relay.example"),
        ("<PostMaster>", "PostMaster@relay.example", "relay.example"),
        (" <user@example.org>", "user@example.org", "example.org"),
    ],
)
def test_paths(path: str, text: str, domain: str) -> None:
    for address in (mail(f"FROM:{path}").sender, rcpt(f"to:{path}").address):
        assert isinstance(address, Address)
        assert address.text == text
        assert str(address.domain) == domain


def test_a_literal_is_an_address() -> None:
    assert isinstance(rcpt("TO:<a@[IPv6:::1]>").address.domain, IpLiteral)


def test_the_null_sender_is_no_recipient() -> None:
    assert mail("FROM:<>").sender is NULL_SENDER
    assert refused_rcpt("TO:<>") == "501 5.1.3 Bad recipient address syntax"


@pytest.mark.parametrize(
    "path",
    [
        "<user@example.org",
        "<user@example.org>junk",
        "<user@example.org>,<other@example.org>",
        "<user>",
        "<@example.org>",
        "<user@>",
        "<us er@example.org>",
        "<user@exam ple.org>",
        "<user@@example.org>",
        "<user@[300.1.2.3]>",
        "<user@[IPv6:192.0.2.1]>",
        '<"user@example.org>',
        "<a(comment)@example.org>",
        "<user@-example.org>",
        "<user@example..org>",
        "<a\rb@example.org>",
        "<a\x00b@example.org>",
        '<"a\nb"@example.org>',
        "<a\u0085b@example.org>",
        "<" + "a" * 600 + "@example.org>",
        "<@route.example:>",
    ],
)
def test_bad_paths(path: str) -> None:
    assert refused_mail(f"FROM:{path}") == "501 5.1.7 Bad sender address syntax"
    assert refused_rcpt(f"TO:{path}") == "501 5.1.3 Bad recipient address syntax"


@pytest.mark.parametrize(
    "argument", ["", "FROM", "TO:<a@b.example>", "FROM:a@example.org", "FROM:", "FROM :<a@b.example>"]
)
def test_mail_is_no_other_command(argument: str) -> None:
    assert refused_mail(argument) == "501 5.5.4 Syntax: MAIL FROM:<address>"


@pytest.mark.parametrize("argument", ["", "FROM:<a@b.example>", "TO:a@example.org"])
def test_rcpt_is_no_other_command(argument: str) -> None:
    assert refused_rcpt(argument) == "501 5.5.4 Syntax: RCPT TO:<address>"


def test_mail_parameters() -> None:
    parsed = mail("FROM:<a@example.org> size=1000 BODY=8bitmime RET=hdrs ENVID=QQ+2B314aZ AUTH=<> smtputf8")
    assert parsed.size == 1000
    assert parsed.body is BodyType.EIGHT_BIT_MIME
    assert parsed.smtputf8
    assert parsed.ret is Ret.HDRS
    assert parsed.envid == "QQ+2B314aZ"
    plain = mail("FROM:<a@example.org>")
    assert (plain.size, plain.body, plain.smtputf8, plain.ret, plain.envid) == (
        0,
        BodyType.SEVEN_BIT,
        False,
        Ret.UNSPECIFIED,
        "",
    )


@pytest.mark.parametrize(
    ("parameters", "reply"),
    [
        ("SIZE=x", "501 5.5.4 Bad message size syntax"),
        ("SIZE", "501 5.5.4 Bad message size syntax"),
        ("SIZE=-1", "501 5.5.4 Bad message size syntax"),
        ("SIZE=" + "9" * 21, "501 5.5.4 Bad message size syntax"),
        ("BODY=", "501 5.5.4 Bad BODY parameter syntax"),
        ("BODY=BINARYMIME", "555 5.5.4 Unsupported option: BODY=BINARYMIME"),
        ("SMTPUTF8=yes", "501 5.5.4 Bad SMTPUTF8 parameter syntax"),
        ("RET=BODY", "501 5.5.4 Bad RET parameter syntax"),
        ("RET", "501 5.5.4 Bad RET parameter syntax"),
        ("ENVID=a b", "555 5.5.4 Unsupported option: b"),
        ("ENVID=a+2", "501 5.5.4 Bad ENVID parameter syntax"),
        ("ENVID=a+0D+0Ab", "501 5.5.4 Bad ENVID parameter syntax"),
        ("ENVID=" + "a" * 101, "501 5.5.4 Bad ENVID parameter syntax"),
        ("AUTH=", "501 5.5.4 Bad AUTH parameter syntax"),
        ("REQUIRETLS", "555 5.5.4 Unsupported option: REQUIRETLS"),
        ("MT-PRIORITY=3", "555 5.5.4 Unsupported option: MT-PRIORITY=3"),
        ("NOTIFY=NEVER", "555 5.5.4 Unsupported option: NOTIFY=NEVER"),
        ("=x", "555 5.5.4 Unsupported option: =x"),
        ("SIZE=1 size=2", "501 5.5.4 Syntax: MAIL FROM:<address>"),
        (" ".join(f"X{n}" for n in range(20)), "501 5.5.4 Syntax: MAIL FROM:<address>"),
    ],
)
def test_bad_mail_parameters(parameters: str, reply: str) -> None:
    assert refused_mail(f"FROM:<a@example.org> {parameters}") == reply


def test_rcpt_parameters() -> None:
    parsed = rcpt("TO:<b@example.org> NOTIFY=success,Delay ORCPT=rfc822;Bob+2Bx@Example.org")
    assert parsed.notify == Notify.SUCCESS | Notify.DELAY
    assert parsed.orcpt == "rfc822;Bob+2Bx@Example.org"
    assert rcpt("TO:<b@example.org> NOTIFY=NEVER").notify is Notify.NEVER
    assert rcpt("TO:<b@example.org>").notify is Notify.UNSPECIFIED


@pytest.mark.parametrize(
    ("parameters", "reply"),
    [
        ("NOTIFY=NEVER,SUCCESS", "501 5.5.4 Error: Bad NOTIFY parameter syntax"),
        ("NOTIFY=", "501 5.5.4 Error: Bad NOTIFY parameter syntax"),
        ("NOTIFY=ALWAYS", "501 5.5.4 Error: Bad NOTIFY parameter syntax"),
        ("ORCPT=b@example.org", "501 5.5.4 Error: Bad ORCPT parameter syntax"),
        ("ORCPT=rfc822;a+zz", "501 5.5.4 Error: Bad ORCPT parameter syntax"),
        ("ORCPT=rfc822;a+0Ab", "501 5.5.4 Error: Bad ORCPT parameter syntax"),
        ("ORCPT=rfc822;" + "a" * 500, "501 5.5.4 Error: Bad ORCPT parameter syntax"),
        ("ORCPT=utf-8;b\u00fc", "501 5.5.4 Error: Bad ORCPT parameter syntax"),
        ("SIZE=10", "555 5.5.4 Unsupported option: SIZE=10"),
    ],
)
def test_bad_rcpt_parameters(parameters: str, reply: str) -> None:
    assert refused_rcpt(f"TO:<b@example.org> {parameters}") == reply


def test_unicode_must_be_declared() -> None:
    undeclared = "553 5.6.7 Must declare SMTPUTF8 to send unicode address"
    assert refused_mail("FROM:<j\u00f8rgen@example.org>") == undeclared
    assert refused_mail("FROM:<a@b\u00fccher.example> BODY=8BITMIME") == undeclared
    assert refused_rcpt("TO:<j\u00f8rgen@example.org>") == undeclared
    sender = mail("FROM:<j\u00f8rgen@b\u00fccher.example> SMTPUTF8").sender
    assert isinstance(sender, Address)
    assert sender.text == "j\u00f8rgen@b\u00fccher.example"
    assert str(sender.domain) == "xn--bcher-kva.example"
    assert rcpt("TO:<\u7528\u6237@example.org> ORCPT=utf-8;\u7528@x", smtputf8=True).orcpt == "utf-8;\u7528@x"
    assert rcpt("TO:<b@example.org> ORCPT=utf-8;\\x{7528}@x").orcpt == "utf-8;\\x{7528}@x"


def test_a_long_option_is_cut_in_the_reply() -> None:
    assert len(refused_mail("FROM:<a@example.org> X=" + "y" * 1500)) < 160


@given(st.text(max_size=60))
def test_any_text_gives_values_or_a_refusal(text: str) -> None:
    for argument in (text, f"FROM:{text}", f"FROM:<{text}>", f"FROM:<a@example.org> {text}", f"TO:<{text}>"):
        for parsed in (
            parse_mail(argument, local_domain=HERE),
            parse_rcpt(argument, local_domain=HERE, smtputf8=True),
        ):
            match parsed:
                case Reply():
                    assert 500 <= parsed.code < 600
                case MailParameters(sender=Address(text=found)) | RcptParameters(address=Address(text=found)):
                    assert not set(found) & set("\r\n\x00")
                case _:
                    assert parsed.sender is NULL_SENDER
