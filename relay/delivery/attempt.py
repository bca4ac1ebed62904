"""One attempt at one next-hop: hosts in order, a policy for each, a session, the transaction, an outcome per recipient.

The rules of postfix smtp_trouble.c and smtp_connect.c: a soft failure goes on to the next host and is deferred after the
last one; a hard failure bounces at once, but only after the verdict (``relay.delivery.session`` sees to that); what is
reported is the last failure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache, partial
from typing import assert_never

from relay.delivery.delivery import Delivery, Policies
from relay.delivery.facts import FactFinder
from relay.delivery.gather import Destination, Gatherer, HostAddress, LookupTrouble
from relay.delivery.leg import Leg, legs
from relay.delivery.opening import Session
from relay.delivery.options import DeliveryOptions
from relay.delivery.pool import KEEP_NONE, Pool, Terms
from relay.delivery.route import Ends
from relay.delivery.session import SessionOpener
from relay.delivery.tally import Tally, without_host
from relay.delivery.transaction import Stale, send_message
from relay.delivery.trouble import Kind, Trouble
from relay.delivery.watch import Watch, Watches
from relay.dns.probe import Validation
from relay.log.events import Observer, Program, TlsEstablished, Warned
from relay.mail.envelope import RecipientId
from relay.mail.names import Domain, IpLiteral, NextHop
from relay.mail.reply import EnhancedStatus
from relay.outcome.result import (
    AttemptResult,
    Outcome,
    RelayHost,
    Sent,
)
from relay.outcome.wording import explain, one_line
from relay.policy.level import Level
from relay.policy.policy import (
    NO_CREDENTIALS,
    Decision,
    TlsPolicy,
    Withheld,
)
from relay.sasl.credentials import Credentials, NoCredentials
from relay.tls.peer import PeerFacts

_NOBODY = Watches()
# Hosts that are remembered for offering CHUNKING in vain.
MAX_CHUNKLESS = 1_000


class Deliverer:
    """Makes attempts; safe to use from many tasks at once.

    :param validation: gives a fresh opinion on whether the resolver validates.
    :param monotonic: seconds, for the ``delays=`` of outcomes.
    :param watch: looks on at sessions.
    :param pool: keeps sessions for the next message; without it each has its own.
    """

    def __init__(
        self,
        *,
        gatherer: Gatherer,
        opener: SessionOpener,
        validation: Callable[[], Awaitable[Validation]],
        options: DeliveryOptions,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        observe: Observer,
        watch: Watch = _NOBODY,
        pool: Pool | None = None,
    ) -> None:
        self._chunkless: dict[RelayHost, None] = {}
        self.pool = Pool(KEEP_NONE, clock=clock) if pool is None else pool
        self.watch = watch
        self.gatherer = gatherer
        self.opener = opener
        self.validation = validation
        self._facts = FactFinder(gatherer, validation)
        self.options = options
        self.clock = clock
        self.monotonic = monotonic
        self.observe = observe

    async def attempt(
        self, delivery: Delivery, policies: Policies, finished: dict[RecipientId, Outcome] | None = None
    ) -> AttemptResult:
        """Try to deliver; every recipient of the delivery gets an outcome.

        Raises only what the delivery's ``body`` raises.

        :param finished: gets each outcome as soon as it is final: those stand even if the attempt breaks off.
        """
        policies = policies.at(self.clock())
        outcomes = Tally(
            delivery,
            {} if finished is None else finished,
            clock=self.clock,
            monotonic=self.monotonic,
            observe=self.observe,
            soft_bounce=self.options.soft_bounce,
        )
        if isinstance(delivery.route, Ends):
            outcomes.end(delivery.route.result)
        for leg in legs(delivery, policies):
            # Whether what is about to be looked up can be believed; None where nothing will hang on that.
            opinion = await self.validation() if leg.needs_validation else None
            found = await self.gatherer.destination(leg.next_hop)
            match found:
                case LookupTrouble():
                    outcomes.refuse(_lookup_trouble(_doubted(found, leg, opinion), leg))
                    we_are_it = found.loops
                case Destination():
                    await self._try_hosts(found, delivery, leg, outcomes, opinion)
                    # Postfix: a backup MX host hands mail to no host beyond those of the MX set.
                    we_are_it = found.backup
                case _:
                    assert_never(found)
            if not outcomes.pending or we_are_it:
                break
        return outcomes.close()

    async def _try_hosts(
        self,
        destination: Destination,
        delivery: Delivery,
        leg: Leg,
        outcomes: Tally,
        opinion: Validation | None,
    ) -> None:
        """Walk over the hosts' addresses until every recipient has its answer or a limit is reached."""
        addresses = sessions = 0
        warm = partial(self.pool.hosts, destination.next_hop)
        for host in warm_first(destination, warm):
            found = await self.gatherer.addresses(host)
            if isinstance(found, LookupTrouble):
                outcomes.refuse(_host_trouble(_doubted(found, leg, opinion), destination, leg))
                continue
            for address in warm_addresses_first(found, warm):
                if addresses == (self.options.mx_address_limit or -1):
                    return
                if sessions == (self.options.mx_session_limit or -1):
                    return
                addresses += 1
                decision = await self.decide_for(destination, host, address, leg, opinion)
                relay = relay_host(host, address, destination.next_hop.port)
                sessions += await self._try_address(relay, leg, decision, delivery, outcomes)
                if not outcomes.pending:
                    return

    async def decide_for(
        self,
        destination: Destination,
        host: Domain | IpLiteral,
        address: HostAddress,
        leg: Leg,
        opinion: Validation | None,
    ) -> Decision:
        """Gather what the decision needs, and decide."""
        facts = await self._facts.of(destination, host, address, leg, opinion)
        return leg.decide(facts)

    async def _try_address(
        self,
        relay: RelayHost,
        leg: Leg,
        decision: Decision,
        delivery: Delivery,
        outcomes: Tally,
    ) -> bool:
        """Try one address; returns whether a session got as far as a verdict."""
        if isinstance(decision, Withheld):
            outcomes.refuse(self._withheld(decision, leg.next_hop, relay.name))
            return False
        if decision.alarm:
            self.observe(Warned(Program.SMTP, f"{relay.name}: {decision.alarm}", delivery.message.queue_id))
        terms = Terms(relay=relay, next_hop=leg.next_hop, edition=leg.edition, policy=decision, login=leg.login)
        if (used := self.pool.take(terms)) is not None and await self._send(used, terms, leg, delivery, outcomes):
            return True
        # Once more if the host does not know the chunks that it offered to take.
        for _ in range(2):
            opened = await self._open(relay, leg, decision, delivery, outcomes)
            self.watch.had(leg, relay, opened, delivery.message.queue_id)
            match opened:
                case Trouble():
                    outcomes.refuse(opened)
                    return opened.verdict_reached
                case Session():
                    if await self._send(opened, terms, leg, delivery, outcomes):
                        break
                case _:
                    assert_never(opened)
        return True

    async def _open(
        self, relay: RelayHost, leg: Leg, policy: TlsPolicy, delivery: Delivery, outcomes: Tally
    ) -> Session | Trouble:
        """A session of this delivery's own; in the clear after a failed handshake, where that is allowed."""
        self.pool.make_room(leg.next_hop)
        opened = await self.opener.open(relay, policy, delivery.message.queue_id, credentials=leg.login)
        if isinstance(opened, Trouble) and opened.handshake and self.may_go_in_clear(policy, delivery, leg.login):
            outcomes.announce(opened)
            return await self.opener.open(relay, policy, delivery.message.queue_id, plaintext=True)
        return opened

    async def _send(self, session: Session, terms: Terms, leg: Leg, delivery: Delivery, outcomes: Tally) -> bool:
        """Send over a session, then keep or end it; returns False where it was stale, so that a fresh one is to be tried."""
        relay, queue_id, reused = session.relay, delivery.message.queue_id, session.wear.messages
        if reused:
            if isinstance(session.seen, PeerFacts):
                word, peer = session.verdict.word, session.seen
                self.observe(TlsEstablished(queue_id=queue_id, relay=relay, word=word, peer=peer, reused=True))
            self.watch.reused(leg, relay, session, queue_id)
        outcomes.sending_begins()
        answers = await send_message(
            session,
            delivery.message,
            outcomes.pending,
            body=delivery.body,
            options=self.options,
            observe=self.observe,
            chunking=relay not in self._chunkless,
        )
        if session.wear.no_chunks:
            self._chunkless[relay] = None
            if len(self._chunkless) > MAX_CHUNKLESS:
                del self._chunkless[next(iter(self._chunkless))]
        for recipient_id, answer in answers.items():
            match answer:
                case Sent():
                    outcomes.sent(recipient_id, answer, relay, session.tls, reused)
                case Trouble():
                    outcomes.refuse(answer, (recipient_id,))
                case Stale():
                    pass  # it stays without an answer
                case _:
                    assert_never(answer)
        if delivery.held is None:
            self.pool.give(terms, session)
        else:
            # Nothing that the host hears behind its 250 comes before the result is written: then a session that went on
            # proves, to whoever looks for mail that was sent twice, that it was.
            delivery.held.append((terms, session))
        if any(isinstance(answer, Sent) for answer in answers.values()):
            self.watch.carried(leg, relay, session)
        return not any(isinstance(answer, Stale) for answer in answers.values())

    def may_go_in_clear(
        self, policy: TlsPolicy, delivery: Delivery, login: Credentials | NoCredentials = NO_CREDENTIALS
    ) -> bool:
        """Postfix's conditions for a retry in the clear after a failed handshake (smtp.h)."""
        return (
            policy.level is Level.MAY
            and isinstance(login, NoCredentials)
            and not delivery.message.envelope.requiretls
            and delivery.waited >= self.options.minimal_backoff_time
        )

    def _withheld(self, withheld: Withheld, next_hop: NextHop, host: str) -> Trouble:
        if withheld.warning:
            self.observe(Warned(Program.SMTP, withheld.warning))
        self.observe(Warned(Program.SMTP, f"TLS policy lookup for {next_hop}/{host}: {withheld.text}"))
        reason = explain(withheld.text, expected=withheld.expected, found=withheld.found, rule=str(withheld.rule))
        return without_host(withheld.status, reason)


