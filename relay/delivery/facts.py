"""What ``decide`` must know of one host, gathered and no more than that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from relay.dane.tlsa import TlsaLookup
from relay.delivery.gather import Destination, Gatherer, HostAddress
from relay.delivery.leg import Leg
from relay.delivery.remembered import Remembered
from relay.dns.probe import Validation
from relay.mail.names import Domain, IpLiteral
from relay.policy.policy import HostFacts

_Host = tuple[str, Domain | IpLiteral]
"""Key of a next-hop, and one of its hosts."""


class FactFinder:
    """Finds out what a decision needs; the same object for the same facts, while they are remembered.

    :param validation: gives a fresh opinion on whether the resolver validates.
    """

    def __init__(self, gatherer: Gatherer, validation: Callable[[], Awaitable[Validation]]) -> None:
        self._gatherer = gatherer
        self._validation = validation
        self._bare = Remembered[_Host, tuple[Destination, Domain | IpLiteral], HostFacts]()
        self._whole = Remembered[_Host, tuple[HostFacts, TlsaLookup], HostFacts]()

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
        facts = self._without_records(destination, host)
        if opinion is not None and isinstance(host, Domain):
            if opinion.validating and leg.needs_tlsa(facts):
                facts = self._with(facts, await self._gatherer.tlsa(host, destination.next_hop.port, address))
            now = await self._validation()
            if not now.validating or opinion.serial != now.serial:
                why = opinion.why if now.validating else now.why
                facts = replace(facts, validating=False, not_validating_why=why)
        return facts

    def _without_records(self, destination: Destination, host: Domain | IpLiteral) -> HostFacts:
        key, given = (destination.next_hop.key, host), (destination, host)
        return self._bare.get(key, given) or self._bare.keep(
            key,
            given,
            HostFacts(
                next_hop=destination.next_hop,
                host=host,
                had_mx=destination.had_mx,
                mx_secure=destination.mx_secure,
                expanded_next_hop=destination.expanded,
            ),
        )

    def _with(self, facts: HostFacts, tlsa: TlsaLookup) -> HostFacts:
        key, given = (facts.next_hop.key, facts.host), (facts, tlsa)
        return self._whole.get(key, given) or self._whole.keep(key, given, replace(facts, tlsa=tlsa))
