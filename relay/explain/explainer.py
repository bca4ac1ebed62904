"""A delivery that is walked through with everything noted and nothing sent.

It is ``relay.delivery.attempt.Deliverer`` itself that walks, with its own look-ups, limits, decisions and verdicts; what is
told is what it passed. No session gets as far as MAIL: the opener hands none out.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email import message_from_bytes
from email.message import Message as Parsed
from typing import assert_never

from relay.delivery.delivery import Delivery, Policies
from relay.delivery.options import DeliveryOptions
from relay.delivery.route import Router
from relay.dns.probe import Validation
from relay.dns.resolver import Resolver
from relay.explain.story import Story, WouldEnd, WouldFail
from relay.explain.trail import Trail
from relay.explain.walk import WatchedDeliverer, WatchedGatherer, WatchedOpener, texts
from relay.log.events import Event, Settled
from relay.log.postfix import PostfixLines
from relay.mail.envelope import Address, Client, Envelope, Message, QueueId, Recipient, RecipientId
from relay.mail.names import BadName, Domain, IpLiteral
from relay.outcome.dsn import Audience, HeadersOnly, Kind, Occasion, Reported, compose
from relay.outcome.result import Bounced, Deferred, Outcome, Sent
from relay.policy.policy import TlsPolicy
from relay.tls.peer import CheckChain

_NO_QUEUE = QueueId("NOQUEUE")
_REPORTED = ("Action", "Status", "Remote-MTA", "Diagnostic-Code")


def parse_destination(text: str) -> Address:
    """Read what is asked about: a domain, an address literal in brackets, or a whole mail address.

    :returns: an address there, of the postmaster where none was named.
    :raises BadName: if it is none of these.
    """
    local, at, domain = text.rpartition("@")
    if at and not local:
        raise BadName(f"not a mail address: {text[:80]!r}: nothing before the @")
    where = IpLiteral.parse(domain[1:-1]) if domain[:1] == "[" and domain[-1:] == "]" else Domain.parse(domain)
    return Address(f"{local or 'postmaster'}@{where}", where)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The administrator's rules, as a delivery has them.

    :param hostname: our name, for the report.
    :param tls_feature_status: whether status lines carry ``tls=``.
    """

    policies: Policies
    router: Router
    options: DeliveryOptions
    context_for: Callable[[TlsPolicy], ssl.SSLContext]
    check_chain: CheckChain
    hostname: Domain
    tls_feature_status: bool = True


