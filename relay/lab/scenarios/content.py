"""Destinations that take everything: what arrives must be what was handed in (RFC 5321 sections 4.5.2 and 4.5.3.1, RFC 6152)."""

from __future__ import annotations

from relay.lab.destination import Destination, MessageKind, Session
from relay.lab.scenarios.build import TLSA_EE, host, one_host, sent


def _taken(name: str, message: MessageKind, shows: str, rule: str) -> Destination:
    ending = sent(name, Session.VERIFIED, "dane")
    return one_host(host(name, TLSA_EE), shows, rule, ending, message=message)


CONTENT = (
    _taken("eight-bit", MessageKind.EIGHT_BIT, "8-bit content, host with 8BITMIME", "RFC 6152 section 3"),
    _taken("utf8", MessageKind.UTF8_ADDRESS, "UTF-8 address, host with SMTPUTF8", "RFC 6531 section 3.2"),
    _taken("long-lines", MessageKind.LONG_LINES, "lines of 998 octets", "RFC 5321 section 4.5.3.1.6"),
    _taken("large", MessageKind.LARGE, "a million octets", "RFC 5321 section 4.5.3.1.7"),
)
