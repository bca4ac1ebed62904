"""Destinations behind CNAME records: whose name is the TLSA base domain, and which step was secure (RFC 7672 section 2.2.2)."""

from __future__ import annotations

from relay.lab.destination import BOGUS_HOSTS, HOSTS, PLAIN_HOSTS, Asked, Destination, Host, Session
from relay.lab.nameserver import Fault
from relay.lab.record import Reach
from relay.lab.scenarios.build import TLSA_EE, TLSA_TA, mx, sent

_RULE = "RFC 7672 section 2.2.2"


def _behind(name: str, only: Host, shows: str, *proves: int, rule: str = _RULE, alias_of: str = "") -> Destination:
    return Destination(
        name=name,
        shows=shows,
        rule=rule,
        hosts=(only,),
        endings=(sent("", Session.VERIFIED, "dane", relay=only.shown_name),),
        reach=Reach.DELIVERED,
        tlsa=Asked.YES,
        proves=proves,
        alias_of=alias_of,
    )


def _first_host_out(name: str, first: Host, shows: str, rule: str, *proves: int) -> Destination:
    return Destination(
        name=name,
        shows=shows,
        rule=rule,
        hosts=(first, Host(name=mx(name, "mx2"), preference=20, tlsa=(TLSA_EE,))),
        endings=(sent("", Session.VERIFIED, "dane", relay=mx(name, "mx2")),),
        reach=Reach.DELIVERED,
        tlsa=Asked.YES,
        proves=proves,
    )


_MIDDLE = "middle.alias-chain.lab.test"

ALIASES = (
    _behind(
        "alias-original",
        Host(
            name=f"real.alias-original.{HOSTS}",
            alias=mx("alias-original"),
            tlsa=(TLSA_EE,),
            tlsa_at=mx("alias-original"),
        ),
        "secure CNAME, TLSA at the alias alone",
        23,
        51,
    ),
    _behind(
        "alias-insecure",
        Host(
            name=f"real.alias-insecure.{PLAIN_HOSTS}",
            alias=mx("alias-insecure"),
            tlsa=(TLSA_EE,),
            tlsa_at=mx("alias-insecure"),
        ),
        "secure CNAME into an unsigned zone, TLSA at the alias",
        8,
        9,
        24,
    ),
    _behind(
        "alias-chain",
        Host(
            name=f"real.alias-chain.{HOSTS}",
            alias=mx("alias-chain"),
            via=(_MIDDLE,),
            tlsa=(TLSA_TA,),
            decoys=(_MIDDLE,),
        ),
        "two CNAMEs in a row, a wrong TLSA in the middle",
        28,
    ),
    _behind(
        "tlsa-alias",
        Host(name=mx("tlsa-alias"), tlsa=(TLSA_TA,), tlsa_alias=f"ta._dane.{HOSTS}"),
        "the TLSA name is a CNAME",
        27,
        rule="RFC 7671 section 6",
    ),
    _behind(
        "alias-domain",
        Host(name=f"mx.behind.{HOSTS}", tlsa=(TLSA_TA,)),
        "the domain is a CNAME, its target has the MX",
        17,
        rule="RFC 7672 section 2.2.3",
        alias_of=f"behind.{HOSTS}",
    ),
    Destination(
        name="preference",
        shows="first host plain, second with TLSA: the first is taken",
        rule="RFC 7672 section 2.2.1",
        hosts=(
            Host(name=mx("preference", "mx1"), preference=10),
            Host(name=mx("preference", "mx2"), preference=20, tlsa=(TLSA_EE,)),
        ),
        endings=(sent("", Session.TRUSTED, "may", relay=mx("preference", "mx1")),),
        reach=Reach.DELIVERED,
        proves=(1, 16),
    ),
    _first_host_out(
        "tlsa-skip",
        Host(name=mx("tlsa-skip", "mx1"), tlsa=(TLSA_EE,), tlsa_fault=Fault.SERVFAIL),
        "first host's TLSA look-up fails, the second's does not",
        "RFC 7672 section 2.1.2",
        6,
        13,
    ),
    _first_host_out(
        "host-bogus",
        Host(name=f"mx1.{BOGUS_HOSTS}", tlsa=(TLSA_EE,)),
        "first host's address is bogus, the second's is not",
        "RFC 7672 section 2.1.1",
        3,
        5,
    ),
)
