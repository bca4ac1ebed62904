"""Odd certificates for tests: authorities, intermediates and leaves in which one thing at a time is wrong."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from relay.dane.tlsa import MatchingType, Selector, Tlsa, Usage

NOW: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY: Final = timedelta(days=1)
VALID: Final = (NOW - 30 * DAY, NOW + 30 * DAY)
EXPIRED: Final = (NOW - 30 * DAY, NOW - DAY)
FUTURE: Final = (NOW + DAY, NOW + 30 * DAY)
SERVER_AUTH: Final = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT_AUTH: Final = ExtendedKeyUsageOID.CLIENT_AUTH

Digest = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def ec_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve or ec.SECP256R1())


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@dataclass(frozen=True)
class Cert:
    """A certificate with the key that goes with it."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def spki(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def spki_pem(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def issue(
        self,
        cn: str = "",
        *,
        dns: Sequence[str] = (),
        dates: tuple[datetime, datetime] = VALID,
        eku: Sequence[ObjectIdentifier] = (),
        ca: bool | None = None,
        key: PrivateKey | None = None,
        digest: Digest | None = None,
        extensions: Sequence[x509.ExtensionType] = (),
    ) -> Cert:
        """A certificate signed by this one; see ``make``."""
        return make(
            cn, issuer=self, dns=dns, dates=dates, eku=eku, ca=ca, key=key, digest=digest, extensions=extensions
        )

    def tlsa(self, usage: int, selector: int, matching: int) -> Tlsa:
        """The record that describes this certificate."""
        selected = self.spki if selector else self.der
        digest = {0: lambda: selected, 1: hashlib.sha256(selected).digest, 2: hashlib.sha512(selected).digest}
        return Tlsa(Usage(usage), Selector(selector), MatchingType(matching), digest[matching]())

    def write(self, directory: Path, *chain: Cert) -> tuple[str, str]:
        """Paths of a PEM file with this certificate and ``chain``, and of one with its key."""
        cert_file, key_file = directory / "cert.pem", directory / "key.pem"
        cert_file.write_bytes(b"".join(each.pem for each in (self, *chain)))
        key_file.write_bytes(self.key_pem)
        return str(cert_file), str(key_file)


def make(
    cn: str = "",
    *,
    issuer: Cert | None = None,
    dns: Sequence[str] = (),
    dates: tuple[datetime, datetime] = VALID,
    eku: Sequence[ObjectIdentifier] = (),
    ca: bool | None = None,
    key: PrivateKey | None = None,
    digest: Digest | None = None,
    extensions: Sequence[x509.ExtensionType] = (),
    critical: Sequence[x509.ExtensionType] = (),
    subject: x509.Name | None = None,
    serial: int | None = None,
) -> Cert:
    """Build a certificate.

    :param issuer: who signs; without one it is self-signed.
    :param ca: the bit of the basic constraints; without it the extension is missing.
    :param critical: more extensions, marked critical.
    :param subject: in place of the one that ``cn`` makes.
    :param serial: given, the certificate has the same octets each time that it is made.
    """
    key = key or ec_key()
    if subject is None:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)] if cn else [])
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number() if serial is None else serial)
        .not_valid_before(dates[0])
        .not_valid_after(dates[1])
    )
    wanted: list[x509.ExtensionType] = [*extensions, *critical]
    if dns:
        wanted.append(x509.SubjectAlternativeName([x509.DNSName(name) for name in dns]))
    if eku:
        wanted.append(x509.ExtendedKeyUsage(list(eku)))
    if ca is not None:
        wanted.append(x509.BasicConstraints(ca=ca, path_length=None))
    for extension in wanted:
        is_critical = extension in critical or isinstance(extension, x509.BasicConstraints)
        builder = builder.add_extension(extension, critical=is_critical)
    by = None if isinstance(signer, ed25519.Ed25519PrivateKey) else (digest or hashes.SHA256())
    repeatable = serial is not None and isinstance(signer, ec.EllipticCurvePrivateKey)
    return Cert(builder.sign(signer, by, ecdsa_deterministic=True if repeatable else None), key)


def authority(cn: str = "Root", *, dates: tuple[datetime, datetime] = VALID, key: PrivateKey | None = None) -> Cert:
    """A self-signed CA."""
    return make(cn, ca=True, dates=dates, key=key)


def encrypted_key_pem(cert: Cert) -> bytes:
    """A certificate's key behind a password."""
    return cert.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


def pem_of(der: bytes) -> bytes:
    """A certificate's PEM form."""
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


def small_rsa_key() -> rsa.RSAPrivateKey:
    """A key of 768 bits, which the library loads but no longer makes."""
    p = 38806496650680609582001114753583741810926680864660976173867318512286378199337902922779257410122844363146362910002949
    q = 34440234231002908297021920969979134265677359894351276547990429595458041615795247292689789308464056869851773618126827
    public = rsa.RSAPublicNumbers(65537, p * q)
    d = rsa.rsa_recover_private_exponent(65537, p, q)
    numbers = rsa.RSAPrivateNumbers(
        p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q), public
    )
    return numbers.private_key()


def signed_with_sha1(cert: Cert, issuer: Cert) -> bytes:
    """A certificate of an RSA issuer, signed again by it with SHA-1, in DER; the library no longer makes such."""
    assert isinstance(issuer.key, rsa.RSAPrivateKey)
    with_sha256, with_sha1 = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
    signed = cert.certificate.tbs_certificate_bytes.replace(with_sha256, with_sha1)
    signature = issuer.key.sign(signed, padding.PKCS1v15(), hashes.SHA1())
    der = cert.der.replace(with_sha256, with_sha1)
    return der[: -len(signature)] + signature
