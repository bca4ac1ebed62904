"""Destinations whose look-ups fail or end at once (RFC 7672 section 2.1, RFC 7505)."""

from __future__ import annotations

from relay.lab.destination import Destination, MxSet
from relay.lab.nameserver import Fault, Trust
from relay.lab.record import Reach
from relay.lab.scenarios.build import TLSA_EE, bounced, deferred, host, mx, one_host

_NOT_FOUND = "Host or domain name not found. Name service error for name={}.lab.test type=MX: Host not found"


def _tlsa_failure(name: str, fault: Fault, shows: str) -> Destination:
    reason = f"TLSA lookup error for {mx(name)}:"
    return one_host(
        host(name, TLSA_EE, fault=fault),
        shows,
        "RFC 7672 section 2.1.2",
        deferred(name, "4.7.5", reason, "unknown?", relay="none"),
        proves=(2, 3, 6, 13),
    )


LOOKUPS = (
    Destination(
        name="bogus",
        shows="the zone fails validation",
        rule="RFC 7672 section 2.1.1",
        hosts=(host("bogus", TLSA_EE),),
        trust=Trust.BOGUS,
        endings=(deferred("", "4.4.3", _NOT_FOUND.format("bogus"), "unknown?", relay="none"),),
        reach=Reach.NOTHING,
        proves=(3, 4),
    ),
    _tlsa_failure("tlsa-servfail", Fault.SERVFAIL, "TLSA look-up: SERVFAIL"),
    _tlsa_failure("tlsa-silence", Fault.SILENCE, "TLSA look-up: no answer"),
    _tlsa_failure("tlsa-garbage", Fault.GARBAGE, "TLSA look-up: an answer that is none"),
    Destination(
        name="null-mx",
        shows="null MX",
        rule="RFC 7505 section 3",
        hosts=(),
        mx=MxSet.NULL,
        endings=(
            bounced("", "5.1.0", "Domain null-mx.lab.test does not accept mail (nullMX)", "unknown?", relay="none"),
        ),
        reach=Reach.NOTHING,
    ),
    Destination(
        name="no-domain",
        shows="the domain does not exist",
        rule="RFC 5321 section 5.1",
        hosts=(),
        mx=MxSet.NO_DOMAIN,
        endings=(bounced("", "5.4.4", "Name service error for name=no-domain.lab.test", "unknown?", relay="none"),),
        reach=Reach.NOTHING,
    ),
)