class Explainer:
    """Tells the stories of destinations.

    :param validation: gives a fresh opinion on whether the resolver validates.
    :param clock: the time, aware.
    :param monotonic: seconds that only ever grow.
    """

    def __init__(
        self,
        *,
        rules: Rules,
        resolver: Resolver,
        validation: Callable[[], Awaitable[Validation]],
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._rules = rules
        self._resolver = resolver
        self._validation = validation
        self._clock = clock
        self._monotonic = monotonic
        self._lines = PostfixLines(hostname=str(rules.hostname), pid=0, tls_feature_status=rules.tls_feature_status)

    async def explain(
        self, address: Address, *, live: bool, sender: Address | None = None, everywhere: bool = False
    ) -> Story:
        """Walk through a delivery to an address as it would go now.

        :param live: open sessions, up to the verdict; else the walk ends where it would connect.
        :param sender: who the message is from, where routes or credentials go by that; our postmaster if nobody is named.
        :param everywhere: open a session with every address of every host, also after one that would take the mail.
        """
        trail = Trail()
        delivery = self._delivery(
            address, sender or Address(f"postmaster@{self._rules.hostname}", self._rules.hostname)
        )
        walk = self._walk(trail, delivery, live=live, everywhere=everywhere)
        policies = self._rules.policies.at(self._clock())
        result = await walk.attempt(delivery, policies)
        router = self._rules.router
        route = [(hop, policies.lookup(hop), router.is_configured(hop)) for hop in delivery.route]
        fallback = [(hop, policies.lookup(hop), False) for hop in (delivery.fallback if route else ())]
        outcome = result.outcomes[delivery.recipients[0].id]
        return Story(
            recipient=address,
            live=live,
            validation=trail.validation,
            hops=trail.hops(route, fallback, policies.defaults, self._rules.options),
            ending=trail.taken or self._ending(delivery, outcome, trail),
        )

    def _walk(self, trail: Trail, delivery: Delivery, *, live: bool, everywhere: bool) -> WatchedDeliverer:
        async def validation() -> Validation:
            opinion = await self._validation()
            trail.asked_validation(opinion)
            return opinion

        def ignore(event: Event) -> None:
            del event

        rules = self._rules
        opener = WatchedOpener(
            rules.options,
            context_for=rules.context_for,
            check_chain=rules.check_chain,
            clock=self._clock,
            lines=self._lines,
            trail=trail,
            live=live,
        )
        opener.everywhere = everywhere
        walk = WatchedDeliverer(
            gatherer=WatchedGatherer(self._resolver, rules.options, trail),
            opener=opener,
            validation=validation,
            options=rules.options,
            clock=self._clock,
            monotonic=self._monotonic,
            observe=ignore,
        )
        walk.trail = trail
        waited = timedelta(seconds=rules.options.minimal_backoff_time)
        later = replace(delivery, leased_at=delivery.leased_at + waited)
        opener.in_clear_later = lambda policy: walk.may_go_in_clear(policy, later)
        return walk

    def _delivery(self, address: Address, sender: Address) -> Delivery:
        """What a message from the sender to the address would be, were there one."""
        now = self._clock()
        recipient = Recipient(id=RecipientId(1), address=address)
        message = Message(
            queue_id=_NO_QUEUE,
            envelope=Envelope(
                sender=sender,
                recipients=(recipient,),
                client=Client(address=IpLiteral.parse("127.0.0.1").address),
            ),
            size=0,
            arrived_at=now,
        )
        route = self._rules.router.route(address, sender)
        return Delivery(
            message=message,
            route=route,
            recipients=(recipient,),
            leased_at=now,
            configured=all(map(self._rules.router.is_configured, route)),
            fallback=self._rules.router.fallback,
            body=_no_body,
        )

    def _ending(self, delivery: Delivery, outcome: Outcome, trail: Trail) -> WouldFail | WouldEnd:
        (recipient,) = delivery.recipients
        event = Settled(queue_id=_NO_QUEUE, recipient=recipient.address, outcome=outcome)
        log = "".join(texts(self._lines, event, self._clock()))
        match outcome.result:
            case Sent():
                return WouldEnd(outcome=outcome, log=log)
            case Deferred() as result:
                return WouldFail(
                    outcome=outcome,
                    log=log,
                    report=self._report(delivery, result),
                    lookups_only=trail.lookups_only(),
                )
            case Bounced() as result:
                return WouldFail(outcome=outcome, log=log, report=self._report(delivery, result), lookups_only=False)
            case _:
                assert_never(outcome.result)

    def _report(self, delivery: Delivery, result: Deferred | Bounced) -> tuple[tuple[str, str], ...]:
        """What the report to the sender would say of the recipient, read from the report itself."""
        (recipient,) = delivery.recipients
        sender = delivery.message.envelope.sender
        if not isinstance(sender, Address):
            raise AssertionError("the sender was made with an address")
        written = compose(
            Occasion(
                kind=Kind.NON_DELIVERY,
                audience=Audience.SENDER,
                reader=sender,
                report=_NO_QUEUE,
                hostname=str(self._rules.hostname),
                message=delivery.message,
                recipients=(
                    Reported(
                        recipient=recipient,
                        status=result.status,
                        reason=result.reason,
                        diagnostic=result.diagnostic,
                    ),
                ),
                original=HeadersOnly(b""),
                retry_until=self._clock(),
                made_at=self._clock(),
            )
        )
        return tuple(_recipient_fields(message_from_bytes(written.content)))


def _recipient_fields(report: Parsed) -> Iterator[tuple[str, str]]:
    for part in report.walk():
        # The status part parses into one message for the report and one for each recipient.
        for name in _REPORTED if "Final-Recipient" in part else ():
            if name in part:
                yield name, " ".join(str(part[name]).split())


def _no_body() -> AsyncIterator[bytes]:
    raise AssertionError("a session was handed out")
