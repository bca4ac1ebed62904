"""Certificates and keys that options name: readable, fitting each other, and valid now."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from relay.config.config import Config


@dataclass(frozen=True, slots=True)
class CertificateNote:
    """Something about a certificate or key.

    :param is_error: whether it cannot be used; else it is a warning.
    """

    option: tuple[str, str]
    message: str
    is_error: bool = True


class _Unreadable(Exception):  # noqa: N818 - it names the state of the file and never leaves this one
    """The file is not what it has to be; the message says why."""


def certificate_notes(config: Config, now: datetime) -> Iterator[CertificateNote]:
    """Look into each certificate and key file; files that are not there are for ``missing_files`` to name.

    :param now: aware; what validity is judged by.
    """
    for name, section in (("smtpd", config.smtpd), ("smtp", config.smtp)):
        cert, key = Path(section.tls_cert_file), Path(section.tls_key_file)
        if section.tls_cert_file and section.tls_key_file and os.path.isfile(cert) and os.path.isfile(key):
            yield from _pair(name, cert, key, now)
    store = Path(config.smtp.tls_CAfile)
    if config.smtp.tls_CAfile and os.path.isfile(store):
        try:
            _certificates(store)
        except _Unreadable as error:
            yield CertificateNote(("smtp", "tls_CAfile"), str(error))


def _pair(section: str, cert_file: Path, key_file: Path, now: datetime) -> Iterator[CertificateNote]:
    cert_option, key_option = (section, "tls_cert_file"), (section, "tls_key_file")
    leaf: list[x509.Certificate] = []
    try:
        leaf = _certificates(cert_file)[:1]
    except _Unreadable as error:
        yield CertificateNote(cert_option, str(error))
    for certificate in leaf:
        if certificate.not_valid_after_utc < now:
            when = f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
            yield CertificateNote(cert_option, f"{cert_file}: the certificate expired on {when}; renew it")
        if certificate.not_valid_before_utc > now:
            when = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
            yield CertificateNote(cert_option, f"{cert_file}: the certificate is not valid before {when}")
    try:
        key = _private_key(key_file)
    except _Unreadable as error:
        yield CertificateNote(key_option, str(error))
        return
    if leaf and _spki(leaf[0]) != _spki(key):
        yield CertificateNote(key_option, f"{key_file}: is not the key of the first certificate in {cert_file}")
    if key_file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        yield CertificateNote(key_option, f"{key_file}: every user can read it; chmod o= it", is_error=False)


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise _Unreadable(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise _Unreadable(f"{path}: holds no certificate in PEM that can be read") from None


def _private_key(path: Path) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise _Unreadable(f"{path}: cannot be read: {error.strerror}") from None
    except TypeError:
        raise _Unreadable(f"{path}: the key is encrypted; the relay needs one without a pass phrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _Unreadable(f"{path}: holds no private key in PEM that can be read") from None


def _spki(holder: x509.Certificate | PrivateKeyTypes) -> bytes:
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
