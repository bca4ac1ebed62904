"""Which next-hops a recipient's mail goes to, or what becomes of it where it goes to none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import assert_never

from relay.mail.envelope import Address, Recipient, Sender
from relay.mail.names import NextHop
from relay.mail.reply import EnhancedStatus, Reply
from relay.outcome.result import Bounced, Deferred, Local, RecipientResult, Sent
from relay.outcome.wording import explain, one_line
from relay.routing.relayhosts import NO_RELAYHOSTS, AsOthers, NoRelayhost, SenderTables
from relay.routing.transport import (
    NO_TRANSPORTS,
    ByDomain,
    Discard,
    Malformed,
    NoTransport,
    Refuse,
    TransportTables,
    Unchanged,
    Via,
)

_BAD_LINE = EnhancedStatus(4, 3, 5)
_DISCARDED = EnhancedStatus(2, 0, 0)

NextHops = tuple[NextHop, ...]
"""Next-hops in the order in which they are tried; one, unless the administrator listed more."""


@dataclass(frozen=True, slots=True)
class Ends:
    """A route without a next-hop: what becomes of the mail is decided by a line of a transport map.

    :param key: the scheduling key of such mail; no next-hop has one like it, for it has a space.
    """

    key: str
    result: RecipientResult

    def __iter__(self) -> Iterator[NextHop]:
        """The next-hops, of which there are none."""
        return iter(())


Route = NextHops | Ends


class Router:
    """Routes mail by ``transport_maps``, then by its sender, then by ``relayhost``, then by the recipient's domain.

    That is the order of postfix trivial-rewrite(8) (resolve.c).

    :param relay_hosts: next-hops of mail that no map routes, in order; empty to go by the recipient's domain.
    :param port: TCP port of a recipient's domain.
    :param senders: ``sender_dependent_relayhost_maps``.
    :param fallback: next-hops of mail that its own ones did not take, in order; for whoever delivers.
    """

    def __init__(
        self,
        *,
        relay_hosts: NextHops,
        port: int,
        transports: TransportTables = NO_TRANSPORTS,
        senders: SenderTables = NO_RELAYHOSTS,
        fallback: NextHops = (),
    ) -> None:
        self.fallback = fallback
        self._relay_hosts = relay_hosts
        self._port = port
        self._transports = transports
        self._senders = senders

    def route(self, address: Address, sender: Sender) -> Route:
        """Where mail from a sender to an address goes."""
        entry = self._transports.lookup(address)
        if isinstance(entry, NoTransport):
            return self._default(address, sender)
        match entry.action:
            case Via(next_hops):
                return next_hops
            case ByDomain():
                return self._by_domain(address)
            case Unchanged():
                return self._default(address, sender)
            case Refuse(status, text):
                # Without a text Postfix gives the recipient's domain (transport(5): a null next-hop is the domain).
                reason = one_line(f"{text or address.domain}; rule {entry.place}")
                refused = Bounced if status.klass == 5 else Deferred
                return Ends(
                    f"{'error' if status.klass == 5 else 'retry'} {entry.place}",
                    refused(status=status, reason=reason, diagnostic=Local(reason)),
                )
            case Discard(text):
                return Ends(f"discard {entry.place}", _discarded(one_line(text or str(address.domain))))
            case Malformed() as malformed:
                return _waits(malformed, entry.place)
            case _:
                assert_never(entry.action)

    def _default(self, address: Address, sender: Sender) -> Route:
        entry = self._senders.lookup(sender)
        if isinstance(entry, NoRelayhost):
            return self._relay_hosts or self._by_domain(address)
        match entry.action:
            case Via(next_hops):
                return next_hops
            case AsOthers():
                return self._relay_hosts or self._by_domain(address)
            case Malformed() as malformed:
                return _waits(malformed, entry.place)
            case _:
                assert_never(entry.action)

    def _by_domain(self, address: Address) -> NextHops:
        return (NextHop.of_domain(address.domain, self._port),)

    def destination(self, address: Address, sender: Sender) -> str:
        """The key under which the queue keeps mail from a sender to an address together."""
        route = self.route(address, sender)
        return route.key if isinstance(route, Ends) else ", ".join(next_hop.key for next_hop in route)

    def is_configured(self, next_hop: NextHop) -> bool:
        """Whether ``relayhost`` names this next-hop: Postfix takes its absence for a fault of ours, not of the mail."""
        return next_hop in self._relay_hosts

    def group(self, recipients: Iterable[Recipient], sender: Sender) -> dict[Route, tuple[Recipient, ...]]:
        """Recipients of one sender's message by route; those of one route share a transaction."""
        groups: dict[Route, list[Recipient]] = {}
        for recipient in recipients:
            groups.setdefault(self.route(recipient.address, sender), []).append(recipient)
        return {route: tuple(members) for route, members in groups.items()}


def _waits(malformed: Malformed, place: str) -> Ends:
    """Nobody knows where this mail is to go."""
    reason = explain("mail transport unavailable", expected=malformed.expected, found=malformed.found, rule=place)
    return Ends(f"retry {place}", Deferred(status=_BAD_LINE, reason=reason, diagnostic=Local(reason)))


def _discarded(text: str) -> Sent:
    """Mail that nobody will see: no report says that it was relayed, so the request for one counts as passed on."""
    return Sent(status=_DISCARDED, reply=Reply(250, (f"2.0.0 {text}",)), note=text, dsn_passed_on=True)
