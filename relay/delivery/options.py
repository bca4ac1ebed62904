"""How deliveries are made, as the ``[smtp]`` section says; names and defaults are Postfix's."""

from __future__ import annotations

from dataclasses import dataclass, field

from relay.delivery.reach import ANYWHERE, Reach


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds that each stage of a session may take (RFC 5321 section 4.5.3.2; postfix ``smtp_*_timeout``)."""

    connect: float = 30.0
    helo: float = 300.0
    starttls: float = 300.0
    mail: float = 300.0
    rcpt: float = 300.0
    data_init: float = 120.0
    data_xfer: float = 180.0
    data_done: float = 600.0
    quit: float = 5.0
    rset: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryOptions:
    """What a delivery needs to know beside the message.

    :param mx_address_limit: addresses tried in one attempt; 0 for no limit.
    :param mx_session_limit: sessions in one attempt that could carry mail; 0 for no limit.
    :param reach: which addresses count, in which order, and which are ourselves.
    :param line_length_limit: octets of a line without its end; longer ones are broken. 0 for no limit.
    :param discard_ehlo_keywords: extensions, in capitals, that are not used although they are offered.
    :param soft_bounce: whether what would bounce is tried at the next host and then deferred.
    :param wrapped_ports: ports at which hosts speak TLS from the first octet; None for all ports.
    :param sasl_mechanism_filter: which of the offered mechanisms may be used; empty for all.
    :param sasl_auth_soft_bounce: whether a login that a host refuses for good defers mail instead of bouncing it.
    :param minimal_backoff_time: seconds that a message must have waited before a failed handshake at ``may`` is repeated
        in the clear.
    """

    helo_name: str
    mx_address_limit: int = 5
    mx_session_limit: int = 2
    reach: Reach = ANYWHERE
    bind_address: str = ""
    bind_address6: str = ""
    minimal_backoff_time: float = 300.0
    note_starttls_offer: bool = False
    discard_ehlo_keywords: frozenset[str] = frozenset()
    line_length_limit: int = 998
    soft_bounce: bool = False
    wrapped_ports: frozenset[int] | None = frozenset({465})
    sasl_mechanism_filter: tuple[str, ...] = ()
    sasl_auth_soft_bounce: bool = True
    timeouts: Timeouts = field(default_factory=Timeouts)

    def wraps(self, port: int) -> bool:
        """Whether hosts speak TLS from the first octet at a port (RFC 8314; postfix ``smtp_tls_wrappermode``)."""
        return self.wrapped_ports is None or port in self.wrapped_ports
