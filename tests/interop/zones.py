"""A tree of DNS zones from the root down, signed with ldns-signzone by keys of our own."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from pathlib import Path

from tests.interop import servers

_ALGORITHM = "ECDSAP256SHA256"
_NAME_SERVER = "ns.test."


class Signing(Enum):
    """How a zone and the DS record above it stand to each other."""

    SIGNED = auto()
    UNSIGNED = auto()  # an insecure delegation: no DS record
    WRONG_DS = auto()  # bogus: the parent vouches for a key that the zone does not have
    EXPIRED = auto()  # bogus: the signatures ended last week
    UNLOADABLE = auto()  # delegated, and the name server has no data for it: SERVFAIL


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone to be served.

    :param name: absolute, ``.`` for the root.
    :param records: master file lines below SOA, NS and the delegations; names without a dot at the end are relative.
    """

    name: str
    signing: Signing = Signing.SIGNED
    records: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ZoneTree:
    """Master files ready to be served.

    :param files: by zone name; an unloadable zone's does not exist.
    :param trust_anchor: the DS record of the root, as a file.
    """

    files: Mapping[str, Path]
    trust_anchor: Path


def sign_tree(zones: Sequence[Zone], name_server: str, directory: Path) -> ZoneTree:
    """Write and sign the zones, each with a key of its own; NSEC denial.

    :param name_server: the address of ``ns.test.``, which serves all of them.
    :raises UnavailableError: if the ldns tools are missing.
    """
    files: dict[str, Path] = {}
    delegation_signers: dict[str, str] = {}
    for zone in sorted(zones, key=_depth, reverse=True):
        children = [other for other in zones if _parent(other.name, zones) == zone.name]
        lines = [
            f"$ORIGIN {zone.name}",
            "$TTL 300",
            f"@ IN SOA {_NAME_SERVER} hostmaster.test. 1 3600 600 86400 60",
            f"@ IN NS {_NAME_SERVER}",
            *(f"{child.name} IN NS {_NAME_SERVER}" for child in children),
            *(delegation_signers[child.name] for child in children if child.name in delegation_signers),
            *([f"{_NAME_SERVER} IN A {name_server}"] if zone.name == "test." else []),
            *zone.records,
        ]
        file = directory / f"{zone.name.rstrip('.') or 'root'}.zone"
        file.write_text("\n".join(lines) + "\n")
        match zone.signing:
            case Signing.UNLOADABLE:
                file.unlink()
                files[zone.name] = file
            case Signing.UNSIGNED:
                files[zone.name] = file
            case Signing.SIGNED | Signing.EXPIRED:
                key = _new_key(zone.name, directory)
                files[zone.name] = _sign(file, key, directory, expired=zone.signing is Signing.EXPIRED)
                delegation_signers[zone.name] = _delegation_signer(key, directory)
            case Signing.WRONG_DS:
                files[zone.name] = _sign(file, _new_key(zone.name, directory), directory)
                delegation_signers[zone.name] = _delegation_signer(_new_key(zone.name, directory), directory)
    trust_anchor = directory / "root.ds"
    trust_anchor.write_text(delegation_signers["."] + "\n")
    return ZoneTree(files, trust_anchor)


def _depth(zone: Zone) -> int:
    return 0 if zone.name == "." else zone.name.count(".")


def _parent(name: str, zones: Sequence[Zone]) -> str | None:
    """The closest zone above a name; None for the root."""
    above = [zone.name for zone in zones if zone.name != name and (zone.name == "." or name.endswith("." + zone.name))]
    return max(above, key=len, default=None)


def _new_key(zone: str, directory: Path) -> str:
    return _run("ldns-keygen", "-k", "-r", "/dev/urandom", "-a", _ALGORITHM, zone, directory=directory).strip()


def _delegation_signer(key: str, directory: Path) -> str:
    return _run("ldns-key2ds", "-n", "-2", f"{key}.key", directory=directory).strip()


def _sign(file: Path, key: str, directory: Path, *, expired: bool = False) -> Path:
    now = datetime.now(UTC)
    begin, end = (now - timedelta(days=30), now - timedelta(days=7)) if expired else (now - timedelta(hours=2), None)
    times = ["-i", begin.strftime("%Y%m%d%H%M%S")]
    if end is not None:
        times += ["-e", end.strftime("%Y%m%d%H%M%S")]
    signed = file.with_suffix(".signed")
    _run("ldns-signzone", *times, "-f", signed.name, file.name, key, directory=directory)
    return signed


def _run(name: str, *arguments: str, directory: Path) -> str:
    done = subprocess.run(
        [servers.find(name), *arguments], cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{name} {' '.join(arguments)}: {done.stderr}{done.stdout}"
    return done.stdout