def name_of(host: Domain | IpLiteral) -> str:
    """A host as ``relay=`` names it: Postfix names a literal by its bare address, ``A[A]:port``."""
    return str(host.address) if isinstance(host, IpLiteral) else str(host)


@lru_cache(maxsize=1024)
def relay_host(host: Domain | IpLiteral, address: HostAddress, port: int) -> RelayHost:
    """A host at one of its addresses as outcomes name it."""
    return RelayHost(name_of(host), address.address, port)


def warm_first(destination: Destination, warm: Callable[[], Collection[RelayHost]]) -> Sequence[Domain | IpLiteral]:
    """The hosts in order; among the best ones, whose order means nothing, those come first with which a session waits."""
    hosts = destination.hosts
    if destination.equals == 1:
        return hosts
    names, equals = {relay.name for relay in warm()}, destination.equals
    return (*sorted(hosts[:equals], key=lambda host: name_of(host) not in names), *hosts[equals:])


def warm_addresses_first(
    found: Sequence[HostAddress], warm: Callable[[], Collection[RelayHost]]
) -> Sequence[HostAddress]:
    """The addresses of a host in order, but for those with which a session waits."""
    if len(found) == 1:
        return found
    addresses = {relay.address for relay in warm()}
    return sorted(found, key=lambda one: one.address not in addresses)


