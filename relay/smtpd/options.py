"""What an administrator sets for the front end; the application maps its configuration onto this."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from relay.mail.names import Domain
from relay.smtpd.access import IpNetwork
from relay.smtpd.content import BareLineEnds

LOOPBACK: Final[tuple[IpNetwork, ...]] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpdOptions:
    """Postfix's ``smtpd_*`` parameters of the same names, with its defaults where it has them.

    :param hostname: ``myhostname``: the banner, the Received field, the domain of a bare ``<postmaster>``.
    :param soft_bounce: whether clients are never refused for good: 5xx is said as 4xx.
    :param mynetworks: clients that may relay.
    :param message_size_limit: octets of content; 0 for no limit.
    :param recipient_limit: recipients of one message.
    :param hopcount_limit: Received fields, ours included, that make a message one that goes in a circle.
    :param timeout: seconds that a client has for a command, and for each part of its content.
    :param proxy_networks: proxies that say with the PROXY protocol whose connection it is, and must.
    :param client_connection_count_limit: sessions of one client address at a time; 0 for no limit.
    :param client_connection_rate_limit: sessions of one client in a window of 60 seconds; 0 for no limit.
    :param client_message_rate_limit: messages that it may begin in a window; 0 for no limit.
    :param client_recipient_rate_limit: recipients that it may name in a window; 0 for no limit.
    :param client_auth_rate_limit: AUTH commands that it may give in a window; 0 for no limit.
    :param client_event_limit_exceptions: clients that the five limits above do not concern (Postfix: ``mynetworks``).
    :param connection_limit: sessions of all clients at a time; 0 for no limit.
    :param soft_error_limit: errors after which each further refusal is held back for ``error_sleep_time``.
    :param hard_error_limit: errors, without a message handed over, that end the session.
    :param error_sleep_time: seconds.
    :param junk_command_limit: NOOP, VRFY, RSET and repeated HELO that count as no errors.
    :param content_memory_limit: octets that all contents coming in may have in memory at a time; 0 for no limit.
    :param forbid_bare_newline: what becomes of a message with a bare CR or LF.
    :param forbid_unauth_pipelining: whether a client that speaks out of turn is cut off.
    :param tls_cert_file: our certificate chain, PEM, for STARTTLS; empty means that TLS is not offered.
    :param tls_key_file: its private key, PEM; empty means that it is in ``tls_cert_file``.
    :param tls_ask_ccert: whether clients are asked for a certificate; any is taken, and none is.
    :param tls_required: whether STARTTLS must come before MAIL (``smtpd_tls_security_level = encrypt``).
    """

    hostname: Domain
    soft_bounce: bool = False
    mynetworks: tuple[IpNetwork, ...] = LOOPBACK
    message_size_limit: int = 10_240_000
    recipient_limit: int = 1000
    hopcount_limit: int = 50
    timeout: float = 300.0
    proxy_networks: tuple[IpNetwork, ...] = ()
    client_connection_count_limit: int = 50
    client_connection_rate_limit: int = 0
    client_message_rate_limit: int = 0
    client_recipient_rate_limit: int = 0
    client_auth_rate_limit: int = 0
    client_event_limit_exceptions: tuple[IpNetwork, ...] = ()
    connection_limit: int = 1000
    soft_error_limit: int = 10
    hard_error_limit: int = 20
    error_sleep_time: float = 1.0
    junk_command_limit: int = 100
    content_memory_limit: int = 128 * 1024 * 1024
    forbid_bare_newline: BareLineEnds = BareLineEnds.NORMALIZE
    forbid_unauth_pipelining: bool = True
    tls_cert_file: str = ""
    tls_key_file: str = ""
    tls_ask_ccert: bool = False
    tls_required: bool = False
