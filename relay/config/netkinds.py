"""The kinds of values that name hosts, networks, next-hops and TLS policy; see kinds.py for how a kind works."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from pathlib import Path

from relay.config.kinds import Kind, found, items_of, text_of, toml_list, toml_string
from relay.mail.names import BadName, Domain, IpAddress, IpLiteral, NextHop
from relay.maps.notation import FILE_TYPES, MAP_TYPES, BadNotation, MapSpec, tokens
from relay.policy.level import Level
from relay.policy.notation import parse_match
from relay.policy.policy import InsecureMxPolicy, MatchRule
from relay.sasl.choose import MECHANISMS

Endpoint = tuple[str, int]
"""An address (IPv4, or IPv6 without brackets) and a port."""

DNS_PORT = 53


def endpoint_text(endpoint: Endpoint) -> str:
    """``127.0.0.1:25`` or ``[::1]:25``."""
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


_ENDPOINT = re.compile(
    r"\[(?P<bracketed>[^\[\]]+)\](?::(?P<port6>\d{1,5}))?|(?P<v4>[\d.]+)(?::(?P<port4>\d{1,5}))?|(?P<v6>[\da-fA-F:.]+)",
    re.ASCII,
)


def _endpoint(text: str, expected: str, default_port: int | None = None) -> Endpoint:
    match = _ENDPOINT.fullmatch(text)
    if match is None:
        raise ValueError(f"expected {expected}, {found(text)}")
    port_text = match["port6"] or match["port4"]
    port = int(port_text) if port_text else default_port
    try:
        address = ip_address(match["bracketed"] or match["v4"] or match["v6"])
    except ValueError as error:
        raise ValueError(f"expected {expected}, {found(text)}: {error}") from None
    if port is None or port > 65535:
        raise ValueError(f"expected {expected}, {found(text)}: {'no port' if port is None else f'port {port}'}")
    return str(address), port


def _read_listen(raw: object, _base: Path) -> tuple[Endpoint, ...]:
    expected = 'addresses with ports such as ["127.0.0.1:2525", "[::1]:2525"], or "" for none'
    endpoints = tuple(_endpoint(item, expected) for item in items_of(raw, expected))
    fixed = [endpoint for endpoint in endpoints if endpoint[1]]  # port 0 asks the system for a free one each time
    if len(set(fixed)) != len(fixed):
        raise ValueError("the same address stands here twice; leave one out")
    return endpoints


LISTEN = Kind(_read_listen, lambda endpoints: toml_list(tuple(map(endpoint_text, endpoints))))


def _read_name_servers(raw: object, _base: Path) -> tuple[Endpoint, ...]:
    expected = 'name servers such as ["127.0.0.1", "[::1]:5353"]'
    servers = tuple(_endpoint(item, expected, DNS_PORT) for item in items_of(raw, expected))
    if any(port == 0 for _, port in servers):
        raise ValueError(f"expected {expected}, found port 0")
    return servers


NAME_SERVERS = Kind(_read_name_servers, lambda endpoints: toml_list(tuple(map(endpoint_text, endpoints))))


def _read_addresses(raw: object, _base: Path) -> tuple[IpAddress, ...]:
    expected = 'addresses such as ["127.0.0.53"]'
    addresses = []
    for item in items_of(raw, expected):
        try:
            addresses.append(ip_address(item.removeprefix("[").removesuffix("]")))
        except ValueError:
            raise ValueError(f"expected {expected} without ports, {found(item)}") from None
    return tuple(addresses)


ADDRESSES = Kind(_read_addresses, toml_list)


def local_address(version: int) -> Kind:
    """A local address of one IP version as text, or ``""`` for the system's choice."""
    expected = f'an IPv{version} address or ""'

    def read(raw: object, _base: Path) -> str:
        text = text_of(raw, expected)
        try:
            fits = not text or ip_address(text).version == version
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(f"expected {expected}, {found(raw)}")
        return text

    return Kind(read, toml_string)


def _read_networks(raw: object, _base: Path) -> tuple[object, ...]:
    expected = 'networks such as ["127.0.0.0/8", "[::1]/128"]'
    networks = []
    for item in items_of(raw, expected):
        try:
            networks.append(ip_network(item.replace("[", "").replace("]", "")))
        except ValueError as error:
            raise ValueError(f"expected {expected}, {found(item)}: {error}") from None
    return tuple(networks)


NETWORKS = Kind(_read_networks, toml_list)


def _read_host_name(raw: object, _base: Path) -> str:
    text = text_of(raw, "a host name")
    try:
        return str(Domain.parse(text)) if text else ""
    except BadName as error:
        raise ValueError(f"expected a host name: {error}") from None


HOST_NAME = Kind(_read_host_name, toml_string)


def _read_helo_name(raw: object, base: Path) -> str:
    """An EHLO argument: a host name or an address literal (RFC 5321 section 4.1.1.1)."""
    text = text_of(raw, "a host name or an address literal")
    if text.startswith("[") and text.endswith("]"):
        try:
            return str(IpLiteral.parse(text[1:-1]))
        except BadName as error:
            raise ValueError(f"expected a host name or an address literal: {error}") from None
    return _read_host_name(raw, base)


