"""A tree of DNS zones signed in this process, and a name server on loopback that serves all of it.

The server answers for the deepest zone that holds a name, with the proofs of RFC 4035 section 3.1 (NSEC), so that it can
stand behind libunbound as the forwarder: no referrals are needed. It runs in threads of its own and can be stopped and
started again on the same port, made silent, or made to strip signatures as bad forwarders do.
"""

from __future__ import annotations

import socket
import struct
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from types import TracebackType

import dns.dnssec
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataset
import dns.rdatatype
import dns.rrset
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec
from dns.rdtypes.ANY.DNSKEY import DNSKEY
from dns.rdtypes.ANY.RRSIG import RRSIG

from tests.loopback import LoopbackNetwork

_NSEC = dns.rdatatype.NSEC
_DNSSEC = {dns.rdatatype.RRSIG, _NSEC, dns.rdatatype.DNSKEY, dns.rdatatype.DS}
_SPOILT = {dns.rdatatype.A, dns.rdatatype.TLSA}
_NAME_SERVER = "ns.zt."


class Signing(Enum):
    """How a zone and the DS record above it stand to each other."""

    SIGNED = auto()
    UNSIGNED = auto()  # an insecure delegation: no DS record
    WRONG_DS = auto()  # bogus: the parent vouches for a key that the zone does not have
    EXPIRED = auto()  # bogus: the signatures ended last week
    BAD_SIGNATURES = auto()  # bogus: of A and TLSA records the signatures were spoilt
    SERVFAIL = auto()  # delegated, and the name server answers SERVFAIL for all of it


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone: absolute name, and master file lines below SOA, NS and delegations."""

    name: str
    records: Sequence[str] = ()
    signing: Signing = Signing.SIGNED


@dataclass(frozen=True, slots=True)
class Key:
    """A key signing key that signs everything in its zone."""

    private: ec.EllipticCurvePrivateKey
    public: DNSKEY

    @classmethod
    def new(cls) -> Key:
        private = ec.generate_private_key(ec.SECP256R1())
        return cls(private, dns.dnssec.make_dnskey(private.public_key(), "ECDSAP256SHA256", flags=257))

    def delegation_signer(self, zone: str) -> str:
        """Its DS record as a master file line."""
        return f"{zone} 300 IN DS {dns.dnssec.make_ds(zone, self.public, 'SHA256')}"


class Tree:
    """Zones, signed.

    :param address: of the name server that all zones name.
    :param root_keys: sign the root; more than one for rollovers.
    """

    def __init__(self, zones: Sequence[Zone], *, address: str = "127.0.0.1", root_keys: Sequence[Key] = ()) -> None:
        self.root_keys = tuple(root_keys) or (Key.new(),)
        self._address = address
        self._zones: dict[dns.name.Name, _Served] = {}
        self._failing: set[dns.name.Name] = set()
        delegation_signers: dict[str, str] = {}
        for zone in sorted(zones, key=_depth, reverse=True):
            children = [other for other in zones if _parent(other.name, zones) == zone.name]
            made = self._made(zone, children, delegation_signers)
            if zone.signing is Signing.SERVFAIL:
                self._failing.add(dns.name.from_text(zone.name))
            elif zone.signing is not Signing.UNSIGNED:
                keys = self.root_keys if zone.name == "." else (Key.new(),)
                _sign(made, keys, zone.signing)
                vouched = Key.new() if zone.signing is Signing.WRONG_DS else keys[0]
                delegation_signers[zone.name] = vouched.delegation_signer(zone.name)
            self._zones[dns.name.from_text(zone.name)] = _Served(made)

    @property
    def anchors(self) -> tuple[str, ...]:
        """The DS records of the root keys."""
        return tuple(key.delegation_signer(".") for key in self.root_keys)

    def _made(self, zone: Zone, children: Sequence[Zone], delegation_signers: Mapping[str, str]) -> dns.zone.Zone:
        lines = [
            "$TTL 300",
            f"@ IN SOA {_NAME_SERVER} hostmaster.zt. 1 3600 600 86400 60",
            f"@ IN NS {_NAME_SERVER}",
            *(f"{child.name} IN NS {_NAME_SERVER}" for child in children),
            *(delegation_signers[child.name] for child in children if child.name in delegation_signers),
            *([f"{_NAME_SERVER} IN A {self._address}"] if zone.name == "zt." else []),
            *zone.records,
        ]
        return dns.zone.from_text("\n".join(lines) + "\n", origin=zone.name, relativize=False)

    def answer(self, query: dns.message.Message) -> dns.message.Message:
        """What the server of all zones says."""
        response = dns.message.make_response(query, recursion_available=True)
        question = query.question[0]
        at_cut = question.rdtype == dns.rdatatype.DS and question.name != dns.name.root
        origin = self._origin(question.name.parent() if at_cut else question.name)
        if origin in self._failing:
            response.set_rcode(dns.rcode.SERVFAIL)
            return response
        response.flags |= dns.flags.AA
        _Lookup(self._zones[origin], response).run(question.name, question.rdtype)
        return response

    def _origin(self, name: dns.name.Name) -> dns.name.Name:
        while name not in self._zones:
            name = name.parent()
        return name


class _Served:
    """A zone with what its proofs are looked up by."""

    def __init__(self, zone: dns.zone.Zone) -> None:
        assert zone.origin is not None
        self.zone = zone
        self.origin = zone.origin
        self.proving = sorted(owner for owner, node in zone.nodes.items() if node.get_rdataset(zone.rdclass, _NSEC))
        # With the names that exist only because there are names below them.
        self.names = {
            dns.name.Name(owner.labels[start:])
            for owner in zone.nodes
            for start in range(len(owner.labels) - len(self.origin.labels) + 1)
        }


class _Lookup:
    """One answer from one zone."""

    def __init__(self, served: _Served, response: dns.message.Message) -> None:
        self._served = served
        self._zone = served.zone
        self._origin = served.origin
        self._response = response

    def run(self, name: dns.name.Name, rrtype: dns.rdatatype.RdataType) -> None:
        source = name
        if not self._exists(name):
            encloser = name.parent()
            while not self._exists(encloser):
                encloser = encloser.parent()
            source = dns.name.Name((b"*", *encloser.labels))
            if not self._exists(source):
                self._response.set_rcode(dns.rcode.NXDOMAIN)
                self._deny(name, source)
                return
            self._prove(name)
        if self._add(name, source, rrtype):
            return
        if self._add(name, source, dns.rdatatype.CNAME):
            target = self._rdataset(source, dns.rdatatype.CNAME)
            assert target is not None
            if target[0].target.is_subdomain(self._origin):
                self.run(target[0].target, rrtype)
            return
        self._deny(source)

    def _exists(self, name: dns.name.Name) -> bool:
        return name in self._served.names

    def _rdataset(
        self,
        owner: dns.name.Name,
        rrtype: dns.rdatatype.RdataType,
        covers: dns.rdatatype.RdataType = dns.rdatatype.NONE,
    ) -> dns.rdataset.Rdataset | None:
        return self._zone.get_rdataset(owner, rrtype, covers)

    def _add(self, name: dns.name.Name, source: dns.name.Name, rrtype: dns.rdatatype.RdataType) -> bool:
        return self._add_to(self._response.answer, name, source, rrtype)

    def _add_to(
        self,
        section: list[dns.rrset.RRset],
        name: dns.name.Name,
        source: dns.name.Name,
        rrtype: dns.rdatatype.RdataType,
    ) -> bool:
        rdataset = self._rdataset(source, rrtype)
        if rdataset is None:
            return False
        for one in (rdataset, self._rdataset(source, dns.rdatatype.RRSIG, rrtype)):
            if one is not None:
                rrset = dns.rrset.from_rdata_list(name, one.ttl, list(one))
                if rrset not in section:
                    section.append(rrset)
        return True

    def _deny(self, *names: dns.name.Name) -> None:
        self._add_to(self._response.authority, self._origin, self._origin, dns.rdatatype.SOA)
        for name in names:
            self._prove(name)

    def _prove(self, name: dns.name.Name) -> None:
        """The NSEC record that matches or covers a name."""
        owners = self._served.proving
        if owners:
            owner = owners[bisect_right(owners, name) - 1]
            self._add_to(self._response.authority, owner, owner, _NSEC)


class TreeServer:
    """Serves a tree over UDP and TCP.

    It is an authority for all zones at once and validates nothing: a relay that asks it as a resolver has none that does.

    :param address: empty for one of its own, where no client takes the port while the server is stopped.
    :param port: 0 for any; once known it stays the same through stop and start.
    """

    def __init__(self, tree: Tree, *, address: str = "", port: int = 0) -> None:
        self.tree = tree
        self.address = address or LoopbackNetwork().address(1)
        self.port = port
        self.asked: Counter[tuple[str, str]] = Counter()
        self.strips_signatures = False
        self.silent = False
        self.sets_ad = False
        self.spoke = threading.Condition()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        tcp = socket.create_server((self.address, self.port))
        self.port = tcp.getsockname()[1]
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((self.address, self.port))
        self._sockets = [udp, tcp]
        self._threads = [
            threading.Thread(target=self._serve_udp, args=(udp,), name="tree server, UDP"),
            threading.Thread(target=self._serve_tcp, args=(tcp,), name="tree server, TCP"),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        for one in self._sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits in recvfrom or accept
            except OSError:
                pass
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()
        self._sockets, self._threads = [], []

    def wait_until_asked(self, name: str, rrtype: str, times: int = 1) -> None:
        """Return when a question has come so many times."""
        with self.spoke:
            assert self.spoke.wait_for(lambda: self.asked[name, rrtype] >= times, timeout=60)

    def __enter__(self) -> TreeServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _serve_udp(self, udp: socket.socket) -> None:
        while True:
            try:
                wire, peer = udp.recvfrom(65_535)
            except OSError:
                return
            if not wire:
                return
            if (response := self._response(wire, over_tcp=False)) is not None:
                try:
                    udp.sendto(response, peer)
                except OSError:
                    return  # stopped meanwhile

    def _serve_tcp(self, tcp: socket.socket) -> None:
        while True:
            try:
                connection, _ = tcp.accept()
            except OSError:
                return
            connection.settimeout(5)
            with connection, connection.makefile("rwb") as stream:
                try:
                    while length := stream.read(2):
                        response = self._response(stream.read(struct.unpack("!H", length)[0]), over_tcp=True)
                        if response is None:
                            break
                        stream.write(struct.pack("!H", len(response)) + response)
                        stream.flush()
                except OSError:
                    pass  # the client has gone, or says nothing more

    def _response(self, wire: bytes, *, over_tcp: bool) -> bytes | None:
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        question = query.question[0]
        with self.spoke:
            self.asked[question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)] += 1
            self.spoke.notify_all()
        if self.silent:
            return None
        response = self.tree.answer(query)
        if self.strips_signatures or not query.ednsflags & dns.flags.DO:
            for section in (response.answer, response.authority):
                section[:] = [
                    rrset for rrset in section if rrset.rdtype not in _DNSSEC or rrset.rdtype == question.rdtype
                ]
        if self.strips_signatures and question.rdtype in _DNSSEC:
            response.answer.clear()
        if self.sets_ad:
            response.flags |= dns.flags.AD
        whole = response.to_wire(max_size=65_535)
        if over_tcp or len(whole) <= max(512, query.payload):
            return whole
        short = dns.message.make_response(query, recursion_available=True)
        short.flags |= dns.flags.AA | dns.flags.TC
        return short.to_wire()


def _depth(zone: Zone) -> int:
    return 0 if zone.name == "." else zone.name.count(".")


def _parent(name: str, zones: Sequence[Zone]) -> str | None:
    above = [zone.name for zone in zones if zone.name != name and (zone.name == "." or name.endswith("." + zone.name))]
    return max(above, key=len, default=None)


def _sign(zone: dns.zone.Zone, keys: Sequence[Key], signing: Signing) -> None:
    now = datetime.now(UTC)
    end = now - timedelta(days=7) if signing is Signing.EXPIRED else now + timedelta(days=7)
    dns.dnssec.sign_zone(
        zone,
        keys=[(key.private, key.public) for key in keys],
        inception=now - timedelta(days=30),
        expiration=end,
    )
    if signing is Signing.BAD_SIGNATURES:
        for node in zone.nodes.values():
            for rdataset in node.rdatasets:
                if rdataset.rdtype == dns.rdatatype.RRSIG and rdataset.covers in _SPOILT:
                    spoilt = [_spoilt(rdata) for rdata in rdataset]
                    rdataset.clear()
                    for rdata in spoilt:
                        rdataset.add(rdata)


def _spoilt(signature: dns.rdata.Rdata) -> dns.rdata.Rdata:
    assert isinstance(signature, RRSIG)
    return signature.replace(signature=bytes(octet ^ 1 for octet in signature.signature))
