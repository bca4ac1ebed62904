"""Reading the maps that options name: policy maps with the trust anchor files of their lines, maps of routes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from relay.config.errors import ConfigError, ConfigErrors
from relay.maps.build import BadNotation, MapSpec, build_table
from relay.maps.table import KeyReader, LookupTable, fold
from relay.policy.notation import parse_fingerprint
from relay.policy.table import PolicyTables, policy_table
from relay.policy.table import read_key as read_policy_key
from relay.routing.relayhosts import SenderTables, relayhost_table
from relay.routing.relayhosts import read_key as read_sender_key
from relay.routing.transport import TransportTables, transport_table
from relay.routing.transport import read_key as read_transport_key


@dataclass(frozen=True, slots=True)
class LoadedMap:
    """A map as it was read.

    :param text: the file's content; empty where there is no file.
    :param directory: that of the file, or where relative names start from.
    """

    spec: MapSpec
    table: LookupTable
    text: str
    directory: Path


def load_maps(specs: Iterable[str], base: Path, *, what: str, read_key: KeyReader = fold) -> tuple[LoadedMap, ...]:
    """Read the maps of an option, of every type; reasons and problems name the files as written.

    :param specs: as in the option.
    :param base: the directory that relative names start from.
    :param what: what the maps are for, for errors: ``policy``, ``transport``.
    :param read_key: how keys are normalised.
    :raises ConfigErrors: if a file cannot be read, or what stands in place of one; with every such map.
    """
    loaded: list[LoadedMap] = []
    errors: list[ConfigError] = []
    for written in specs:
        try:
            spec = MapSpec.parse(written)
            path = base / spec.file
            text = path.read_bytes().decode(errors="surrogateescape") if spec.file else ""
            table = build_table(spec, text, read_key=read_key)
        except OSError as error:
            errors.append(ConfigError(map_name(written), f"the {what} map cannot be read: {error.strerror}"))
        except BadNotation as error:
            errors.append(ConfigError(written, f"the {what} map cannot be read: {error}"))
        else:
            loaded.append(LoadedMap(spec, table, text, path.parent if spec.file else base))
    if errors:
        raise ConfigErrors(errors)
    return tuple(loaded)


def map_name(written: str) -> str:
    """The file of a map as written, or what its rules call it."""
    return MapSpec.parse(written).name


def map_path(written: str, base: Path) -> Path | None:
    """The file of a map, where a relative name starts from ``base``; None if it has none."""
    spec = MapSpec.parse(written)
    return base / spec.file if spec.file else None


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
            policy_table(each.table, base=str(each.directory.absolute()), anchor_fault=_anchor_fault)
            for each in load_maps(specs, base, what="policy", read_key=read_policy_key)
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
        tuple(
            transport_table(each.table, port=port)
            for each in load_maps(specs, base, what="transport", read_key=read_transport_key)
        )
    )


def load_sender_maps(specs: Iterable[str], base: Path, *, port: int) -> SenderTables:
    """Read and parse the maps of ``smtp.sender_dependent_relayhost_maps``, as ``load_transport_maps`` does.

    :raises ConfigErrors: if a file cannot be read, with every such file.
    """
    return SenderTables(
        tuple(
            relayhost_table(each.table, port=port)
            for each in load_maps(specs, base, what="relayhost", read_key=read_sender_key)
        )
    )


def load_login_maps(specs: Iterable[str], base: Path) -> tuple[LookupTable, ...]:
    """Read the maps of ``smtpd.sender_login_maps``, whose keys are sender addresses or ``@domain``.

    :raises ConfigErrors: if a file cannot be read, with every such file.
    """
    return tuple(each.table for each in load_maps(specs, base, what="sender login", read_key=read_sender_key))


def load_clientcert_maps(specs: Iterable[str], base: Path) -> tuple[LookupTable, ...]:
    """Read the maps of ``smtpd.relay_clientcerts``, whose keys are SHA-256 fingerprints.

    :raises ConfigErrors: if a file cannot be read, with every such file.
    """
    return tuple(each.table for each in load_maps(specs, base, what="client certificate", read_key=_read_fingerprint))


def _read_fingerprint(written: str) -> tuple[str, str]:
    """Lower case with colons, however it was written; look-ups ask for SHA-256 only."""
    try:
        digits = parse_fingerprint(written)
    except ValueError as error:
        return written.lower(), str(error)
    why = "" if len(digits) == _SHA256_DIGITS else "no SHA-256 fingerprint, which has 32 pairs of digits"
    return bytes.fromhex(digits).hex(":"), why


def _anchor_fault(name: str) -> str:
    """Postfix reads trust anchor files with the policy: what is no trust anchor file makes the line malformed."""
    try:
        count = count_trust_anchors(Path(name).read_bytes())
    except OSError as error:
        return f"error opening trust anchor file: {name}: {error.strerror}"
    except ValueError as error:
        return f"error reading trust anchor file: {name}: {error}"
    if not count:
        return f"error reading trust anchor file: {name}: neither a certificate nor a public key in PEM"
    return ""


_SHA256_DIGITS = 64
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
