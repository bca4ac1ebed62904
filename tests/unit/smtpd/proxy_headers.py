"""PROXY headers as proxies send them, and whom they name."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from relay.smtpd.proxy import MAX_OCTETS, Passed, Unnamed, crc32c

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
V4 = ip_address("192.0.2.7").packed + ip_address("198.51.100.1").packed + struct.pack("!HH", 56324, 25)
V6 = ip_address("2001:db8::7").packed + ip_address("2001:db8::1").packed + struct.pack("!HH", 56324, 25)
CLIENT = Passed(ip_address("192.0.2.7"), 56324)
CLIENT6 = Passed(ip_address("2001:db8::7"), 56324)


def v2(block: bytes, *, first: int = 0x21, family: int = 0x11, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", first, family, len(block) if length is None else length) + block


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def summed(block: bytes, *, change: int = 0) -> bytes:
    """A header whose last TLV is its checksum."""
    blank = v2(block + tlv(3, bytes(4)))
    return blank[:-4] + struct.pack("!I", crc32c(blank) ^ change)


GOOD = [
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\r\n", CLIENT),
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 0 65535\r\n", Passed(ip_address("192.0.2.7"), 0)),
    (b"PROXY TCP6 2001:db8::7 2001:DB8::1 56324 25\r\n", CLIENT6),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 56324 25\r\n", CLIENT),
    (b"PROXY UNKNOWN\r\n", Unnamed.UNKNOWN),
    (b"PROXY UNKNOWN " + b"\xff" * 91 + b"\r\n", Unnamed.UNKNOWN),
    (v2(V4), CLIENT),
    (v2(V6, family=0x21), CLIENT6),
    (v2(bytes(10) + b"\xff\xff" + ip_address("192.0.2.7").packed + V6[16:], family=0x21), CLIENT),
    (v2(b"", first=0x20, family=0), Unnamed.LOCAL),
    (v2(b"whatever", first=0x20, family=0xFF), Unnamed.LOCAL),
    (v2(b"", family=0), Unnamed.UNKNOWN),
    (v2(b"whatever", family=0), Unnamed.UNKNOWN),
    (v2(V4, family=0x12), Unnamed.UNKNOWN),
    (v2(bytes(216), family=0x31), Unnamed.UNKNOWN),
    (v2(V4 + tlv(4, b"") + tlv(5, b"id") + tlv(0xEE, b"x" * 300)), CLIENT),
    (summed(V4), CLIENT),
    (summed(V4 + tlv(1, b"smtp")), CLIENT),
    (v2(V4 + tlv(4, bytes(MAX_OCTETS - 16 - 12 - 3))), CLIENT),
]
