"""Reading the maps of ``[smtp]``: policy maps with the trust anchor files that their lines name, and maps of routes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from relay.config.errors import ConfigError, ConfigErrors
from relay.policy.policy import MalformedEntry, MapEntry
from relay.policy.table import PolicyTable, PolicyTables, TableProblem, parse_table
from relay.routing.relayhosts import SenderTables, parse_relayhosts
from relay.routing.transport import TransportTables, parse_transport


def map_name(spec: str) -> str:
    """The file of ``texthash:FILE``, ``hash:FILE``, ``lmdb:FILE`` or ``FILE``, as written."""
    kind, colon, name = spec.partition(":")
    return name if colon and kind in {"texthash", "hash", "lmdb"} else spec


def map_path(spec: str, base: Path) -> Path:
    """The file of a policy map, where a relative name starts from ``base``."""
    return base / map_name(spec)


def load_policy_maps(specs: Iterable[str], base: Path) -> PolicyTables:
    """Read and parse policy maps.

    A line that cannot be understood, or whose trust anchor file cannot be used, becomes a malformed entry and a
    problem of its table.

    :param specs: as in ``smtp.tls_policy_maps``; rules and problems name the files as written there.
    :param base: the directory that relative names start from; those of ``tafile`` start from the map's directory.
    :raises ConfigErrors: if a file cannot be read, with every such file.
    """
    return PolicyTables(
        tuple(
            _with_anchors_checked(parse_table(text, name, base=str((base / name).parent.absolute())))
            for name, text in _read(specs, base, "policy")
        )
    )


def load_transport_maps(specs: Iterable[str], base: Path, *, port: int) -> TransportTables:
    """Read and parse transport maps; a line that cannot be understood becomes an entry that defers its mail.

    :param specs: as in ``smtp.transport_maps``; reasons and problems name the files as written there.
    :param base: the directory that relative names start from.
    :param port: the TCP port of next-hops that name none.
    :raises ConfigErrors: if a file cannot be read, with every such file.
    """
    return TransportTables(
        tuple(parse_transport(text, name, port=port) for name, text in _read(specs, base, "transport"))
    )


def load_sender_maps(specs: Iterable[str], base: Path, *, port: int) -> SenderTables:
    """Read and parse the maps of ``smtp.sender_dependent_relayhost_maps``, as ``load_transport_maps`` does.

    :raises ConfigErrors: if a file cannot be read, with every such file.
    """
    return SenderTables(
        tuple(parse_relayhosts(text, name, port=port) for name, text in _read(specs, base, "relayhost"))
    )


def _read(specs: Iterable[str], base: Path, what: str) -> Sequence[tuple[str, str]]:
    """Each file's name as written and its text; octets that are no UTF-8 become surrogates."""
    texts: list[tuple[str, str]] = []
    errors: list[ConfigError] = []
    for spec in specs:
        try:
            text = map_path(spec, base).read_bytes().decode(errors="surrogateescape")
        except OSError as error:
            errors.append(ConfigError(map_name(spec), f"the {what} map cannot be read: {error.strerror}"))
            continue
        texts.append((map_name(spec), text))
    if errors:
        raise ConfigErrors(errors)
    return texts


def _with_anchors_checked(table: PolicyTable) -> PolicyTable:
    """Postfix reads trust anchor files with the policy: what is no trust anchor file makes the line malformed."""
    entries = dict(table.entries)
    problems = list(table.problems)
    for key, entry in table.entries.items():
        fault = _anchor_fault(entry) if isinstance(entry, MapEntry) else ""
        if fault:
            entries[key] = MalformedEntry(key=key, rule=entry.rule, warning=fault)
            problems.append(TableProblem(entry.rule.place, f"{key}: {fault}", is_error=True))
    return replace(table, entries=entries, problems=tuple(problems))


def _anchor_fault(entry: MapEntry) -> str:
    for name in entry.tafiles:
        try:
            count = count_trust_anchors(Path(name).read_bytes())
        except OSError as error:
            return f"error opening trust anchor file: {name}: {error.strerror}"
        except ValueError as error:
            return f"error reading trust anchor file: {name}: {error}"
        if not count:
            return f"error reading trust anchor file: {name}: neither a certificate nor a public key in PEM"
    return ""


_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_PUBLIC_KEY = b"-----BEGIN PUBLIC KEY-----"
_END_PUBLIC_KEY = b"-----END PUBLIC KEY-----"


def count_trust_anchors(pem: bytes) -> int:
    """How many certificates and public keys a PEM file has.

    :raises ValueError: if one of them cannot be read.
    """
    certificates = x509.load_pem_x509_certificates(pem) if _CERTIFICATE in pem else []
    keys = [part.partition(_END_PUBLIC_KEY)[0] for part in pem.split(_PUBLIC_KEY)[1:]]
    for key in keys:
        try:
            load_pem_public_key(_PUBLIC_KEY + key + _END_PUBLIC_KEY)
        except UnsupportedAlgorithm:
            continue  # a key of an algorithm we do not know still is a key
    return len(certificates) + len(keys)
