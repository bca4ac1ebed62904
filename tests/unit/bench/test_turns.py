"""Round trips counted from packets: what a client waits for, and nothing else."""

from __future__ import annotations

import struct

import pytest

from tests.bench.turns import Turns, parse

CLIENT, SERVER = b"\xc0\x00\x02\x01", b"\xc0\x00\x02\x02"
SYN, ACK, FIN, RST = 0x02, 0x10, 0x01, 0x04


def packet(who: str, octets: int = 0, flags: int = ACK, *, port: int = 40000, protocol: int = 6) -> bytes:
    """An IPv4 packet with a TCP segment, from the client (c) or the server (s)."""
    source, target = (CLIENT, SERVER) if who == "c" else (SERVER, CLIENT)
    ports = (port, 25) if who == "c" else (25, port)
    tcp = struct.pack("!HHIIBBHHH", *ports, 0, 0, 8 << 4, flags, 0, 0, 0) + bytes(12) + bytes(octets)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, protocol, 0, source, target)
    return ip + tcp


HANDSHAKE = (packet("c", 0, SYN), packet("s", 0, SYN | ACK), packet("c"), packet("s", 21))


def seen(*packets: bytes) -> Turns:
    """What is counted of packets in the order in which they enter the link."""
    turns = Turns()
    for one in packets:
        turns.see(one, from_client=one[12:16] == CLIENT)
    return turns


def test_connecting_and_the_greeting_are_two() -> None:
    assert (seen(*HANDSHAKE).connections, seen(*HANDSHAKE).turns) == (1, 2)


def test_a_question_and_its_answer_are_one_whatever_their_packets() -> None:
    content = [packet("c", 1448) for _ in range(8)]
    answer = [packet("s"), packet("s"), packet("s", 60), packet("s", 24)]
    assert seen(*HANDSHAKE, packet("c"), *content, *answer, packet("c")).turns == 3


def test_each_message_of_a_session_is_one() -> None:
    first = (packet("c", 100), packet("s", 20))
    assert seen(*HANDSHAKE, *first, *first, *first).turns == 5


@pytest.mark.parametrize(
    "end",
    [
        (packet("c", 6), packet("c", 0, FIN | ACK), packet("s", 15), packet("s", 0, FIN | ACK)),  # does not wait
        (packet("c", 6), packet("s", 15), packet("s", 0, FIN | ACK), packet("c", 0, FIN | ACK)),  # waits
        (packet("c", 6), packet("s", 15), packet("s", 24, FIN | ACK)),  # close_notify with the end
        (packet("c", 0, RST),),
        (),
    ],
)
def test_the_farewell_is_not_counted(end: tuple[bytes, ...]) -> None:
    message = (packet("c", 1000), packet("s", 60))
    assert seen(*HANDSHAKE, *message, *end).turns == 3
    assert seen(*HANDSHAKE, *message, *end, packet("s", 10)).turns == 3


def test_a_port_that_is_used_again_is_another_connection() -> None:
    message = (packet("c", 1000), packet("s", 60), packet("c", 0, FIN | ACK))
    turns = seen(*HANDSHAKE, *message, *HANDSHAKE, *message)
    assert (turns.connections, turns.turns) == (2, 6)


def test_connections_are_apart() -> None:
    other = [packet("c", 0, SYN, port=40001), packet("s", 0, SYN | ACK, port=40001)]
    turns = seen(*HANDSHAKE, *other)
    assert (turns.connections, turns.turns, turns.packets) == (2, 3, 6)


@pytest.mark.parametrize(
    "other",
    [
        b"",
        bytes(60),
        packet("c")[:39],
        packet("c", protocol=17),
        b"\x60" + bytes(59),
        packet("c", 50)[:6] + b"\x20\x01" + packet("c", 50)[8:],  # a fragment
    ],
)
def test_what_is_no_tcp_over_ipv4_is_counted_as_a_packet_only(other: bytes) -> None:
    assert parse(other, from_client=True) is None
    assert (seen(*HANDSHAKE, other).turns, seen(*HANDSHAKE, other).packets) == (2, 5)
