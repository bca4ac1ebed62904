"""The DNSSEC trust anchor: which keys of the root are trusted, and where they are kept (DESIGN section 6).

Kept in ``root.key`` in the state directory, in libunbound's autotrust format, and followed by RFC 5011 (``relay.dns.follow``);
or in a file of the administrator's, which is only read. A key that is waiting for its 30 days, revoked or removed is in the
managed file too, and is not trusted.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dns.dnssec
import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.zonefile
from dns.rdtypes.ANY.DNSKEY import DNSKEY
from dns.rdtypes.ANY.DS import DS

# Both key signing keys of the root, as IANA publishes them (data.iana.org/root-anchors, keys of 2017 and 2024).
BUILT_IN: Final = (
    ". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D",
    ". IN DS 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16",
)
SYSTEM_FILES: Final = (Path("/usr/share/dns/root.key"), Path("/var/lib/unbound/root.key"))
FILE_NAME: Final = "root.key"
MAX_OCTETS: Final = 1 << 20

# ``;;state=N`` behind a key (RFC 5011 section 4.2, autotrust.c): 2 is VALID, 3 is MISSING, which stays trusted.
_STATE: Final = re.compile(r";;state=(\d+)")
_TRUSTED: Final = frozenset({"2", "3"})
_ALL_REVOKED: Final = ";;REVOKED"


class AnchorError(Exception):
    """A trust anchor cannot be read or kept; the message names the file and says what to do."""


@dataclass(frozen=True, slots=True)
class Anchors:
    """Trusted keys.

    :param records: DS and DNSKEY records as master file lines.
    :param source: where they are from, for messages.
    """

    records: tuple[str, ...]
    source: str


def read_anchors(path: Path) -> Anchors:
    """The keys in a file that are trusted: a master file with DS and DNSKEY records, or an autotrust file.

    :raises AnchorError: if it cannot be read, or has no trusted key.
    """
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_OCTETS + 1)
    except OSError as error:
        raise AnchorError(f"trust anchor {path}: cannot be read: {error.strerror}") from None
    if len(octets) > MAX_OCTETS:
        raise AnchorError(
            f"trust anchor {path}: larger than {MAX_OCTETS} octets; name a file with DS or DNSKEY records"
        )
    try:
        records = _trusted(octets.decode("utf-8"))
    except (dns.exception.DNSException, UnicodeDecodeError, ValueError) as error:
        raise AnchorError(
            f"trust anchor {path}: is no master file with DS or DNSKEY records: {_brief(error)}"
        ) from None
    if not records:
        raise AnchorError(
            f"trust anchor {path}: has no DS or DNSKEY record that is trusted (revoked or pending keys are not)"
        )
    return Anchors(records, str(path))


def _trusted(text: str) -> tuple[str, ...]:
    if text.lstrip().startswith(_ALL_REVOKED):
        return ()
    lines = (line for line in text.splitlines() if (state := _STATE.search(line)) is None or state[1] in _TRUSTED)
    rrsets = dns.zonefile.read_rrsets(
        "\n".join(lines), rdclass=None, default_ttl=0, origin=dns.name.root, relativize=False
    )
    return tuple(
        f"{rrset.name} IN {dns.rdatatype.to_text(rrset.rdtype)} {rdata}"
        for rrset in rrsets
        if rrset.rdtype in (dns.rdatatype.DS, dns.rdatatype.DNSKEY)
        for rdata in rrset
    )


def managed_anchor(state_dir: Path, *, system_files: Sequence[Path] = SYSTEM_FILES) -> Path:
    """The managed file, made if it does not exist yet: of the system's root key and what is built in.

    :raises AnchorError: if it cannot be written, or is there and cannot be read.
    """
    path = state_dir / FILE_NAME
    if path.exists():
        read_anchors(path)
    else:
        _write(path, seed(system_files))
    return path


def seed(system_files: Sequence[Path] = SYSTEM_FILES) -> Anchors:
    """The keys to begin with: those of the first file that can be read, and the built-in ones that it lacks.

    A system that was installed before a key was published does not know it, and would be lost when the root changes over.
    """
    for path in system_files:
        with suppress(AnchorError):
            found = read_anchors(path)
            known = _key_tags(found.records)
            missing = tuple(record for record in BUILT_IN if not _key_tags([record]) <= known)
            return Anchors((*found.records, *missing), f"{path} and built-in keys" if missing else str(path))
    return Anchors(BUILT_IN, "built-in keys")


def _key_tags(records: Iterable[str]) -> set[int]:
    """Key tags of records of the root (RFC 4034 appendix B)."""
    tags = set()
    for record in records:
        owner, _, kind, data = record.split(" ", 3)
        rdata = dns.rdata.from_text(dns.rdataclass.IN, kind, data)
        if owner == "." and isinstance(rdata, DS):
            tags.add(rdata.key_tag)
        elif owner == "." and isinstance(rdata, DNSKEY):
            tags.add(int(dns.dnssec.key_id(rdata)))
    return tags


def _write(path: Path, anchors: Anchors) -> None:
    """Write a file whole or not at all: beside its place, synced, renamed, and the directory synced."""
    lines = [f"; DNSSEC trust anchor of dane-relay, begun with {anchors.source}; kept up to date by RFC 5011."]
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join([*lines, *anchors.records]) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)
        raise AnchorError(
            f"trust anchor {path}: cannot be written: {error.strerror}; give {path.parent} to the relay's user, or set "
            "dns.trust_anchor_file"
        ) from None


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
