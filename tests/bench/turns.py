"""Round trips counted from the packets of a link: pure.

A connection's round trips are the times that the client had to wait for the server before it could go on: one for the TCP
handshake, one for the greeting, and one each time that what the client sent is followed by something from the server. What
follows the client's last words before the connection ends (QUIT, which nobody needs an answer to) is not counted. Packets are
looked at where they enter the link, so that what one side sends on before the other side's answer can reach it counts once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10
_TCP = 6


@dataclass(slots=True)
class _Connection:
    """One that is being counted; ``asked`` since when the client waits."""

    asked: bool = True
    turns: int = 0
    over: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """What counts of a TCP segment.

    :param key: addresses and ports of the client, then of the server, as octets.
    :param from_client: its direction.
    :param octets: of payload.
    """

    key: bytes
    from_client: bool
    flags: int
    octets: int


def parse(packet: bytes, *, from_client: bool) -> Segment | None:
    """A segment from an IPv4 packet; None for anything else, and for fragments."""
    if len(packet) < 40 or packet[0] >> 4 != 4 or packet[9] != _TCP or int.from_bytes(packet[6:8]) & 0x3FFF:
        return None
    header = (packet[0] & 15) * 4
    tcp = packet[header:]
    if len(tcp) < 20:
        return None
    octets = int.from_bytes(packet[2:4]) - header - (tcp[12] >> 4) * 4
    source, target = packet[12:16] + tcp[0:2], packet[16:20] + tcp[2:4]
    return Segment(source + target if from_client else target + source, from_client, tcp[13], max(0, octets))


@dataclass(slots=True)
class Turns:
    """Counts the connections, round trips, packets and octets of a link."""

    connections: int = 0
    ended: int = 0
    packets: int = 0
    octets: int = 0
    _open: dict[bytes, _Connection] = field(default_factory=dict)

    def see(self, packet: bytes, *, from_client: bool) -> None:
        """Count a packet that enters the link."""
        self.packets += 1
        self.octets += len(packet)
        if (segment := parse(packet, from_client=from_client)) is None:
            return
        if segment.from_client and segment.flags & _SYN:
            self.connections += 1
            self._open[segment.key] = _Connection()
        elif (connection := self._open.get(segment.key)) is not None and not connection.over:
            self._follow(connection, segment)

    def _follow(self, connection: _Connection, segment: Segment) -> None:
        if segment.from_client:
            # the last ACK of the handshake is what the greeting answers
            connection.asked = connection.asked or segment.octets > 0 or connection.turns == 1
        elif connection.asked and (segment.octets > 0 or segment.flags & _SYN):
            connection.asked = False
            connection.turns += 1
        if segment.flags & (_FIN | _RST):
            connection.over = True
            if not segment.from_client and not connection.asked:
                connection.turns -= 1  # the server's answer to QUIT, and its end
            self.ended += connection.turns

    @property
    def turns(self) -> int:
        """Round trips up to now, also of connections that are open."""
        return self.ended + sum(one.turns for one in self._open.values() if not one.over)
