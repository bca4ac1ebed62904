"""The lab's certificate authorities, and the TLSA records that go with what they issue (RFC 6698 section 2.1).

A root, an intermediate under it, and a second root that nobody configured. Keys are thrown away with the directory.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import assert_never

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
WRONG_NAME = "somewhere-else.test"
_YEAR = timedelta(days=365)


class CertificateKind(Enum):
    """What a lab host presents; the value is the phrase that the lab shows."""

    GOOD = "issued by the lab CA"
    RSA = "issued by the lab CA, RSA key"
    WILDCARD = "issued by the lab CA for *.PARENT"
    EXPIRED = "expired last month"
    NOT_YET_VALID = "valid from next month"
    DOMAIN_NAME = "issued by the lab CA for the domain, not the host"
    PARTIAL_WILDCARD = "issued by the lab CA for m*.PARENT"
    CN_ONLY = "issued by the lab CA, with a common name alone"
    CN_BESIDE = f"issued for {WRONG_NAME}, with the host as common name"
    WRONG_NAME = f"issued for {WRONG_NAME}"
    SELF_SIGNED = "self-signed"
    UNKNOWN_CA = "issued by a CA that nobody configured"
    UNRELATED_CA = "self-signed, with the lab CA's certificate beside it, which signed nothing"


class Signer(Enum):
    """Which certificate of a presented chain a TLSA record is made from."""

    LEAF = "leaf"
    ISSUER = "issuer"
    ROOT = "root"
    STRANGER = "stranger"


@dataclass(frozen=True, slots=True)
class Credential:
    """What one server presents.

    :param chain: the certificates as sent, leaf first.
    :param pem_file: the chain and the leaf's key, as ``ssl.SSLContext.load_cert_chain`` takes them.
    """

    chain: tuple[x509.Certificate, ...]
    pem_file: Path

    @property
    def leaf(self) -> x509.Certificate:
        """The server's own certificate."""
        return self.chain[0]


@dataclass(frozen=True, slots=True)
class _Ca:
    certificate: x509.Certificate
    key: PrivateKey


