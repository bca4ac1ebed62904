"""Destinations that differ in how their hosts behave (RFC 3207, RFC 5321, RFC 7672 section 2.2)."""

from __future__ import annotations

from relay.lab.destination import TlsaSpec
from relay.lab.script import Rcpt, Script, StartTls
from tests.interop.side_by_side_case import (
    EE,
    EE_OF_STRANGER,
    NO_STARTTLS,
    OTHER_PORT,
    RELAYHOST,
    Case,
    Host,
    Section,
    one_host,
)
from tests.interop.zones import Signing, Zone

_REFUSES_554 = Script(starttls=StartTls.REFUSED_554)


def _two(
    name: str, what: str, first: Host, *, second: tuple[TlsaSpec, ...] = (EE,), zones: tuple[Zone, ...] = ()
) -> Case:
    hosts = (first, Host(name=f"mx2.{name}.test", tlsa=second))
    return Case(name=name, what=what, hosts=hosts, zones=zones)


def _many(name: str, what: str, *hosts: tuple[str, tuple[TlsaSpec, ...], bool]) -> Case:
    made = (Host(name=f"{label}.{name}.test", tlsa=tlsa, listens=listens) for label, tlsa, listens in hosts)
    return Case(name=name, what=what, hosts=tuple(made))


def _refusing(*verbs: str) -> Script:
    return Script(refused=tuple((verb, "554 5.7.1 not for you") for verb in verbs))


STARTTLS = Section(
    "STARTTLS missing, refused or broken",
    (
        one_host("clear", "no STARTTLS, no TLSA", script=NO_STARTTLS),
        one_host("stripped", "no STARTTLS, TLSA", EE, script=NO_STARTTLS),
        one_host("starttls-454", "454 to STARTTLS, no TLSA", script=StartTls.REFUSED_454),
        one_host("starttls-454-dane", "454 to STARTTLS, TLSA", EE, script=StartTls.REFUSED_454),
        one_host("starttls-554", "554 to STARTTLS, no TLSA", script=StartTls.REFUSED_554),
        one_host("starttls-554-dane", "554 to STARTTLS, TLSA", EE, script=StartTls.REFUSED_554),
        one_host("starttls-554-unusable", "554 to STARTTLS, `1 1 1` only", TlsaSpec(1, 1, 1), script=_REFUSES_554),
        one_host("garbage", "babble for a handshake, no TLSA", script=StartTls.GARBAGE),
        one_host("garbage-dane", "babble for a handshake, TLSA", EE, script=StartTls.GARBAGE),
        one_host("cut", "handshake cut, no TLSA", script=StartTls.CUT),
        one_host("cut-dane", "handshake cut, TLSA", EE, script=StartTls.CUT),
    ),
)