def _doubted(found: LookupTrouble, leg: Leg, opinion: Validation | None) -> LookupTrouble:
    """Where DANE was asked for, what a resolver that does not validate denies is not proved: mail waits, nothing bounces."""
    if found.status.klass == 4:
        leg.not_found()
        return found
    if opinion is None or opinion.validating or leg.degrades or not leg.asks_for_dane:
        return found
    leg.not_found()
    text = f"{found.text}: expected a resolver that validates DNSSEC; found {opinion.why}"
    return replace(found, status=found.status.softened(), text=one_line(text))


def _lookup_trouble(found: LookupTrouble, leg: Leg) -> Trouble:
    """A host that cannot be found; one that our own configuration names never bounces mail (smtp_connect.c)."""
    if found.status.klass == 4:
        return without_host(found.status, found.text)
    if leg.configured:
        return without_host(EnhancedStatus(4, 3, 5), f"{leg.configured} configuration problem: {found.text}")
    return without_host(found.status, found.text, Kind.HARD_IF_LAST)


def _host_trouble(found: LookupTrouble, destination: Destination, leg: Leg) -> Trouble:
    """One of a destination's hosts cannot be found; where we are its backup, that is no reason to give up (smtp_addr.c)."""
    if destination.backup and found.status.klass == 5:
        text = one_line(f"unable to find primary relay for {destination.next_hop.host}: {found.text}")
        return without_host(EnhancedStatus(4, 4, 4), text)
    return _lookup_trouble(found, leg)
