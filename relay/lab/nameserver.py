"""A name server on loopback that answers as a validating resolver would (RFC 4035 section 3.2.3, RFC 6840 section 5.8).

It signs and validates nothing: each zone is *said* to be secure, insecure or bogus, and the AD bit and SERVFAIL follow.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import assert_never, cast

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

TTL = 60
MAX_UDP_OCTETS = 1232
MAX_CNAMES = 8
MAX_RECORDED_QUERIES = 100_000
MAX_TCP_CONNECTIONS = 64
TCP_IDLE_SECONDS = 10.0


class Trust(Enum):
    """What a validator makes of a zone."""

    SECURE = "secure"
    INSECURE = "insecure"
    BOGUS = "bogus"
    WRONG_DS = "bogus: the zone above vouches for another key"

    @property
    def is_bogus(self) -> bool:
        """Whether a validator refuses what is in the zone."""
        return self in (Trust.BOGUS, Trust.WRONG_DS)


class Fault(Enum):
    """How one RRset refuses to be looked up."""

    NONE = "answers"
    SERVFAIL = "SERVFAIL"
    REFUSED = "REFUSED"
    SILENCE = "no answer"
    GARBAGE = "an answer that is no DNS message"


@dataclass(frozen=True, slots=True)
class Zone:
    """One zone as data.

    :param apex: absolute, with the trailing dot.
    :param records: (owner with trailing dot, type) -> RDATA in presentation form.
    :param faults: RRsets that fail instead of being answered.
    """

    apex: str
    trust: Trust
    records: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    faults: Mapping[tuple[str, str], Fault] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Query:
    """One question as it was asked and answered: name lower case without trailing dot, type, rcode and AD of the answer.

    ``rcode`` is empty where nothing (or garbage) was sent.
    """

    name: str
    rrtype: str
    rcode: str
    secure: bool
    tcp: bool = False


_RRset = tuple[dns.name.Name, dns.rdatatype.RdataType]


class _ZoneData:
    """A zone with its texts parsed."""

    def __init__(self, zone: Zone) -> None:
        self.apex = dns.name.from_text(zone.apex)
        self.trust = zone.trust
        self.faults = {_key(owner, rrtype): fault for (owner, rrtype), fault in zone.faults.items()}
        self.records: dict[_RRset, dns.rrset.RRset] = {}
        for (owner, rrtype), rdatas in zone.records.items():
            name, kind = _key(owner, rrtype)
            self.records[name, kind] = dns.rrset.from_text(name, TTL, dns.rdataclass.IN, kind, *rdatas)
        self.names = {self.apex}
        for name, _ in (*self.records, *self.faults):
            self._add_with_parents(name)

    def _add_with_parents(self, name: dns.name.Name) -> None:
        """A name exists, and so do the empty non-terminals between it and the apex (RFC 8020)."""
        while name != self.apex and name.is_subdomain(self.apex):
            self.names.add(name)
            name = name.parent()

    def soa(self) -> dns.rrset.RRset:
        """The SOA record that negative answers carry (RFC 2308)."""
        text = f"ns.lab.test. hostmaster.lab.test. 1 3600 600 86400 {TTL}"
        return dns.rrset.from_text(self.apex, TTL, dns.rdataclass.IN, dns.rdatatype.SOA, text)


def _key(owner: str, rrtype: str) -> _RRset:
    return dns.name.from_text(owner), dns.rdatatype.from_text(rrtype)


@dataclass(slots=True)
class _Walk:
    """How far a question got: the zones' trust along its CNAMEs, and how it ended."""

    secure: bool = True
    bogus: str = ""
    fault: Fault = Fault.NONE
    nxdomain: bool = False
    answer: list[dns.rrset.RRset] = field(default_factory=list)
    authority: list[dns.rrset.RRset] = field(default_factory=list)


