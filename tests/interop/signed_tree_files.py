"""The signed tree as master files: keys, DS records, signatures by other people's signers, and the damage done after.

Damage is done with dnspython to what the signers wrote; signatures that are expired, not yet valid or by a foreign key are
true signatures of that kind, taken from a second signing.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, assert_never

import dns.name
import dns.node
import dns.rdata
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.zone
from dns.rdtypes.ANY.RRSIG import RRSIG

from tests.interop import servers
from tests.interop.signed_tree import Damage, Denial, Security, State, Tree, Zone
from tests.interop.signed_tree_zones import NAME_SERVERS, server_of

_UNKNOWN_ALGORITHM: Final = 200
_UNKNOWN_DIGEST: Final = 200
_SIGNED: Final = (
    State.SIGNED,
    State.LYING,
    State.ISLAND,
    State.UNKNOWN_ALGORITHM,
    State.UNKNOWN_DIGEST,
    State.EXPIRED,
    State.NOT_YET,
    State.WRONG_DS,
    State.NO_SIGNATURES,
    State.TAMPERED,
)


@dataclass(frozen=True, slots=True)
class Period:
    """From when to when signatures are valid."""

    begin: datetime
    end: datetime

    @classmethod
    def around(cls, state: State | Damage, now: datetime) -> Period:
        """The period that this state or damage has."""
        match state:
            case State.EXPIRED | Damage.EXPIRED:
                return cls(now - timedelta(days=30), now - timedelta(days=7))
            case State.NOT_YET | Damage.NOT_YET:
                return cls(now + timedelta(days=7), now + timedelta(days=30))
            case _:
                return cls(now - timedelta(days=1), now + timedelta(days=14))


class Signers:
    """Writes and signs the zones of a tree.

    :param directory: gets the keys and the master files.
    """

    def __init__(self, tree: Tree, directory: Path, *, now: datetime | None = None) -> None:
        self._tree = tree
        self._directory = directory
        self._now = now or datetime.now(UTC)
        self._keys: dict[str, str] = {}
        self._foreign: dict[str, str] = {}

    def write(self) -> tuple[Mapping[str, Path], Path]:
        """All master files by zone (absolute names, a dot at the end), and the file with the root's DS record.

        :raises UnavailableError: if a tool is missing.
        """
        zones = self._tree.zones.values()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            keyed = [zone for zone in zones if zone.state in _SIGNED or zone.state is State.STRIPPED]
            strangers = [zone for zone in keyed if zone.damages or zone.state is State.WRONG_DS]
            keys = pool.map(self._new_key, keyed)
            foreign = pool.map(self._new_key, strangers)
            self._keys = {zone.name: key for zone, key in zip(keyed, keys, strict=True)}
            self._foreign = {zone.name: key for zone, key in zip(strangers, foreign, strict=True)}
            files = dict(zip((f"{zone.name}." for zone in zones), pool.map(self._write, zones), strict=True))
        anchor = self._directory / "root.ds"
        anchor.write_text(self._delegation_signer(self._tree.zones[""]) + "\n")
        return files, anchor

    def _write(self, zone: Zone) -> Path:
        stem = zone.name.replace(".", "-") or "root"
        file = self._directory / f"{stem}.zone"
        if zone.state.security is Security.UNREACHABLE:
            return file  # and there is none
        file.write_text(self._text(zone))
        if zone.state not in _SIGNED:
            return file
        signed = self._sign(zone, file, self._keys[zone.name], Period.around(zone.state, self._now))
        if zone.damages or zone.state in (State.LYING, State.NO_SIGNATURES, State.TAMPERED):
            content = _read(signed, zone)
            self._damage(zone, file, content)
            content.to_file(str(signed), relativize=False)
        return signed

    def _text(self, zone: Zone) -> str:
        """The zone before it is signed."""
        server = server_of(zone)
        lines = [
            "$TTL 3600",
            f"{zone.name}. IN SOA {server}. hostmaster.infra. 1 3600 600 86400 900",
            f"{zone.name}. IN NS {server}.",
        ]
        for child in self._tree.children(zone):
            lines.append(f"{child.name}. IN NS {server_of(child)}.")
            if signer := self._delegation_signer(child):
                lines.append(signer)
        if not zone.name:
            lines += [f"{server}. IN A {NAME_SERVERS[server]}" for server in ("root.infra", "top.infra")]
        for owner, rrsets in zone.records.items():
            lines += [f"{owner}. IN {rrtype} {rdata}" for rrtype, texts in rrsets.items() for rdata in texts]
        return "\n".join(lines) + "\n"

    def _delegation_signer(self, zone: Zone) -> str:
        """The DS record of a zone in the zone above, or nothing."""
        if zone.name not in self._keys or zone.state is State.ISLAND:
            return ""
        key = (self._foreign if zone.state is State.WRONG_DS else self._keys)[zone.name]
        record = _run("ldns-key2ds", "-n", "-2", f"{key}.key", directory=self._directory).strip()
        owner, ttl, _, _, tag, algorithm, digest_type, digest = record.split()
        if zone.state is State.UNKNOWN_ALGORITHM:
            algorithm = str(_UNKNOWN_ALGORITHM)
        if zone.state is State.UNKNOWN_DIGEST:
            digest_type = str(_UNKNOWN_DIGEST)
        return f"{owner} {ttl} IN DS {tag} {algorithm} {digest_type} {digest}"

    def _new_key(self, zone: Zone) -> str:
        size = ("-b", "2048") if zone.algorithm.startswith("RSA") else ()
        words = ("-k", *size, "-r", "/dev/urandom", "-a", zone.algorithm, f"{zone.name}.")
        return _run("ldns-keygen", *words, directory=self._directory).strip()

    def _sign(self, zone: Zone, file: Path, key: str, period: Period) -> Path:
        signed = file.with_suffix(f".{key.rpartition('+')[2]}.{period.end:%j}")
        begin, end = (f"{when:%Y%m%d%H%M%S}" for when in (period.begin, period.end))
        hashed = zone.denial is not Denial.NSEC
        if zone.signer == "ldns-signzone":
            words = ["-i", begin, "-e", end, "-o", f"{zone.name}.", "-f", signed.name]
            words += ["-n", "-t", str(zone.iterations), "-s", "5a17"] if hashed else []
            words += ["-p"] if zone.denial is Denial.OPT_OUT else []
        else:
            with_key = file.with_suffix(f".{key.rpartition('+')[2]}.keyed")
            with_key.write_text(file.read_text() + f"$INCLUDE {key}.key\n")
            file = with_key
            words = ["-z", "-P", "-q", "-s", begin, "-e", end, "-o", f"{zone.name}.", "-f", signed.name]
            words += ["-3", "5a17", "-H", str(zone.iterations)] if hashed else []
            words += ["-A"] if zone.denial is Denial.OPT_OUT else []
        _run(zone.signer, *words, file.name, key, directory=self._directory)
        return signed

    def _damage(self, zone: Zone, file: Path, content: dns.zone.Zone) -> None:
        """Do to a signed zone what its state and damages say."""
        match zone.state:
            case State.NO_SIGNATURES:
                _each_signature(content, lambda _: None)
            case State.TAMPERED:
                _each_signature(content, lambda one: one if one.type_covered == dns.rdatatype.DNSKEY else _spoilt(one))
            case State.LYING:
                denials = (dns.rdatatype.NSEC, dns.rdatatype.NSEC3)
                _each_signature(content, lambda one: _spoilt(one) if one.type_covered in denials else one)
            case _:
                pass
        donors: dict[Damage, dns.zone.Zone] = {}
        for (owner, rrtype), damage in zone.damages.items():
            node = content.get_node(dns.name.from_text(owner))
            assert node is not None, f"{owner} is not in the zone"
            kind = dns.rdatatype.from_text(rrtype)
            signatures = node.find_rdataset(dns.rdataclass.IN, dns.rdatatype.RRSIG, kind)
            match damage:
                case Damage.MISSING:
                    node.delete_rdataset(dns.rdataclass.IN, dns.rdatatype.RRSIG, kind)
                case Damage.TAMPERED:
                    _replace(node, signatures, [_spoilt(one) for one in _signatures(signatures)])
                case Damage.ALTERED:
                    other = dns.rdata.from_text("IN", rrtype, _other(zone, owner, rrtype))
                    _replace(node, node.find_rdataset(dns.rdataclass.IN, kind), [other])
                case Damage.EXPIRED | Damage.NOT_YET | Damage.FOREIGN_KEY:
                    if damage not in donors:
                        key = (self._foreign if damage is Damage.FOREIGN_KEY else self._keys)[zone.name]
                        donors[damage] = _read(self._sign(zone, file, key, Period.around(damage, self._now)), zone)
                    donor = donors[damage].find_rdataset(f"{owner}.", dns.rdatatype.RRSIG, kind)
                    _replace(node, signatures, _signatures(donor))
                case _:
                    assert_never(damage)


def _other(zone: Zone, owner: str, rrtype: str) -> str:
    """RDATA of the same type that is not the zone's."""
    other = {
        "A": "203.0.113.99",
        "MX": f"5 host.altered.{zone.name}.",
        "TLSA": f"3 1 1 {'00' * 32}",
        "CNAME": f"host.altered.{zone.name}.",
    }[rrtype]
    assert other not in zone.records[owner][rrtype]
    return other


