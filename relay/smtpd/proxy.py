"""The PROXY protocol, versions 1 and 2 (haproxy's doc/proxy-protocol.txt): whose connection a proxy passes on. Pure.

Strict, for what is read here decides about access: whatever is not exactly a header refuses the connection. What a header says
beside the addresses (TLVs) is passed over, but for its checksum.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address

from relay.mail.names import IpAddress
from relay.smtpd.access import client_address

MAX_OCTETS = 4096
"""Of a header of version 2; those of haproxy with all that it can add have some hundreds."""

_V1_START = b"PROXY "
_V1_MAX_OCTETS = 107  # section 2.1: the longest line, with its CRLF
_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")
_ADDRESS = {b"TCP4": (4, re.compile(rb"[0-9.]{7,15}")), b"TCP6": (6, re.compile(rb"[0-9A-Fa-f:.]{2,45}"))}

_V2_START = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_FIXED_OCTETS = 16
_LOCAL, _PROXY = 0, 1
# Octets of one address by family (section 2.2), and of the ports behind both.
_FAMILIES = {0: (0, 0), 1: (4, 2), 2: (16, 2), 3: (108, 0)}
_INTERNET = frozenset({1, 2})
_STREAM = 1
_TRANSPORTS = frozenset({0, _STREAM, 2})
_CRC32C = 0x03
_CRC_OCTETS = 4


class BadHeader(Exception):  # noqa: N818 - it names what came
    """What a proxy sent is no header that could be believed; the message says why."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A connection that a client made to the proxy.

    :param address: the client's, an IPv4 client of a dual-stack socket as IPv4.
    """

    address: IpAddress
    port: int


class Unnamed(Enum):
    """A connection of which the header names no client; the address that is known is the proxy's own."""

    LOCAL = "the proxy's own, as for a health check"
    UNKNOWN = "of a client that has no Internet address, or whose address the proxy does not know"


class Incomplete(Enum):
    """More is to come."""

    INCOMPLETE = "incomplete"


Header = Passed | Unnamed


def read_header(octets: bytes) -> tuple[Header, int] | Incomplete:
    """What stands at the beginning of a connection: the header and its length in octets, as soon as it is whole.

    :param octets: all that came so far; what follows the header is not looked at.
    :raises BadHeader: as soon as it is clear that no header comes.
    """
    if octets.startswith(_V2_START[: len(octets)]):
        return _version_2(octets)
    if octets.startswith(_V1_START[: len(octets)]):
        return _version_1(octets)
    raise BadHeader("it does not begin with a PROXY header")


def _version_1(octets: bytes) -> tuple[Header, int] | Incomplete:
    end = octets.find(b"\r\n", 0, _V1_MAX_OCTETS)
    if end < 0:
        if len(octets) >= _V1_MAX_OCTETS or b"\n" in octets:
            raise BadHeader(f"no CRLF ends the header within {_V1_MAX_OCTETS} octets")
        return Incomplete.INCOMPLETE
    line = octets[:end]
    if b"\n" in line or b"\r" in line:
        raise BadHeader("a bare CR or LF in the header")
    words = line.split(b" ")
    if words[1] == b"UNKNOWN":  # whatever follows is to be ignored
        return Unnamed.UNKNOWN, end + 2
    if words[1] not in _ADDRESS or len(words) != 6:
        raise BadHeader("expected PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT, or PROXY UNKNOWN")
    version, form = _ADDRESS[words[1]]
    source, _ = (_v1_address(word, version, form) for word in words[2:4])
    port, _ = (_v1_port(word) for word in words[4:6])
    return Passed(source, port), end + 2


def _v1_address(word: bytes, version: int, form: re.Pattern[bytes]) -> IpAddress:
    try:
        if form.fullmatch(word) and ip_address(word.decode("ascii")).version == version:
            return client_address(word.decode("ascii"))
    except ValueError:
        pass
    raise BadHeader(f"an address that is none of IPv{version}")


def _v1_port(word: bytes) -> int:
    if not _PORT.fullmatch(word) or int(word) > 65535:
        raise BadHeader("a port that is none")
    return int(word)


def _version_2(octets: bytes) -> tuple[Header, int] | Incomplete:
    """Everything that the fixed part says is judged before the rest has come."""
    if len(octets) < _V2_FIXED_OCTETS:
        return Incomplete.INCOMPLETE
    version, command = divmod(octets[12], 16)
    family, transport = divmod(octets[13], 16)
    length = _V2_FIXED_OCTETS + int.from_bytes(octets[14:16], "big")
    if version != 2 or command not in (_LOCAL, _PROXY):
        raise BadHeader(f"version {version}, command {command}: neither LOCAL nor PROXY of version 2")
    if length > MAX_OCTETS:
        raise BadHeader(f"a header of {length} octets, more than {MAX_OCTETS}")
    if command == _PROXY:
        if family not in _FAMILIES or transport not in _TRANSPORTS:
            raise BadHeader(f"address family {family}, transport {transport}: not in the specification")
        if length < _V2_FIXED_OCTETS + 2 * sum(_FAMILIES[family]):
            raise BadHeader("a header too short for the addresses that it announces")
    if len(octets) < length:
        return Incomplete.INCOMPLETE
    if command == _LOCAL:  # the block is to be discarded, and the family ignored
        return Unnamed.LOCAL, length
    if family not in _INTERNET or transport != _STREAM:
        return Unnamed.UNKNOWN, length
    return _passed(octets[:length], *_FAMILIES[family]), length


def _passed(header: bytes, size: int, port_size: int) -> Passed:
    ports = _V2_FIXED_OCTETS + 2 * size
    _check_sum(header, ports + 2 * port_size)
    source = ip_address(header[_V2_FIXED_OCTETS : _V2_FIXED_OCTETS + size])
    return Passed(client_address(str(source)), int.from_bytes(header[ports : ports + port_size], "big"))


def _check_sum(header: bytes, start: int) -> None:
    """A header that has a checksum (section 2.2.3) must fit it; TLVs that run over the end make it a bad one."""
    for kind, at, size in _tlvs(header, start):
        if kind != _CRC32C:
            continue
        if size != _CRC_OCTETS:
            raise BadHeader("a checksum that is none")
        blank = header[:at] + bytes(_CRC_OCTETS) + header[at + size :]
        if crc32c(blank) != int.from_bytes(header[at : at + size], "big"):
            raise BadHeader("the header's checksum does not fit it")


def _tlvs(header: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Type, place and length in octets of each value."""
    while at < len(header):
        size = int.from_bytes(header[at + 1 : at + 3], "big")
        if at + 3 + size > len(header):
            raise BadHeader("a TLV that is longer than the header")
        yield header[at], at + 3, size
        at += 3 + size


def _shifted(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (
            0x82F63B78 if value & 1 else 0
        )  # Castagnoli's polynomial, reflected (RFC 4960 appendix B)
    return value


_CRC_TABLE = tuple(map(_shifted, range(256)))


def crc32c(octets: bytes) -> int:
    """The CRC32c of octets."""
    value = 0xFFFFFFFF
    for octet in octets:
        value = _CRC_TABLE[(value ^ octet) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF
