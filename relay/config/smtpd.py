"""``[smtpd]``: who may hand us mail, and within which limits. Defaults as Postfix's smtpd(8), but for ``listen``."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated

from relay.config.kinds import FIELD_NAMES, OPTIONAL_PATH, SIZE, SWITCH, choices, duration, integer, notation
from relay.config.netkinds import CLIENTCERT_MAPS, LISTEN, LOGIN_MAPS, NETWORKS, Endpoint, level
from relay.config.section import Section, option
from relay.config.socketkinds import MODE, SOCKETS, USERS
from relay.policy.level import Level

IpNetwork = IPv4Network | IPv6Network
_LOOPBACK = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
_COUNT = integer(0, 1_000_000)
_REWRITE_CLIENTS = ("permit_inet_interfaces", "permit_mynetworks", "permit_sasl_authenticated")


def _bare_newline(text: str) -> str:
    word = {"yes": "normalize"}.get(text.lower(), text.lower())
    if word not in {"normalize", "reject", "no"}:
        raise ValueError(f'expected "normalize", "reject" or "no", found "{text}"')
    return word


class SmtpdSection(Section):
    """Receiving mail: who may hand it to us, and within which limits."""

    listen: Annotated[tuple[Endpoint, ...], LISTEN] = option(
        (("127.0.0.1", 2525),), 'Addresses and ports that take mail; "" for none.'
    )
    submissions_listen: Annotated[tuple[Endpoint, ...], LISTEN] = option(
        (), 'Addresses and ports that take mail over TLS from the first octet (submissions, port 465); "" for none.'
    )
    unix_listen: Annotated[tuple[Path, ...], SOCKETS] = option(
        (), 'Unix sockets that take mail, such as "unix:/run/dane-relay/smtp"; "" for none.'
    )
    unix_listen_mode: Annotated[int, MODE] = option(
        0o660, "Mode of those sockets: which users of this machine can connect at all."
    )
    unix_relay_users: Annotated[tuple[str, ...], USERS] = option(
        ("*",), 'Users, by name or number, who may relay to any destination through them; "*" for all, "" for nobody.'
    )
    mynetworks: Annotated[tuple[IpNetwork, ...], NETWORKS] = option(
        _LOOPBACK, "Networks whose clients may relay to any destination; all others get 454 4.7.1."
    )
    tls_security_level: Annotated[Level, level(Level.NONE, Level.MAY, Level.ENCRYPT)] = option(
        Level.NONE, "STARTTLS for clients: none does not offer it, may offers it, encrypt takes no mail without it."
    )
    tls_cert_file: Annotated[str, OPTIONAL_PATH] = option(
        "", "PEM file with our certificate for clients, then its intermediates."
    )
    tls_key_file: Annotated[str, OPTIONAL_PATH] = option("", "PEM file with the private key of that certificate.")
    tls_ask_ccert: Annotated[bool, SWITCH] = option(
        False, "Whether clients are asked for a certificate under TLS. Any is taken, and none; see relay_clientcerts."
    )
    relay_clientcerts: Annotated[tuple[str, ...], CLIENTCERT_MAPS] = option(
        (),
        "Postfix files (texthash:, hash:, lmdb:) whose keys are SHA-256 fingerprints, AB:CD:..., of certificates or public keys "
        "of clients that may relay to any destination. Needs tls_ask_ccert.",
    )
    tls_auth_only: Annotated[bool, SWITCH] = option(
        True, "Whether AUTH is offered and taken over TLS only; with users_file nothing else is possible."
    )
    users_file: Annotated[str, OPTIONAL_PATH] = option(
        "", "File with the users who may log in (AUTH) and then relay; `dane-relay user` writes it. Needs TLS."
    )
    auth_failure_limit: Annotated[int, _COUNT] = option(
        10,
        "Failures to log in of one client within auth_lockout_time that shut it out until that is over; 0 for no limit.",
    )
    auth_lockout_time: Annotated[float, duration(1)] = option(
        600.0, "Time in which failures to log in are counted, from the first on."
    )
    peername_lookup: Annotated[bool, SWITCH] = option(
        True,
        "Whether clients beyond this machine are called by their name in the DNS, where it leads back to their address; "
        'otherwise all are "unknown".',
    )
    sender_login_maps: Annotated[tuple[str, ...], LOGIN_MAPS] = option(
        (),
        "Postfix files (types as in smtp.tls_policy_maps) from sender addresses or @domain to the users who may use them after "
        "AUTH; others get 553 5.7.1. Without a map everybody who has logged in may use every address.",
    )
    message_size_limit: Annotated[int, SIZE] = option(
        10_240_000, "Largest message that is taken, in bytes; offered as SIZE."
    )
    recipient_limit: Annotated[int, integer(1, 100_000)] = option(1000, "Most recipients of one message.")
    hopcount_limit: Annotated[int, integer(1, 1000)] = option(
        50, "Most Received header fields before a message counts as looping."
    )
    header_size_limit: Annotated[int, SIZE] = option(
        102_400, "Longest header field, in bytes; what one has beyond is cut off. 0 for no limit."
    )
    local_header_rewrite_clients: Annotated[tuple[str, ...], choices(*_REWRITE_CLIENTS)] = option(
        ("permit_inet_interfaces", "permit_sasl_authenticated"),
        "Whose mail gets the Message-Id and Date that it lacks: permit_inet_interfaces (this machine), permit_mynetworks, "
        'permit_sasl_authenticated; "" for nobody.',
    )
    always_add_missing_headers: Annotated[bool, SWITCH] = option(
        False, "Whether everybody's mail gets the Message-Id and Date that it lacks."
    )
    message_drop_headers: Annotated[tuple[str, ...], FIELD_NAMES] = option(
        (),
        "Header fields that are taken out of every message, for instance bcc. Postfix drops bcc, content-length, "
        "resent-bcc and return-path unasked.",
    )
    timeout: Annotated[float, duration(1)] = option(300.0, "Longest wait for a command or for content of a client.")
    client_connection_count_limit: Annotated[int, _COUNT] = option(
        50, "Most connections of one client at a time; 0 for no limit."
    )
    client_connection_rate_limit: Annotated[int, _COUNT] = option(
        0, "Most connections of one client within 60 seconds; 0 for no limit."
    )
    client_message_rate_limit: Annotated[int, _COUNT] = option(
        0, "Most messages that one client may begin within 60 seconds; 0 for no limit."
    )
    client_recipient_rate_limit: Annotated[int, _COUNT] = option(
        0, "Most recipients that one client may name within 60 seconds; 0 for no limit."
    )
    client_auth_rate_limit: Annotated[int, _COUNT] = option(
        0, "Most AUTH commands of one client within 60 seconds; 0 for no limit."
    )
    client_event_limit_exceptions: Annotated[tuple[IpNetwork, ...], NETWORKS] = option(
        (), "Networks that the five client limits do not concern; empty means mynetworks."
    )
    connection_limit: Annotated[int, _COUNT] = option(
        1000, "Most connections of all clients at a time; 0 for no limit."
    )
    content_memory_limit: Annotated[int, SIZE] = option(
        128 * 1024 * 1024,
        "Memory for messages while they come in, in bytes; beyond it clients get 452 4.3.1. 0 for no limit.",
    )
    forbid_bare_newline: Annotated[str, notation(_bare_newline, "normalize, reject or no")] = option(
        "normalize",
        "A message with a bare CR or LF: normalize makes CRLF of it, reject refuses it with 550; no is normalize for clients "
        "that also double a dot behind a bare LF. Only CRLF.CRLF ends a message, whatever stands here.",
    )
    forbid_unauth_pipelining: Annotated[bool, SWITCH] = option(
        True, "Whether clients that send before it is their turn (RFC 2920) are cut off with 554."
    )
    soft_error_limit: Annotated[int, _COUNT] = option(10, "Errors of a session before replies are delayed.")
    hard_error_limit: Annotated[int, integer(1, 1_000_000)] = option(20, "Errors before a session is closed with 421.")
    error_sleep_time: Annotated[float, duration()] = option(1.0, "Delay of a reply after soft_error_limit errors.")
    junk_command_limit: Annotated[int, _COUNT] = option(
        100, "Commands that move no mail (NOOP, RSET, VRFY ...) before each counts as an error."
    )
    proxy_protocol_networks: Annotated[tuple[IpNetwork, ...], NETWORKS] = option(
        (),
        "Networks of load balancers that begin each connection with the PROXY protocol, version 1 or 2; one that does not is "
        "dropped. From all others it is no command.",
    )