class NameServer:
    """Serves zones over UDP and TCP on one loopback port, and records what was asked.

    :param zones: must contain the root zone, so that every name is in some zone.
    :raises ValueError: if it does not.
    """

    def __init__(self, zones: Iterable[Zone]) -> None:
        self._zones = {zone.apex: zone for zone in map(_ZoneData, zones)}
        if dns.name.root not in self._zones:
            raise ValueError("the name server needs a root zone")
        self._spoilt: set[dns.name.Name] = set()
        self.queries: deque[Query] = deque(maxlen=MAX_RECORDED_QUERIES)
        self.address = ("", 0)
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()

    def spoil(self, apexes: Iterable[str]) -> None:
        """Let these zones be bogus from now on, and no others but those that always were."""
        self._spoilt = {dns.name.from_text(apex) for apex in apexes}

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> tuple[str, int]:
        """Listen; UDP and TCP get the same port.

        :raises OSError: if no port could be had for both.
        """
        loop = asyncio.get_running_loop()
        for attempts_left in reversed(range(20)):
            self._tcp = await asyncio.start_server(self._serve_tcp, host, port)
            self.address = host, self._tcp.sockets[0].getsockname()[1]
            try:
                self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), self.address)
            except OSError:
                await self.stop()
                if port or not attempts_left:
                    raise
            else:
                break
        return self.address

    async def stop(self) -> None:
        """Close the sockets."""
        if self._udp is not None:
            self._udp.abort()
            self._udp = None
        for writer in tuple(self._connections):
            writer.transport.abort()
        if self._tcp is not None:
            self._tcp.close()
            await self._tcp.wait_closed()
            self._tcp = None

    def respond(self, packet: bytes, *, tcp: bool = False) -> bytes | None:
        """Answer one packet from the network, None for no answer."""
        try:
            query = dns.message.from_wire(packet, ignore_trailing=True, continue_on_error=True)
        except (dns.exception.DNSException, ValueError, IndexError, struct.error):
            return None  # not even a header
        if query.flags & dns.flags.QR or query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
            return None if query.flags & dns.flags.QR else _refusal(packet)
        question = query.question[0]
        name = question.name.canonicalize()
        walk = self._walk(name, question.rdtype, check=not query.flags & dns.flags.CD)
        wants_ad = bool(query.flags & dns.flags.AD) or bool(query.ednsflags & dns.flags.DO)
        response = _response(query, walk, wants_ad=wants_ad)
        sent = walk.fault not in (Fault.SILENCE, Fault.GARBAGE)
        self.queries.append(
            Query(
                name.to_text(omit_final_dot=True),
                dns.rdatatype.to_text(question.rdtype),
                dns.rcode.to_text(response.rcode()) if sent else "",
                bool(response.flags & dns.flags.AD) if sent else False,
                tcp,
            )
        )
        if walk.fault is Fault.SILENCE:
            return None
        if walk.fault is Fault.GARBAGE:
            return packet[:2] + b"\x81\x80 this is no DNS message"
        limit = 65535 if tcp else min(MAX_UDP_OCTETS, max(512, query.payload))
        return response.to_wire(max_size=limit, prefer_truncation=True)

    def _walk(self, name: dns.name.Name, rrtype: dns.rdatatype.RdataType, *, check: bool) -> _Walk:
        walk = _Walk()
        for _ in range(MAX_CNAMES):
            zone = self._zone_of(name)
            walk.secure &= zone.trust is Trust.SECURE
            if (zone.trust.is_bogus or zone.apex in self._spoilt) and check:
                walk.bogus = f"validation failure <{name} {dns.rdatatype.to_text(rrtype)} IN>: signature expired"
                return walk
            walk.fault = zone.faults.get((name, rrtype), Fault.NONE)
            if walk.fault is not Fault.NONE:
                return walk
            if found := zone.records.get((name, rrtype)):
                walk.answer.append(found)
                return walk
            alias = zone.records.get((name, dns.rdatatype.CNAME))
            if alias is None:
                walk.nxdomain = name not in zone.names
                walk.authority.append(zone.soa())
                return walk
            walk.answer.append(alias)
            name = dns.name.from_text(alias[0].to_text()).canonicalize()
        walk.fault = Fault.SERVFAIL
        return walk

    def _zone_of(self, name: dns.name.Name) -> _ZoneData:
        while name not in self._zones:
            name = name.parent()
        return self._zones[name]

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_TCP_CONNECTIONS:
            writer.transport.abort()
            return
        self._connections.add(writer)
        try:
            while True:
                async with asyncio.timeout(TCP_IDLE_SECONDS):
                    packet = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                if (response := self.respond(packet, tcp=True)) is not None:
                    writer.write(len(response).to_bytes(2, "big") + response)
                    await writer.drain()
        except (EOFError, OSError, TimeoutError):
            pass  # the client is done, or gone
        finally:
            self._connections.discard(writer)
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # no loop's class says that it is one

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        response = self._server.respond(data)
        if response is not None and self._transport is not None:
            self._transport.sendto(response, addr)


def _response(query: dns.message.Message, walk: _Walk, *, wants_ad: bool) -> dns.message.Message:
    response = dns.message.make_response(query, recursion_available=True, our_payload=MAX_UDP_OCTETS)
    if walk.bogus:
        _fail(response, dns.rcode.SERVFAIL, dns.edns.EDECode.SIGNATURE_EXPIRED, walk.bogus)
        return response
    match walk.fault:
        case Fault.SERVFAIL:
            _fail(response, dns.rcode.SERVFAIL, dns.edns.EDECode.NO_REACHABLE_AUTHORITY, "no reachable authority")
        case Fault.REFUSED:
            response.set_rcode(dns.rcode.REFUSED)
        case Fault.NONE | Fault.SILENCE | Fault.GARBAGE:
            response.answer.extend(walk.answer)
            response.authority.extend(walk.authority)
            if walk.nxdomain:
                response.set_rcode(dns.rcode.NXDOMAIN)
            if walk.secure and wants_ad:
                response.flags |= dns.flags.AD
        case _:
            assert_never(walk.fault)
    return response


def _fail(response: dns.message.Message, rcode: dns.rcode.Rcode, code: dns.edns.EDECode, text: str) -> None:
    response.set_rcode(rcode)
    if response.edns >= 0:  # an extended error (RFC 8914) needs an OPT record to travel in
        options: list[dns.edns.Option] = [dns.edns.EDEOption(code, text)]
        response.use_edns(response.edns, response.ednsflags, response.payload, options=options)


def _refusal(packet: bytes) -> bytes:
    """FORMERR to a query that has no single question; only its ID is taken from the packet."""
    return packet[:2] + struct.pack("!HHHHH", 0x8081, 0, 0, 0, 0)


def asked(queries: Sequence[Query], name: str, rrtype: str) -> bool:
    """Whether a name and type were asked for."""
    return any(query.name == name and query.rrtype == rrtype for query in queries)
