"""The lab's zones as signed master files (RFC 4033 to 4035), with what is to be wrong in them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import dns.dnssec
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec
from dns.rdtypes.ANY.DNSKEY import DNSKEY

from relay.lab.destination import LAB
from relay.lab.nameserver import TTL, Fault, Trust, Zone

ALGORITHM = "ECDSAP256SHA256"
_NAME_SERVER = f"ns.{LAB}."
_VOID = f"void.{LAB}."


@dataclass(frozen=True, slots=True)
class SignedTree:
    """Master files ready to be served.

    :param files: by zone name, absolute; one that does not exist makes the server answer SERVFAIL for its zone.
    :param trust_anchor: the DS record of the root, as a file.
    """

    files: Mapping[str, Path]
    trust_anchor: Path


class Signer:
    """Signs zones into one directory.

    :param now: signatures begin a day before, or are a week over where they are to be expired.
    :param void: the address of a name server that does not answer.
    """

    def __init__(self, directory: Path, *, now: datetime, void: str) -> None:
        self._directory = directory
        self._now = now
        self._void = void

    def write(self, zones: Sequence[Zone]) -> SignedTree:
        """Write every zone, each signed by a key of its own, children before their parents."""
        faults = _faults(zones)
        cut = [*zones, *(Zone(apex, Trust.SECURE) for apex in faults)]
        names = {zone.apex for zone in cut}
        files: dict[str, Path] = {}
        signers: dict[str, str] = {}
        for zone in sorted(cut, key=_depth, reverse=True):
            children = [one for one in cut if one.apex != zone.apex and _above(one.apex, names) == zone.apex]
            file = self._directory / f"{zone.apex.rstrip('.') or 'root'}.zone"
            if zone.apex in faults:  # delegated to a server that has it not, or to nobody
                if faults[zone.apex] is Fault.SERVFAIL:
                    files[zone.apex] = file
                signers[zone.apex] = _delegation_signer(zone.apex, _new_key()[1])
                continue
            delegations = [f"{child.apex} IN NS {_server_of(child, faults)}" for child in children]
            delegations += [signers[child.apex] for child in children if child.apex in signers]
            made = self._made(zone, delegations, without=faults)
            if zone.trust is not Trust.INSECURE:
                private, public = _new_key()
                if zone.trust is Trust.SECURE and len(children) == 0:
                    self._write_spoilt(file, self._made(zone, delegations, without=faults), private, public)
                self._sign(made, private, public, expired=zone.trust is Trust.BOGUS)
                vouched = _new_key()[1] if zone.trust is Trust.WRONG_DS else public
                signers[zone.apex] = _delegation_signer(zone.apex, vouched)
            made.to_file(file, relativize=False)
            if file.with_suffix(".zone.bogus").exists():
                made.to_file(file.with_suffix(".zone.good"), relativize=False)
            files[zone.apex] = file
        trust_anchor = self._directory / "root.ds"
        trust_anchor.write_text(signers["."] + "\n")
        return SignedTree(files, trust_anchor)

    def _write_spoilt(
        self, file: Path, made: dns.zone.Zone, private: ec.EllipticCurvePrivateKey, public: DNSKEY
    ) -> None:
        """The zone as it is under attack, beside itself: by the same key, and over."""
        self._sign(made, private, public, expired=True)
        made.to_file(file.with_suffix(".zone.bogus"), relativize=False)

    def _made(self, zone: Zone, delegations: Sequence[str], without: Collection[str]) -> dns.zone.Zone:
        lines = [
            f"$TTL {TTL}",
            f"{zone.apex} IN SOA {_NAME_SERVER} hostmaster.{LAB}. 1 3600 600 86400 {TTL}",
            f"{zone.apex} IN NS {_NAME_SERVER}",
            *delegations,
            *([f"{_VOID} IN A {self._void}"] if zone.apex == f"{LAB}." else []),
            *(
                f"{owner} IN {rrtype} {rdata}"
                for (owner, rrtype), rdatas in zone.records.items()
                if (owner, rrtype) != (".", "NS") and owner not in without
                for rdata in rdatas
            ),
        ]
        return dns.zone.from_text("\n".join(lines) + "\n", origin=zone.apex, relativize=False)

    def _sign(self, made: dns.zone.Zone, private: ec.EllipticCurvePrivateKey, public: DNSKEY, *, expired: bool) -> None:
        end = self._now - timedelta(days=7) if expired else self._now + timedelta(days=60)
        dns.dnssec.sign_zone(made, keys=[(private, public)], inception=self._now - timedelta(days=30), expiration=end)


def _faults(zones: Sequence[Zone]) -> Mapping[str, Fault]:
    """How look-ups of a name fail: it gets a zone of its own, for a server fails by zones."""
    return {owner: fault for zone in zones for (owner, _), fault in zone.faults.items()}


def _server_of(zone: Zone, faults: Mapping[str, Fault]) -> str:
    return _VOID if faults.get(zone.apex) in (Fault.SILENCE, Fault.GARBAGE) else _NAME_SERVER


def _new_key() -> tuple[ec.EllipticCurvePrivateKey, DNSKEY]:
    private = ec.generate_private_key(ec.SECP256R1())
    return private, dns.dnssec.make_dnskey(private.public_key(), ALGORITHM, flags=257)


def _delegation_signer(apex: str, key: DNSKEY) -> str:
    return f"{apex} {TTL} IN DS {dns.dnssec.make_ds(apex, key, 'SHA256')}"


def _depth(zone: Zone) -> int:
    return 0 if zone.apex == "." else zone.apex.count(".")


def _above(apex: str, names: set[str]) -> str:
    """The closest zone above another."""
    parent = apex
    while parent != ".":
        parent = parent.partition(".")[2] or "."
        if parent in names:
            break
    return parent