class Authority:
    """Issues the lab's certificates.

    :param directory: private to this lab; PEM files are written there.
    :param now: the moment that *expired* and *not yet valid* are relative to, aware.
    """

    def __init__(self, directory: Path, now: datetime) -> None:
        self._directory = directory
        self._now = now
        self._root = self._new_ca("dane-relay lab root")
        self._intermediate = self._new_ca("dane-relay lab intermediate", self._root)
        self._unknown = self._new_ca("a root that nobody configured")
        self._stranger = self._sign(ec.generate_private_key(ec.SECP256R1()), "stranger.test", self._intermediate)
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(self._root.certificate.public_bytes(Encoding.PEM))

    @property
    def root(self) -> x509.Certificate:
        """The root that the lab's relays trust."""
        return self._root.certificate

    def issue(self, kind: CertificateKind, name: str, pem_file: Path | None = None) -> Credential:
        """Make a certificate of a kind for a host name, and write the file that a server needs.

        :param pem_file: that file; None for one named after host and kind.
        """
        key: PrivateKey = ec.generate_private_key(ec.SECP256R1())
        if kind is CertificateKind.RSA:
            key = rsa.generate_private_key(65537, 2048)
        chain = self._chain(kind, key, name)
        pem_file = pem_file or self._directory / f"{name}-{kind.name.lower()}.pem"
        pem_file.write_bytes(_pem(key) + b"".join(one.public_bytes(Encoding.PEM) for one in chain))
        return Credential(chain, pem_file)

    def _chain(self, kind: CertificateKind, key: PrivateKey, name: str) -> tuple[x509.Certificate, ...]:
        lab = (self._intermediate.certificate, self._root.certificate)
        match kind:
            case CertificateKind.SELF_SIGNED:
                return (self._sign(key, name, None),)
            case CertificateKind.UNKNOWN_CA:
                return (self._sign(key, name, self._unknown), self._unknown.certificate)
            case CertificateKind.UNRELATED_CA:
                return (self._sign(key, name, None), *lab)
            case CertificateKind.CN_ONLY:
                return (self._sign(key, name, self._intermediate, dns_name=""), *lab)
            case CertificateKind.CN_BESIDE:
                return (self._sign(key, name, self._intermediate, dns_name=WRONG_NAME), *lab)
            case _:
                return (self._sign(key, _issued_for(kind, name), self._intermediate, self._validity(kind)), *lab)

    def _validity(self, kind: CertificateKind) -> tuple[datetime, datetime]:
        match kind:
            case CertificateKind.EXPIRED:
                return self._now - timedelta(days=90), self._now - timedelta(days=30)
            case CertificateKind.NOT_YET_VALID:
                return self._now + timedelta(days=30), self._now + timedelta(days=90)
            case _:
                return self._now - timedelta(days=1), self._now + _YEAR

    def signer(self, credential: Credential, signer: Signer) -> x509.Certificate:
        """The certificate that a TLSA record about ``credential`` is to be made from."""
        match signer:
            case Signer.LEAF:
                return credential.leaf
            case Signer.ISSUER:
                return credential.chain[min(1, len(credential.chain) - 1)]
            case Signer.ROOT:
                return credential.chain[-1]
            case Signer.STRANGER:
                return self._stranger
            case _:
                assert_never(signer)

    def _new_ca(self, name: str, issuer: _Ca | None = None) -> _Ca:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, key, issuer, (self._now - _YEAR, self._now + 10 * _YEAR))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_CA_KEY_USAGE, critical=True)
        return _Ca(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)

    def _sign(
        self,
        key: PrivateKey,
        name: str,
        issuer: _Ca | None,
        validity: tuple[datetime, datetime] | None = None,
        *,
        dns_name: str | None = None,
    ) -> x509.Certificate:
        """A server certificate; its DNS name is its common name unless another is given, and none if that is empty."""
        validity = validity or self._validity(CertificateKind.GOOD)
        builder = _builder(name, key, issuer, validity)
        dns_name = name if dns_name is None else dns_name
        if dns_name:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(dns_name)]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        return builder.sign(issuer.key if issuer else key, hashes.SHA256())


def _issued_for(kind: CertificateKind, name: str) -> str:
    """The DNS name in a certificate of the lab's own CA for a host."""
    parent = name.partition(".")[2]
    match kind:
        case CertificateKind.WILDCARD:
            return f"*.{parent}"
        case CertificateKind.PARTIAL_WILDCARD:
            return f"{name[0]}*.{parent}"
        case CertificateKind.DOMAIN_NAME:
            return parent
        case CertificateKind.WRONG_NAME:
            return WRONG_NAME
        case _:
            return name


_CA_KEY_USAGE = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def tlsa_rdata(usage: int, selector: int, matching: int, certificate: x509.Certificate) -> bytes:
    """The RDATA of the TLSA record that matches a certificate (RFC 6698 section 2.1).

    :raises ValueError: if selector or matching type is unknown; any usage goes, so that odd records can be made.
    """
    if selector == 0:
        selected = certificate.public_bytes(Encoding.DER)
    elif selector == 1:
        selected = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    else:
        raise ValueError(f"no TLSA selector {selector}")
    if matching == 0:
        data = selected
    elif matching == 1:
        data = hashlib.sha256(selected).digest()
    elif matching == 2:
        data = hashlib.sha512(selected).digest()
    else:
        raise ValueError(f"no TLSA matching type {matching}")
    return bytes((usage, selector, matching)) + data


def fingerprint(certificate: x509.Certificate) -> str:
    """The SHA-256 digest of a certificate as Postfix writes it: capitals and colons."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def _builder(
    name: str, key: PrivateKey, issuer: _Ca | None, validity: tuple[datetime, datetime]
) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    issuer_key = (issuer.key if issuer else key).public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
