"""The smaller sections: ``[relay]``, ``[dns]``, ``[queue]``, ``[mta_sts]``, ``[tlsrpt]``, ``[log]``, ``[http]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from relay.config.kinds import OPTIONAL_PATH, PATH, SIZE, SWITCH, TEXT, choice, duration, integer, notation
from relay.config.netkinds import ADDRESSES, HOST_NAME, LISTEN, NAME_SERVERS, Endpoint
from relay.config.section import Section, later, option
from relay.mail.names import IpAddress

SQLITE = "sqlite:"
_BACKOFF = duration(0.001)


def _queue_url(text: str) -> str:
    if (text.startswith(SQLITE) and len(text) > len(SQLITE)) or text.startswith(("postgresql://", "postgres://")):
        return text
    raise ValueError('it must begin with "sqlite:" and name a file')


def _syslog_name(text: str) -> str:
    if not text or any(character in " []:" for character in text):
        raise ValueError("it must not be empty or have blanks, colons or brackets")
    return text


class RelaySection(Section):
    """The relay as a whole."""

    myhostname: Annotated[str, HOST_NAME] = option(
        "", 'Our host name in greetings, header fields and reports; "" for the system\'s fully qualified name.'
    )
    state_dir: Annotated[Path, PATH] = option(
        Path("/var/lib/dane-relay"), "Directory of the queue, the lock and the control socket; ours alone."
    )
    drain_time: Annotated[float, duration()] = option(
        30.0, "How long sessions and deliveries may go on after SIGTERM; a second SIGTERM ends them at once."
    )
    workers: Annotated[int, integer(1, 256)] = option(
        1,
        "Processes that work side by side, each with a queue of its own below state_dir; limits of destinations are "
        "those of all together (docs/workers.md).",
    )


class DnsSection(Section):
    """Where DNS answers come from, and when their DNSSEC status is believed."""

    mode: Annotated[Literal["auto", "validate", "trust-ad"], choice("auto", "validate", "trust-ad")] = option(
        "auto",
        "How DNSSEC is validated: validate does it in this process with libunbound; trust-ad believes the AD bit of trusted "
        "resolvers; auto takes the first that is seen to validate: libunbound through nameservers, libunbound from the DNS "
        "root down, trust-ad.",
    )
    nameservers: Annotated[tuple[Endpoint, ...], NAME_SERVERS] = option(
        (), "Resolvers as address or address:port, tried in order; empty for those of /etc/resolv.conf."
    )
    trusted_nameservers: Annotated[tuple[IpAddress, ...], ADDRESSES] = option(
        (), "Addresses beside loopback whose AD bit is believed; the path to them must be safe."
    )
    trust_anchor_file: Annotated[str, OPTIONAL_PATH] = option(
        "",
        "File with the DS or DNSKEY records to trust; only read. Without it those of the DNS root are kept up to date in "
        "relay.state_dir (RFC 5011).",
    )
    probe_bogus_name: Annotated[str, HOST_NAME] = option(
        "",
        "Name whose signatures are wrong on purpose: a resolver that answers for its A record does not validate; "
        '"" for no such test.',
    )
    timeout: Annotated[float, _BACKOFF] = option(5.0, "Longest wait for the answer to a question, repeats included.")
    on_no_validation: Annotated[Literal["defer", "degrade"], choice("defer", "degrade")] = option(
        "defer",
        "What the global level dane does while no resolver validates: defer mail, or degrade to may with an alarm.",
    )


class QueueSection(Section):
    """Where messages wait, and how long."""

    url: Annotated[str, notation(_queue_url, 'a queue such as "sqlite:queue.sqlite"')] = option(
        "sqlite:queue.sqlite", "The queue's store; a relative SQLite file is in relay.state_dir."
    )
    minfree: Annotated[int, SIZE] = option(
        0,
        "Octets that stay free on the queue's disk: with less, mail is answered 452 4.3.1. Never less than 1.5 times "
        "smtpd.message_size_limit; 32 MiB for the database's log come on top.",
    )
    minimal_backoff_time: Annotated[float, _BACKOFF] = option(300.0, "Shortest wait between two attempts.")
    maximal_backoff_time: Annotated[float, _BACKOFF] = option(4000.0, "Longest wait between two attempts.")
    transport_retry_time: Annotated[float, _BACKOFF] = option(
        60.0, "How long a destination is left alone after errors that may be ours."
    )
    maximal_queue_lifetime: Annotated[float, duration()] = option(
        432_000.0, "Age at which an undeliverable message is returned; 0 for one attempt only."
    )
    bounce_queue_lifetime: Annotated[float, duration()] = option(
        432_000.0, "Age at which an undeliverable report is dropped; 0 for one attempt only."
    )
    soft_bounce: Annotated[bool, SWITCH] = option(
        False,
        "Whether nothing bounces and no client is refused for good: 5xx counts and is said as 4xx. For trying out a "
        "configuration; mail that grows too old is returned all the same.",
    )
    delay_warning_time: Annotated[float, duration()] = option(
        0.0, "Age at which the sender is told of a delay, once and if NOTIFY allows it; 0 for never."
    )


class MtaStsSection(Section):
    """MTA-STS (RFC 8461)."""

    enabled: Annotated[bool, SWITCH] = later(False, "Whether MTA-STS policies of destinations are fetched and obeyed.")


class TlsrptSection(Section):
    """SMTP TLS reporting (RFC 8460)."""

    enabled: Annotated[bool, SWITCH] = later(False, "Whether TLS reports are sent to destinations that ask for them.")
    organization: Annotated[str, TEXT] = later("", "Our organisation's name in reports.")
    contact: Annotated[str, TEXT] = later("", "Mail address of the person to ask about reports.")
    sender: Annotated[str, TEXT] = later("", "Mail address that reports come from.")


class LogSection(Section):
    """The log."""

    format: Annotated[Literal["postfix", "json"], choice("postfix", "json")] = option(
        "postfix", "postfix for lines as Postfix writes them, json for one object an event."
    )
    file: Annotated[str, OPTIONAL_PATH] = option("", 'File that lines are added to; "" for standard output.')
    syslog_name: Annotated[str, notation(_syslog_name, "a program name")] = option(
        "postfix", "Program name before the slash in Postfix lines, as in postfix/smtp[1]."
    )
    tls_loglevel: Annotated[int, integer(0, 4)] = option(
        1, "0 for no TLS lines, 1 for one line a session, 2 and more for certificates and matches too."
    )


class HttpSection(Section):
    """Metrics, health and the API."""

    listen: Annotated[tuple[Endpoint, ...], LISTEN] = option(
        (("127.0.0.1", 8025),), 'Loopback addresses and ports of the HTTP pages; "" for none.'
    )
    token_file: Annotated[str, OPTIONAL_PATH] = later("", "File with the token that changes and remote readers need.")