SEVERAL = Section(
    "Several hosts",
    (
        _two("two", "both good", Host(name="mx1.two.test", tlsa=(EE,))),
        _two("two-mismatch", "the first does not match", Host(name="mx1.two-mismatch.test", tlsa=(EE_OF_STRANGER,))),
        _two("two-plain", "no TLSA at the first, no STARTTLS", Host(name="mx1.two-plain.test", script=NO_STARTTLS)),
        _two(
            "two-stripped",
            "no STARTTLS at the first",
            Host(name="mx1.two-stripped.test", tlsa=(EE,), script=NO_STARTTLS),
        ),
        _two("two-554", "554 to STARTTLS at the first", Host(name="mx1.two-554.test", tlsa=(EE,), script=_REFUSES_554)),
        _two("two-closed", "nobody listens at the first", Host(name="mx1.two-closed.test", tlsa=(EE,), listens=False)),
        _two(
            "two-servfail",
            "SERVFAIL for the first's TLSA",
            Host(name="mx1.two-servfail.test"),
            zones=(Zone("_tcp.mx1.two-servfail.test.", Signing.UNLOADABLE),),
        ),
        _two("two-address", "the first's address does not validate", Host(name="mx1.two.bogus.test", tlsa=(EE,))),
        _two(
            "two-bad",
            "neither matches",
            Host(name="mx1.two-bad.test", tlsa=(EE_OF_STRANGER,)),
            second=(EE_OF_STRANGER,),
        ),
        _two(
            "two-greeting",
            "the first greets with 554",
            Host(name="mx1.two-greeting.test", tlsa=(EE,), script=Script(greeting="554 5.3.2 not today")),
        ),
        _two(
            "two-busy",
            "450 to RCPT at the first",
            Host(name="mx1.two-busy.test", tlsa=(EE,), script=Script(refused=(("RCPT", "450 4.2.0 not now"),))),
        ),
        Case(
            name="two-gone",
            what="nobody listens at the first, the second does not exist",
            hosts=(Host(name="mx1.two-gone.test", listens=False),),
            exchangers=("mx1.two-gone.test.", "mx2.two-gone.test."),
        ),
        Case(
            name="two-missing",
            what="the first does not exist, the second is good",
            hosts=(Host(name="mx2.two-missing.test", tlsa=(EE,)),),
            exchangers=("mx1.two-missing.test.", "mx2.two-missing.test."),
        ),
        Case(
            name="two-missing-bad",
            what="the first does not exist, the second does not match",
            hosts=(Host(name="mx2.two-missing-bad.test", tlsa=(EE_OF_STRANGER,)),),
            exchangers=("mx1.two-missing-bad.test.", "mx2.two-missing-bad.test."),
        ),
        _many(
            "four-bad",
            "three do not match, the fourth does",
            *((f"mx{number}", (EE_OF_STRANGER,), True) for number in (1, 2, 3)),
            ("mx4", (EE,), True),
        ),
        _many(
            "six-closed",
            "nobody listens at five, the sixth is good",
            *((f"mx{number}", (EE,), False) for number in (1, 2, 3, 4, 5)),
            ("mx6", (EE,), True),
        ),
        Case(
            name="relayhost",
            what="relayhost `[mx1]`, whose TLSA does not match, then `[mx2]:PORT`, whose TLSA for that port matches",
            hosts=(
                Host(name="mx1.relayhost.test", tlsa=(EE_OF_STRANGER,)),
                Host(name="mx2.relayhost.test", tlsa=(EE,), port=OTHER_PORT),
            ),
            exchangers=(),
            profile=RELAYHOST,
        ),
    ),
)

REPLIES = Section(
    "Hosts that say no",
    (
        one_host("greeting-421", "greeting 421, TLSA", EE, script=Script(greeting="421 4.3.2 too busy")),
        one_host("greeting-554", "greeting 554, TLSA", EE, script=Script(greeting="554 5.3.2 not today")),
        one_host("greeting-554-plain", "greeting 554, no TLSA", script=Script(greeting="554 5.3.2 not today")),
        one_host("ehlo-554", "554 to EHLO and HELO, TLSA", EE, script=_refusing("EHLO", "HELO")),
        one_host("ehlo-554-plain", "554 to EHLO and HELO, no TLSA", script=_refusing("EHLO", "HELO")),
        one_host("helo-only", "554 to EHLO only, TLSA", EE, script=_refusing("EHLO")),
        one_host("helo-only-plain", "554 to EHLO only, no TLSA", script=_refusing("EHLO")),
        one_host("mail-554", "554 to MAIL", EE, script=_refusing("MAIL")),
        one_host("mail-451", "451 to MAIL", EE, script=Script(refused=(("MAIL", "451 4.3.0 not now"),))),
        one_host("rcpt-550", "550 to RCPT", EE, script=Script(rcpt=Rcpt.REJECTED)),
        one_host("rcpt-450", "450 to RCPT", EE, script=Script(rcpt=Rcpt.GREYLISTED)),
        one_host("data-554", "554 to DATA", EE, script=_refusing("DATA")),
        one_host("content-554", "554 to the content", EE, script=Script(end_of_data="554 5.6.0 not this message")),
        one_host("content-452", "452 to the content", EE, script=Script(end_of_data="452 4.3.1 disk full")),
        Case(name="closed", what="nobody listens", hosts=(Host(name="mx.closed.test", tlsa=(EE,), listens=False),)),
    ),
)
