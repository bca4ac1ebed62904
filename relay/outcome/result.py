"""What became of each recipient in one delivery attempt. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from relay.mail.envelope import RecipientId
from relay.mail.names import IpAddress
from relay.mail.reply import EnhancedStatus, Reply


@dataclass(frozen=True, slots=True)
class RelayHost:
    """The host that an outcome is about, as ``relay=NAME[ADDRESS]:PORT``.

    :param namaddr: ``NAME[ADDRESS]``, as in most of Postfix's reasons; written once, since every message asks for it.
    """

    name: str
    address: IpAddress
    port: int
    namaddr: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Write the address down."""
        object.__setattr__(self, "namaddr", f"{self.name}[{self.address}]")

    def __str__(self) -> str:
        return f"{self.namaddr}:{self.port}"


@dataclass(frozen=True, slots=True)
class NoHost:
    """No session was had: ``relay=none``."""

    def __str__(self) -> str:
        return "none"


Relay = RelayHost | NoHost


@dataclass(frozen=True, slots=True, kw_only=True)
class FromPeer:
    """A diagnostic in the peer's words: ``Diagnostic-Code: smtp``."""

    reply: Reply
    mta: str


@dataclass(frozen=True, slots=True)
class Local:
    """A diagnostic of our own: ``Diagnostic-Code: X-Relay``."""

    text: str


Diagnostic = FromPeer | Local


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The next host took responsibility; ``reply`` is its final answer.

    :param note: the text of the status line where there was no host to give one (mail that is discarded).
    """

    status: EnhancedStatus
    reply: Reply
    # RFC 3461 section 5.2.2: whether the next host promised to send the reports that the sender asked for.
    dsn_passed_on: bool = False
    note: str = ""

    @property
    def reason(self) -> str:
        """The text in parentheses of the status line."""
        return self.note or self.reply.one_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred:
    """To be tried again; ``reason`` begins with Postfix's text and is one line.

    :param softened: whether it would have bounced but for ``soft_bounce``; the status is of class 4 all the same.
    """

    status: EnhancedStatus
    reason: str
    diagnostic: Diagnostic
    softened: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounced:
    """Never to be tried again."""

    status: EnhancedStatus
    reason: str
    diagnostic: Diagnostic


RecipientResult = Sent | Deferred | Bounced


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """Seconds: before the queue took it up, in the queue, connection set-up, transmission (postfix log_adhoc.c)."""

    before_queue: float
    in_queue: float
    setup: float
    transmission: float

    @property
    def total(self) -> float:
        """Seconds from arrival to this outcome."""
        return self.before_queue + self.in_queue + self.setup + self.transmission


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One recipient's result with everything that its status line says.

    :param tls: Postfix 3.11's ``tls=`` feature, such as ``dane``, ``may:none``, ``!dane`` or ``unknown?``.
    :param reused: how many messages the connection carried before this one.
    """

    recipient: RecipientId
    result: RecipientResult
    relay: Relay
    delays: Delays
    tls: str
    reused: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptResult:
    """All outcomes of one attempt for the recipients of one next-hop.

    :param throttled_by: what the destination itself failed with (connection, TLS, look-up), None if it did its part: that
        a message was refused says nothing about it.
    """

    outcomes: Mapping[RecipientId, Outcome]
    throttled_by: Deferred | None = None