HELO_NAME = Kind(_read_helo_name, toml_string)


def _read_next_hops(raw: object, _base: Path) -> tuple[str, ...]:
    expected = 'a next-hop such as "example.com", "[mail.example.com]" or "[mail.example.com]:587"'
    items = items_of(raw, expected)
    for item in items:
        try:
            NextHop.parse(item, default_port=25)
        except BadName as error:
            raise ValueError(f"expected {expected}: {error}") from None
    return items


NEXT_HOPS = Kind(_read_next_hops, toml_list)


# --- TLS policy


def level(*allowed: Level) -> Kind:
    """A TLS security level out of some."""
    expected = f"one of {', '.join(toml_string(one.word) for one in allowed)}"

    def read(raw: object, _base: Path) -> Level:
        word = text_of(raw, expected).lower()
        for one in allowed:
            if one.word == word:
                return one
        raise ValueError(f"expected {expected}, {found(raw)}")

    return Kind(read, lambda value: toml_string(value.word))


def _read_insecure_mx(raw: object, _base: Path) -> InsecureMxPolicy:
    expected = f"one of {', '.join(toml_string(one.value) for one in InsecureMxPolicy)}"
    try:
        return InsecureMxPolicy(text_of(raw, expected).lower())
    except ValueError:
        raise ValueError(f"expected {expected}, {found(raw)}") from None


INSECURE_MX = Kind(_read_insecure_mx, lambda value: toml_string(value.value))


def _read_match_list(raw: object, _base: Path) -> tuple[MatchRule, ...]:
    expected = 'names to match such as "hostname", "nexthop, dot-nexthop" or "mail.example.com"'
    listed = parse_match(items_of(raw, expected, separators=r"[,\s:]+"))
    if listed.ignored or not listed.rules:
        raise ValueError(f"expected {expected}, {listed.ignored[0] if listed.ignored else found(raw)}")
    return listed.rules


def match_text(rules: tuple[MatchRule, ...]) -> str:
    """Match rules in Postfix's list notation."""
    return ", ".join(str(getattr(rule, "value", rule)) for rule in rules)


MATCH_LIST = Kind(_read_match_list, lambda rules: toml_string(match_text(rules)))


def _maps(what: str, file: str, types: tuple[str, ...] = MAP_TYPES) -> Kind:
    """Postfix maps, each with or without its type."""
    expected = f'{what} maps such as ["texthash:/etc/dane-relay/{file}"]'

    def read(raw: object, _base: Path) -> tuple[str, ...]:
        # Braces keep blanks and commas together, as in main.cf: inline:{ a=b, { c = d e } }.
        specs = tuple(tokens(text_of(raw, expected))) if isinstance(raw, str) else items_of(raw, expected)
        for written in specs:
            try:
                spec = MapSpec.parse(written)
            except BadNotation as error:
                raise ValueError(f"expected {expected}: {error}") from None
            if spec.type not in types:
                raise ValueError(f"expected {expected}; type {spec.type} is not for secrets, {' and '.join(types)} are")
            kind, colon, _ = spec.file.partition(":")
            if spec.type == "texthash" and colon and kind.isalpha():
                raise ValueError(f"expected {expected}, {found(written)}; types are {', '.join(MAP_TYPES)}")
        return specs

    return Kind(read, toml_list)


MAPS = _maps("policy", "tls_policy")
TRANSPORT_MAPS = _maps("transport", "transport")
LOGIN_MAPS = _maps("sender login", "sender_login")
RELAYHOST_MAPS = _maps("relayhost", "sender_relayhost")
# Secrets belong into files with a mode of their own, and where a pattern matches nobody meant to show them.
PASSWORD_MAPS = _maps("password", "sasl_passwd", FILE_TYPES)
TOKEN_MAPS = _maps("token", "sasl_tokens", FILE_TYPES)
# A pattern that matches too much would let in everybody who makes a certificate.
CLIENTCERT_MAPS = _maps("client certificate", "relay_clientcerts", FILE_TYPES)


# --- SASL and implicit TLS


def _read_mechanisms(raw: object, _base: Path) -> tuple[str, ...]:
    expected = f'mechanisms such as "plain, login" or "!login, static:all" (known: {", ".join(MECHANISMS)})'
    words = items_of(raw, expected)
    for word in words:
        name = word.lstrip("!")
        if name.upper() not in MECHANISMS and not name.lower().startswith("static:"):
            raise ValueError(f"expected {expected}, {found(word)}")
    return words


MECHANISM_FILTER = Kind(_read_mechanisms, toml_list)


def _read_ports(raw: object, _base: Path) -> tuple[int, ...]:
    expected = "TCP ports such as [465]"
    items = raw if isinstance(raw, list) else items_of(raw, expected)
    ports = [int(item) if isinstance(item, str) and item.isascii() and item.isdigit() else item for item in items]
    if not all(isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536 for port in ports):
        raise ValueError(f"expected {expected}, {found(raw)}")
    return tuple(port for port in ports if isinstance(port, int))


PORTS = Kind(_read_ports, lambda ports: f"[{', '.join(map(str, ports))}]")
