"""The CA certificates of the configuration (CAfile, CApath) or of the system, read once."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Final

from OpenSSL.crypto import FILETYPE_ASN1, X509, Error, load_certificate

from relay.tls.pem import CERTIFICATE_LABELS, BadPem, read_blocks

_HASH_LINK: Final = re.compile(r"[0-9a-f]{8}\.[0-9]{1,4}", re.ASCII)


class CaStoreError(ValueError):
    """CAfile or CApath cannot be used; the message names it and says why."""


def read_authorities(cafile: str, capath: str) -> tuple[X509, ...]:
    """Read all CA certificates; revocation lists and other things beside them are ignored.

    :param cafile: PEM file, empty for none.
    :param capath: directory made by ``openssl rehash``, empty for none. With neither, the system's own store is taken,
        which may be missing: then no authority is trusted.
    :raises CaStoreError: if one of them cannot be read or holds no certificate.
    """
    if not cafile and not capath:
        system = ssl.get_default_verify_paths()
        cafile, capath = (system.cafile, "") if system.cafile else ("", system.capath or "")
        if not cafile and (not capath or not any(_hash_links(capath))):
            return ()
    ders: dict[bytes, X509] = {}
    if cafile:
        ders |= _read(cafile, f"tls_CAfile {cafile}")
    if capath:
        links = _hash_links(capath)
        for link in links:
            ders |= _read(str(link), f"tls_CApath {capath}")
        if not links:
            raise CaStoreError(f"tls_CApath {capath}: no certificates with hashed names in it: run openssl rehash")
    return tuple(ders.values())


def _hash_links(capath: str) -> list[Path]:
    try:
        return sorted(entry for entry in Path(capath).iterdir() if _HASH_LINK.fullmatch(entry.name))
    except OSError as error:
        raise CaStoreError(f"tls_CApath {capath}: {error.strerror}") from None


def _read(path: str, what: str) -> dict[bytes, X509]:
    try:
        blocks = read_blocks(path)
    except BadPem as error:
        raise CaStoreError(f"{what}: {error}") from None
    found: dict[bytes, X509] = {}
    for block in blocks:
        if block.label == "TRUSTED CERTIFICATE":
            raise CaStoreError(f"{what}: {path}:{block.line}: a TRUSTED CERTIFICATE; write it as plain CERTIFICATE")
        if block.label in CERTIFICATE_LABELS:
            try:
                found[block.der] = load_certificate(FILETYPE_ASN1, block.der)
            except Error:
                raise CaStoreError(f"{what}: {path}:{block.line}: malformed certificate") from None
    if not found:
        raise CaStoreError(f"{what}: {path}: no certificate in it")
    return found
