"""Trust anchor files (``tafile=``): PEM certificates and public keys that replace the CA store (postfix tls_dane.c)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from relay.tls.pem import CERTIFICATE_LABELS, PUBLIC_KEY_LABEL, BadPem, Block, read_blocks


@dataclass(frozen=True, slots=True)
class TrustAnchors:
    """What a file holds: certificates and SubjectPublicKeyInfo structures, in DER; at least one of them."""

    certificates: tuple[bytes, ...]
    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class UnreadableAnchors:
    """A file that gives no anchors; ``reason`` names it and says why, beginning as Postfix does."""

    reason: str


def read_trust_anchors(path: str) -> TrustAnchors | UnreadableAnchors:
    """Read one file.

    :param path: of the file; anything but certificates and public keys in it makes it unreadable, so that nobody takes
        a private key or a revocation list for an anchor.
    """
    try:
        blocks = read_blocks(path)
        for block in blocks:
            _check(block, path)
    except BadPem as error:
        return UnreadableAnchors(f"error opening trust anchor file: {error}")
    if not blocks:
        return UnreadableAnchors(f"error opening trust anchor file: {path}: no certificate and no public key in it")
    return TrustAnchors(
        certificates=tuple(dict.fromkeys(block.der for block in blocks if block.label in CERTIFICATE_LABELS)),
        keys=tuple(dict.fromkeys(block.der for block in blocks if block.label == PUBLIC_KEY_LABEL)),
    )


def _check(block: Block, path: str) -> None:
    """Refuse what is neither certificate nor key, and what does not parse as such."""
    try:
        if block.label in CERTIFICATE_LABELS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of odd serial numbers: it is the administrator's choice
                x509.load_der_x509_certificate(block.der)
        elif block.label == PUBLIC_KEY_LABEL:
            load_der_public_key(block.der)
        else:
            raise BadPem(f"{path}:{block.line}: unexpected PEM type: {block.label}")
    except UnsupportedAlgorithm:
        pass  # a key of an algorithm that we do not know can still be the leaf's
    except BadPem:
        raise
    except (ValueError, x509.InvalidVersion) as error:
        raise BadPem(f"{path}:{block.line}: malformed {block.label.lower()}: {error}") from None
