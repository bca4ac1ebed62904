"""What ``decide`` must know of one host, gathered and no more than that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from relay.delivery.gather import Destination, Gatherer, HostAddress
from relay.delivery.leg import Leg
from relay.dns.probe import Validation
from relay.mail.names import Domain, IpLiteral
from relay.policy.policy import HostFacts


class FactFinder:
    """Finds out what a decision needs.

    :param validation: gives a fresh opinion on whether the resolver validates.
    """

    def __init__(self, gatherer: Gatherer, validation: Callable[[], Awaitable[Validation]]) -> None:
        self._gatherer = gatherer
        self._validation = validation

    async def of(
        self,
        destination: Destination,
        host: Domain | IpLiteral,
        address: HostAddress,
        leg: Leg,
        opinion: Validation | None,
    ) -> HostFacts:
        """TLSA records are looked up only where they can matter (RFC 7672 section 2.2.2).

        An insecure answer is no reason for less TLS unless the resolver validated before it was asked, and has since.

        :param opinion: what it was before the destination was looked up; None where nothing hangs on that.
        """
        next_hop = destination.next_hop
        facts = HostFacts(
            next_hop=next_hop,
            host=host,
            had_mx=destination.had_mx,
            mx_secure=destination.mx_secure,
            expanded_next_hop=destination.expanded,
        )
        if opinion is not None and isinstance(host, Domain):
            if opinion.validating and leg.needs_tlsa(facts):
                facts = replace(facts, tlsa=await self._gatherer.tlsa(host, next_hop.port, address))
            now = await self._validation()
            if not now.validating or opinion.serial != now.serial:
                why = opinion.why if now.validating else now.why
                facts = replace(facts, validating=False, not_validating_why=why)
        return facts