def _read(file: Path, zone: Zone) -> dns.zone.Zone:
    return dns.zone.from_file(str(file), origin=f"{zone.name}.", relativize=False, check_origin=False)


def _signatures(rdataset: dns.rdataset.Rdataset) -> list[RRSIG]:
    return [one for one in rdataset if isinstance(one, RRSIG)]


def _replace(node: dns.node.Node, old: dns.rdataset.Rdataset, records: Sequence[dns.rdata.Rdata]) -> None:
    """Put other records in the place of an RRset or its signatures; none removes it."""
    node.delete_rdataset(old.rdclass, old.rdtype, old.covers)
    if records:
        node.replace_rdataset(dns.rdataset.from_rdata(old.ttl, *records))


def _each_signature(content: dns.zone.Zone, change: Callable[[RRSIG], RRSIG | None]) -> None:
    """Replace every signature of a zone by what ``change`` makes of it; None removes it."""
    for node in content.nodes.values():
        for rdataset in [one for one in node.rdatasets if one.rdtype == dns.rdatatype.RRSIG]:
            changed = [change(one) for one in _signatures(rdataset)]
            _replace(node, rdataset, [one for one in changed if one is not None])


def _spoilt(record: RRSIG) -> RRSIG:
    """The signature with its last bit turned over."""
    spoilt = record.replace(signature=record.signature[:-1] + bytes([record.signature[-1] ^ 1]))
    assert isinstance(spoilt, RRSIG)
    return spoilt


def _run(name: str, *arguments: str, directory: Path) -> str:
    done = subprocess.run(
        [servers.find(name), *arguments], cwd=directory, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{name} {' '.join(arguments)}: {done.stderr}{done.stdout}"
    return done.stdout
