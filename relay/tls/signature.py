"""Signatures on certificates: whether a bare key made one, and whether the algorithms of a path are worth anything. Pure."""

from __future__ import annotations

import warnings
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from relay.dane.der import certificate_parts
from relay.tls.certificate import cut_spki
from relay.tls.peer import ChainFailed

MIN_RSA_BITS: Final = 1024
MIN_EC_BITS: Final = 160
# Codes and texts of OpenSSL (x509_vfy.h, X509_verify_cert_error_string) at security level 1, Postfix's for peers that
# must match: 80 bits, which SHA-1 no longer has.
_EE_KEY_TOO_SMALL: Final = (66, "EE certificate key too weak")
_CA_KEY_TOO_SMALL: Final = (67, "CA certificate key too weak")
_CA_MD_TOO_WEAK: Final = (68, "CA signature digest algorithm too weak")
_WEAK_DIGESTS: Final = (hashes.MD5, hashes.SHA1)


def signed_by(der: bytes, spki: bytes) -> bool:
    """Whether the key ``spki`` (SubjectPublicKeyInfo in DER) signed the certificate ``der``; names are not looked at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd serial numbers and the like, not worth our error output
        try:
            signed_as, algorithm = certificate_parts(der).algorithms
            if signed_as != algorithm:
                return False
            _verify(x509.load_der_x509_certificate(der), spki)
        except (InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion, ValueError, TypeError):
            return False
    return True


def weakness(path: tuple[bytes, ...]) -> ChainFailed | None:
    """What is too weak in a path, if anything; the anchor's own signature does not matter, its key does.

    :param path: DER certificates from the leaf to the anchor.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for depth, der in enumerate(path):
            if _is_small_key(der):
                code, text = _CA_KEY_TOO_SMALL if depth else _EE_KEY_TOO_SMALL
                return ChainFailed(code, depth, text)
            if depth < len(path) - 1 and _is_weakly_signed(der):
                return ChainFailed(_CA_MD_TOO_WEAK[0], depth, _CA_MD_TOO_WEAK[1])
    return None


def weak_key(spki: bytes) -> ChainFailed | None:
    """Why a leaf's key is too weak even where nothing but the key counts (DANE-EE), None if it is not.

    :param spki: as sent. A key that we cannot read is too weak: OpenSSL's check_key_level (x509_vfy.c) says so too.
    """
    failed = ChainFailed(_EE_KEY_TOO_SMALL[0], 0, _EE_KEY_TOO_SMALL[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return failed if _is_small(load_der_public_key(spki)) else None
        except (UnsupportedAlgorithm, ValueError, TypeError):
            return failed


def _verify(certificate: x509.Certificate, spki: bytes) -> None:
    key = load_der_public_key(spki)
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    parameters, digest = certificate.signature_algorithm_parameters, certificate.signature_hash_algorithm
    match key, parameters:
        case rsa.RSAPublicKey(), padding.PSS() | padding.PKCS1v15() if digest is not None:
            key.verify(signature, signed, parameters, digest)
        case ec.EllipticCurvePublicKey(), ec.ECDSA():
            key.verify(signature, signed, parameters)
        case dsa.DSAPublicKey(), _ if digest is not None:
            key.verify(signature, signed, digest)
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey(), _:
            key.verify(signature, signed)
        case _:
            raise InvalidSignature


def _is_weakly_signed(der: bytes) -> bool:
    try:
        return isinstance(x509.load_der_x509_certificate(der).signature_hash_algorithm, _WEAK_DIGESTS)
    except (UnsupportedAlgorithm, x509.InvalidVersion, ValueError):
        # OpenSSL built this path, so it knows better; a signature by what we do not even know proves nothing.
        return True


def _is_small_key(der: bytes) -> bool:
    try:
        return _is_small(load_der_public_key(cut_spki(der)))
    except (UnsupportedAlgorithm, ValueError, TypeError):
        return False


def _is_small(key: object) -> bool:
    """Whether a key has less than 80 bits of security."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.key_size < MIN_EC_BITS
    return isinstance(key, rsa.RSAPublicKey | dsa.DSAPublicKey) and key.key_size < MIN_RSA_BITS
