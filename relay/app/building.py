"""The object graph while it is made, in the order of a message's way: log, queue, DNS, delivery, worker, front end, desk."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack, suppress
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from relay import __version__
from relay.app import noticing, sharing
from relay.app.ending import Ending
from relay.app.options import delivery_options, log_words, pool_limits, report_options, retry_schedule, worker_options
from relay.app.posts import Post, serials
from relay.app.receiving import front_end
from relay.app.resolving import CannotResolve, open_resolving
from relay.app.rules import Rules
from relay.config.config import Config
from relay.control import lock
from relay.control import server as control
from relay.delivery.attempt import Deliverer
from relay.delivery.audit import Auditor
from relay.delivery.delivery import Policies
from relay.delivery.gather import Gatherer
from relay.delivery.pool import Pool
from relay.delivery.ratchet import RatchetWatch
from relay.delivery.session import SessionOpener
from relay.delivery.tokens import Tokens
from relay.delivery.watch import Watches
from relay.desk import http
from relay.dns.probe import ValidationProbe
from relay.dns.resolver import Resolver
from relay.lanes import Lanes
from relay.ledger.file import FILE_NAME, LedgerUnavailable
from relay.ledger.ledger import Ledger
from relay.log.events import Event, Observer, Program, Warned
from relay.log.metrics import Metrics
from relay.log.sink import STANDARD_OUTPUT, Sink, compose
from relay.mail.envelope import Address, QueueId, Sender, new_queue_id
from relay.outcome.wording import one_line
from relay.policy.policy import TlsPolicy
from relay.policy.ratchet import Mark, Ratchet
from relay.queue.administration import Administration
from relay.queue.health import Glance, floor_of, look_at
from relay.queue.postmaster import Postmaster
from relay.queue.settle import Settler
from relay.queue.spool import make_durably
from relay.queue.sqlite import SqliteStore
from relay.queue.store import StoreUnavailable
from relay.smtpd.naming import NameOf, name_without_dns
from relay.smtpd.reverse import ReverseNames
from relay.smtpd.server import SmtpServer
from relay.smtpd.transcript import Transcripts
from relay.tls.peer import Anchors, ChainResult
from relay.worker.worker import Worker

AUDIT_DRAIN_SECONDS = 2.0
# Log lines are written together with those of so many seconds: a write each costs a fifth of a message's processor time.
LOG_LAG = 0.005
# How old the news of the room on the queue's disk may be.
LOOK_SECONDS = 0.05

WriteLine = Callable[[str], None]
# Of the task that makes an attempt, and of those that it starts: a reload does not change what they go by.
_BEGAN_WITH: ContextVar[Rules] = ContextVar("the rules that an attempt began with")


class CannotStart(Exception):  # noqa: N818 - it names the state, not the handling
    """The relay cannot start; the message says what stands in the way and what to do."""


def now() -> datetime:
    """The time, aware, UTC."""
    return datetime.now(UTC)


class Building:
    """The object graph while it is made; its parts need each other in circles that only a running relay has."""

    def __init__(self, config: Config, stack: AsyncExitStack, post: Post | None = None) -> None:
        self.config = config
        self.post = post
        self.stack = stack
        self.ending = Ending(patience=config.relay.drain_time, monotonic=time.monotonic)
        self.metrics = Metrics(__version__)
        self.observe: Observer
        self.sink: Sink | None = None
        self.rules: Rules
        self.store: SqliteStore
        self.resolver: Resolver
        self.probe: ValidationProbe
        self.settler: Settler
        self.ledger: Ledger
        self.postmaster: Postmaster | None = None
        self.worker: Worker
        self.servers: SmtpServer
        self.lanes = Lanes()
        self.pages: http.Pages
        self._serials = serials(post)

    def new_id(self) -> QueueId:
        """A queue ID that was never given out before: time, and a number that this process counts up."""
        return new_queue_id(time.time_ns() // 1000, next(self._serials))

    def destination_of(self, address: Address, sender: Sender) -> str:
        """The scheduling key of mail from a sender to an address, under the routes in force."""
        return self.rules.router.destination(address, sender)

    def policies(self) -> Policies:
        """The policies in force, for an attempt that begins in this task: all its rules are these from now on.

        With them goes what the ratchet holds.
        """
        _BEGAN_WITH.set(self.rules)
        policies = self.rules.policies
        return policies if policies.ratchet is Ratchet.OFF else replace(policies, best=self.ledger.best)

    def saw(self, destination: str, mark: Mark, host: str) -> None:
        """Mail went over a session that is worth so much; remembered where the ratchet is on."""
        if self.rules.policies.ratchet is not Ratchet.OFF:
            self.ledger.saw(destination, mark, host)

    def context_for(self, policy: TlsPolicy) -> ssl.SSLContext:
        """The TLS context for a policy, under the rules that the attempt began with."""
        return _BEGAN_WITH.get(self.rules).context_for(policy)

    def check_chain(self, presented: tuple[bytes, ...], anchors: Anchors, at: datetime) -> ChainResult:
        """Whether a chain leads to an anchor, under the rules that the attempt began with."""
        return _BEGAN_WITH.get(self.rules).check_chain(presented, anchors, at)

    def open_log(self, write_line: WriteLine | None) -> None:
        """Words and their destination, and the counters."""
        log, words = self.config.log, log_words(self.config)
        if write_line is not None:
            tell = write_line

            def observe(event: Event) -> None:
                for line in words.lines(event, now()):
                    tell(line)

            self.observe = compose(observe, self.metrics.observe, self._heard)
            return
        to = Path(log.file) if log.file else STANDARD_OUTPUT
        lag = partial(asyncio.get_running_loop().call_later, LOG_LAG)
        self.sink = Sink(words, to, clock=now, later=lag, shared=self.post is not None)
        self.stack.callback(self.sink.close)
        self.observe = compose(self.sink.observe, self.metrics.observe, self._heard)

    def _heard(self, event: Event) -> None:
        if self.postmaster is not None:
            self.postmaster.observe(event)

    def reopen_log(self) -> None:
        """Open the log's file anew: somebody may have moved the old one away."""
        if self.sink is not None:
            self.sink.reopen()

    async def open_queue(self) -> lock.StateLock:
        """The state directory, ours alone, and the queue in it."""
        state_dir = self.config.relay.state_dir
        try:
            make_durably(state_dir)
        except OSError as error:
            raise CannotStart(f"relay.state_dir {state_dir}: cannot make it: {error.strerror}") from None
        # A worker has inherited the lock of the relay, and holds that of its own directory.
        held = self.stack.enter_context(lock.hold(state_dir if self.post is None else self.post.office))
        await self.open_store()
        return held

    async def open_store(self) -> None:
        """The queue, in a state directory that is ours."""
        floor = floor_of(self.config.smtpd.message_size_limit, self.config.queue.minfree)
        self.store = await SqliteStore.open(
            self.config.queue_file,
            clock=now,
            observe=self.observe,
            floor=floor,
            look=Glance(look_at, enough=2 * floor, seconds=LOOK_SECONDS, monotonic=time.monotonic),
        )
        self.stack.push_async_callback(self.store.close)

    async def open_names(self, root_hints: str) -> None:
        """DNS."""
        try:
            resolving = await self.stack.enter_async_context(
                open_resolving(self.config, self.observe, root_hints=root_hints)
            )
        except CannotResolve as error:
            raise CannotStart(str(error)) from None
        self.resolver, self.probe = resolving.resolver, resolving.probe

    async def open_ledger(self) -> None:
        """What is remembered of destinations; without it nothing is audited, and mail goes all the same."""
        path = self.config.relay.state_dir / FILE_NAME
        try:
            self.ledger = await Ledger.open(path, clock=now, warn=self.observe)
        except LedgerUnavailable as error:
            if self.config.smtp.tls_ratchet != "off":
                raise CannotStart(f"what the ratchet holds cannot be read: {error}") from None
            self.observe(Warned(Program.MASTER, f"findings of audits are kept in memory only: {error}"))
            self.ledger = await Ledger.open(":memory:", clock=now, warn=self.observe)
        self.stack.push_async_callback(self.ledger.close)
        self.observe = compose(self.observe, self.ledger.observe)

    def open_delivery(self) -> None:
        """Sessions, attempts, settling, the worker."""
        options = delivery_options(self.config)
        auditor = Auditor(
            gatherer=Gatherer(self.resolver, shuffle=random.shuffle, reach=options.reach),
            validation=self.probe.current,
            check_chain=self.check_chain,
            clock=now,
            observe=self.observe,
        )
        self.stack.push_async_callback(auditor.finish, AUDIT_DRAIN_SECONDS)
        pool = Pool(pool_limits(self.config), clock=now)
        self.stack.push_async_callback(pool.close)
        deliverer = Deliverer(
            gatherer=Gatherer(self.resolver, shuffle=random.shuffle, reach=options.reach),
            opener=SessionOpener(
                options,
                context_for=self.context_for,
                check_chain=self.check_chain,
                clock=now,
                observe=self.observe,
                tokens=Tokens(clock=now),
            ),
            validation=self.probe.current,
            options=options,
            clock=now,
            monotonic=time.monotonic,
            observe=self.observe,
            watch=Watches((auditor, RatchetWatch(saw=self.saw, observe=self.observe))),
            pool=pool,
        )
        self.settler = self.new_settler(self.reports_queued)
        self.worker = Worker(
            store=self.store,
            deliverer=deliverer,
            settler=self.settler,
            policies=self.policies,
            router=lambda: self.rules.router,
            options=worker_options(self.config),
            clock=now,
            monotonic=time.monotonic,
            observe=self.observe,
            lanes=self.lanes,
            places=sharing.places(self.post, worker_options(self.config).limits.highest, self.stack, self.metrics),
        )

        self.postmaster = noticing.postmaster(
            self.config,
            self.store,
            destination_of=self.destination_of,
            clock=now,
            new_id=self.new_id,
            observe=self.observe,
            queued=self.reports_queued,
        )
        if self.postmaster is not None:
            self.stack.push_async_callback(self.postmaster.finish)

    def reports_queued(self, destinations: Collection[str]) -> None:
        """Reports are in the queue for these destinations."""
        self.worker.expect(destinations)

    def new_settler(self, queued: Callable[[Collection[str]], None]) -> Settler:
        """The one who writes outcomes.

        :param queued: told of the destinations of reports.
        """
        return Settler(
            store=self.store,
            schedule=retry_schedule(self.config),
            hostname=self.config.relay.myhostname,
            clock=now,
            new_id=self.new_id,
            destination_of=self.destination_of,
            observe=self.observe,
            reporting=report_options(self.config),
            queued=queued,
        )

    def administration(self, wake: Callable[[], None]) -> Administration:
        """What queue commands need.

        :param wake: tells whoever delivers that something became due.
        """
        return Administration(
            store=self.store,
            acts=self.store.acts,
            settler=self.settler,
            destination_of=self.destination_of,
            clock=now,
            observe=self.observe,
            wake=wake,
            backup=self.store.backup,
        )

    def client_names(self) -> NameOf:
        """What clients are called."""
        if not self.config.smtpd.peername_lookup:
            return name_without_dns
        return ReverseNames(self.resolver, monotonic=time.monotonic, warn=self.observe).name_of

    async def open_front_end(self) -> None:
        """The listening sockets."""
        self.servers = front_end(
            self.config,
            self.store,
            destination_of=self.destination_of,
            clock=now,
            new_id=self.new_id,
            observe=self.observe,
            accepted=self.worker.expect,
            taker=self.worker,
            transcripts=Transcripts.of(self.postmaster),
            users=lambda: self.rules.users,
            owners=lambda: self.rules.owners,
            name_of=self.client_names(),
            certificates=lambda: self.rules.certificates,
            tls=lambda: self.rules.front_tls,
            lanes=self.lanes,
            inherited=None if self.post is None else self.post.sockets(),
            elsewhere=sharing.clients(self.post, self.stack),
        )
        if self.post is not None:
            await sharing.take_hold_rules(self.post, self.store.acts)
        await self.servers.start()
        self.stack.push_async_callback(self.ending.drain, self.servers, self.worker, self.observe)

    async def open_desk(self) -> tuple[tuple[str, int], ...]:
        """The HTTP pages."""
        facts = http.Facts(
            version=__version__,
            store=self.store,
            acts=self.store.acts,
            metrics=self.metrics,
            unready=self.unready,
            clock=now,
        )
        self.pages = http.Pages(facts)
        listen = self.config.http.listen
        return await self.stack.enter_async_context(http.serve(listen, self.pages)) if listen else ()

    async def open_control(self, held: lock.StateLock, reload: Callable[[], Awaitable[control.Reloaded]]) -> None:
        """The control socket."""
        started = now().isoformat(timespec="seconds")
        handlers = control.Handlers(
            administration=self.administration(self.worker.wake),
            reload=reload,
            stop=self.ending.stop,
            ledger=self.ledger.ask,
            status=lambda: {"version": __version__, "started": started, "validating": self.probe.last.validating},
            metrics=self.pages.exposition,
            reasons=self.pages.reasons,
            alive=self.alive,
        )
        await self.stack.enter_async_context(control.serve(held, handlers))

    def unready(self) -> tuple[str, ...]:
        """Why mail cannot be taken and delivered as asked for; empty when it can."""
        reasons = ["the SMTP listener is down"] if self.config.smtpd.listen and not self.servers.addresses else []
        if (refusal := self.store.refusal) is not None:
            reasons.append(f"no mail is taken into the queue: {refusal}")
        if self.rules.policies.defaults.level.asks_for_dane and not self.probe.last.validating:
            reasons.append(f"resolver does not validate: {self.probe.last.why}")
        return (*reasons, *(("stopping",) if self.ending.stopping.is_set() else ()))

    async def alive(self) -> None:
        """Return if the queue's threads answer, be it that they cannot do anything now: that they recover from."""
        with suppress(StoreUnavailable):
            await self.store.entries(limit=1)
            await self.store.extend((), now())

    def status(self) -> str:
        """One line on what is going on, for the service manager."""
        troubles = "; ".join(self.unready())
        line = f"{self.servers.sessions} sessions, {self.worker.under_way} deliveries" + (troubles and f"; {troubles}")
        return one_line(line)

    async def take(self, rules: Rules) -> None:
        """Put new rules in force, for attempts that begin from now on."""
        # A certificate that is named no more leaves the last one in use: whether TLS is offered takes a new start.
        self.rules = replace(rules, front_tls=rules.front_tls or self.rules.front_tls)
        self.worker.wake()  # what failed under the old rules may not fail under these
        self.warn_of(await asyncio.to_thread(rules.endings, now()))

    def warn_of(self, problems: tuple[str, ...]) -> None:
        """Log what is wrong, or soon will be, with the rules in force."""
        for problem in problems:
            self.observe(Warned(Program.MASTER, problem))
