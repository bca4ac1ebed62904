"""Events as numbers for Prometheus, in a registry of our own.

No label takes a value that a stranger chooses: no domains, hosts or addresses, so that the number of series is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import assert_never

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from relay.log.events import (
    Accepted,
    Activated,
    ClientConnected,
    ClientDisconnected,
    ClientLost,
    ConnectFailed,
    Crashed,
    Downgraded,
    Event,
    Expired,
    HostFailed,
    Noted,
    Notified,
    NotNotified,
    Rejected,
    Removed,
    ResolverProbed,
    SessionAudited,
    Settled,
    StoreState,
    TlsEstablished,
    TlsRefused,
    Warned,
)
from relay.log.postfix import status_word
from relay.outcome.result import Outcome

CONTENT_TYPE = CONTENT_TYPE_LATEST
# From a warm connection on loopback to five days in the queue.
_DELAY_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0, 600.0, 3600.0, 14400.0, 86400.0, 432000.0)
_STAGES = ("before_queue", "in_queue", "setup", "transmission")


class Metrics:
    """Counts events; ``observe`` is an Observer and ``render`` answers a scrape.

    :param version: our own, for ``dane_relay_info``.
    """

    def __init__(self, version: str) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._accept_side()
        self._delivery_side()
        self._state_side(version)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"dane_relay_{name}", meaning, labels, registry=self._registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"dane_relay_{name}", meaning, labels, registry=self._registry)

    def _accept_side(self) -> None:
        self._connections = self._counter("client_connections", "SMTP sessions that clients opened")
        self._open_connections = self._gauge("client_connections_open", "SMTP sessions of clients that are open")
        self._lost = self._counter("client_connections_lost", "SMTP sessions of clients that ended badly")
        self._accepted = self._counter("accepted_messages", "Messages committed to the queue from clients")
        self._accepted_bytes = self._counter("accepted_bytes", "Octets of content of accepted messages")
        self._accepted_recipients = self._counter("accepted_recipients", "Recipients of accepted messages")
        self._rejects = self._counter("rejects", "Commands refused to clients", "where", "code")

    def _delivery_side(self) -> None:
        self._deliveries = self._counter("deliveries", "Recipients settled, by status line", "status")
        self._tls_sessions = self._counter("tls_sessions", "TLS sessions to hosts, by verdict", "word", "protocol")
        self._tls_reused = self._counter(
            "tls_sessions_reused", "Messages that went over a TLS session of one before them"
        )
        self._tls_refused = self._counter("tls_refused", "TLS sessions to hosts over which no mail was sent")
        self._connect_failed = self._counter("connect_failures", "Addresses of hosts that could not be connected to")
        self._host_failed = self._counter("host_failures", "Hosts that failed softly where another one followed")
        self._downgraded = self._counter("downgrades", "Sessions worth less than the best seen at their destination")
        self._audited = self._counter(
            "audited_sessions", "Sessions judged by a level that does not hold", "level", "finding"
        )
        self._activated = self._counter("activated_messages", "Times a message was taken up for delivery")
        self._removed = self._counter("removed_messages", "Messages whose last recipient was settled")
        self._expired = self._counter("expired_messages", "Messages that were too old and went back")
        self._reports = self._counter("reports", "Delivery status reports queued to senders", "kind")
        self._unreported = self._counter("reports_not_sent", "Reports not made: to a null sender, or not asked for")
        self._delay = Histogram(
            "dane_relay_delivery_delay_seconds",
            "From arrival to a recipient's outcome",
            ("status",),
            buckets=_DELAY_BUCKETS,
            registry=self._registry,
        )
        self._stage = Histogram(
            "dane_relay_delivery_stage_seconds",
            "The four parts of delays= of sent mail",
            ("stage",),
            buckets=_DELAY_BUCKETS,
            registry=self._registry,
        )
        for status in ("sent", "deferred", "bounced"):
            self._deliveries.labels(status)
        # Looked up once: a message costs enough as it is.
        self._by_status: dict[str, tuple[Counter, Histogram]] = {}
        self._stages = tuple(self._stage.labels(stage) for stage in _STAGES)

    def _state_side(self, version: str) -> None:
        self._warnings = self._counter("warnings", "Warnings logged", "program")
        self._crashes = self._counter("unexpected_errors", "Exceptions that nobody expected")
        self._probes = self._counter("resolver_probes", "Probes of the resolver", "result")
        self._validating = self._gauge("resolver_validating", "Whether the resolver was last seen validating")
        self._chosen = self._gauge(
            "resolver_chosen", "1 for the resolver that is believed; none does not validate", "kind"
        )
        self._queue_takes = self._gauge(
            "queue_taking_mail", "0 while no mail is taken because the disk is full or not trusted"
        )
        self._queue_takes.set(1)
        self._queue_up = self._gauge("queue_up", "Whether the queue store answered this scrape")
        self._queue_messages = self._gauge("queue_messages", "Messages in the queue")
        self._queue_deliveries = self._gauge("queue_deliveries", "Deliveries in the queue", "state")
        self._queue_age = self._gauge(
            "queue_oldest_seconds", "Age of the oldest message in the queue, 0 if there is none"
        )
        self._tasks = self._gauge("tasks", "Tasks of the event loop that have not ended")
        self._gauge("info", "This relay", "version").labels(version).set(1)

    def observe(self, event: Event) -> None:
        """Count one event."""
        match event:
            case ClientConnected() | ClientDisconnected() | ClientLost() | Rejected() | Accepted():
                self._count_accepting(event)
            case Activated() | Removed() | Expired() | Notified() | NotNotified():
                self._count_queueing(event)
            case (
                TlsEstablished()
                | TlsRefused()
                | ConnectFailed()
                | HostFailed()
                | Settled()
                | SessionAudited()
                | Downgraded()
            ):
                self._count_delivering(event)
            case Warned(program=program):
                self._warnings.labels(program.value).inc()
            case Noted():
                pass
            case ResolverProbed(validating=validating, kind=kind):
                self._probes.labels("validating" if validating else "not_validating").inc()
                self._validating.set(int(validating))
                self._chosen.clear()
                if validating and kind:
                    self._chosen.labels(kind).set(1)
            case StoreState(why=why):
                self._queue_takes.set(int(not why))
            case Crashed():
                self._crashes.inc()
            case _:
                assert_never(event)

    def _count_accepting(self, event: ClientConnected | ClientDisconnected | ClientLost | Rejected | Accepted) -> None:
        match event:
            case ClientConnected():
                self._connections.inc()
                self._open_connections.inc()
            case ClientDisconnected():
                self._open_connections.dec()
            case ClientLost():
                self._lost.inc()
            case Rejected(where=where, reply=reply):
                self._rejects.labels(where, str(reply.code)).inc()
            case Accepted(size=size, recipients=recipients):
                self._accepted.inc()
                self._accepted_bytes.inc(size)
                self._accepted_recipients.inc(recipients)
            case _:
                assert_never(event)

    def _count_queueing(self, event: Activated | Removed | Expired | Notified | NotNotified) -> None:
        match event:
            case Activated():
                self._activated.inc()
            case Removed():
                self._removed.inc()
            case Expired():
                self._expired.inc()
            case Notified(kind=kind):
                self._reports.labels(kind).inc()
            case NotNotified():
                self._unreported.inc()
            case _:
                assert_never(event)

    def _count_delivering(
        self, event: TlsEstablished | TlsRefused | ConnectFailed | HostFailed | Settled | SessionAudited | Downgraded
    ) -> None:
        match event:
            case TlsEstablished(reused=True):
                self._tls_reused.inc()
            case TlsEstablished(word=word, peer=peer):
                self._tls_sessions.labels(word.value, peer.protocol).inc()
            case TlsRefused():
                self._tls_refused.inc()
            case ConnectFailed():
                self._connect_failed.inc()
            case HostFailed():
                self._host_failed.inc()
            case Settled(outcome=outcome):
                self._count_outcome(outcome)
            case SessionAudited(asked=asked, finding=finding):
                self._audited.labels(asked.word, finding.name.lower()).inc()
            case Downgraded():
                self._downgraded.inc()
            case _:
                assert_never(event)

    def _count_outcome(self, outcome: Outcome) -> None:
        status, spans = status_word(outcome.result), outcome.delays
        known = self._by_status.get(status)
        if known is None:
            known = self._by_status[status] = self._deliveries.labels(status), self._delay.labels(status)
        deliveries, delay = known
        deliveries.inc()
        delay.observe(max(0.0, spans.total))
        if status == "sent":
            parts = (spans.before_queue, spans.in_queue, spans.setup, spans.transmission)
            for stage, value in zip(self._stages, parts, strict=True):
                stage.observe(max(0.0, value))

    def queue(self, *, messages: int, deliveries: Mapping[str, int], oldest_age: float) -> None:
        """Set the gauges of the queue, as the store counted it just now; ``deliveries`` by state, age in seconds."""
        self._queue_up.set(1)
        self._queue_messages.set(messages)
        self._queue_age.set(oldest_age)
        for state, number in deliveries.items():
            self._queue_deliveries.labels(state).set(number)

    def queue_silent(self) -> None:
        """The store did not answer: its gauges keep their last values and ``queue_up`` says not to trust them."""
        self._queue_up.set(0)

    def places(self, waits: Callable[[], float], seconds: Callable[[], float]) -> None:
        """Show what it costs to share the limits of destinations with other workers: asked for at each scrape."""
        waiting = self._gauge("destination_place_waits", "Times that a place due to this worker was not free yet")
        waiting.set_function(waits)
        spent = self._gauge("destination_place_lock_seconds", "What asking for places at destinations took altogether")
        spent.set_function(seconds)

    def tasks(self, number: int) -> None:
        """Set the gauge of the tasks that are under way."""
        self._tasks.set(number)

    def render(self) -> bytes:
        """Everything counted, as ``CONTENT_TYPE``."""
        return generate_latest(self._registry)
