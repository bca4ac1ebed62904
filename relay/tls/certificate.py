"""Facts about one certificate, from octets that may be anything. Pure.

A certificate of which something cannot be read still gives facts: what could not be read is empty, dates are the epoch.
Such a certificate can match a TLSA record by its octets, but carries no name, is never in date, and if its names cannot
be read it counts as self-issued (the dates of an anchor that is not are not looked at).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, TypeVar

from cryptography import x509
from cryptography.x509.oid import NameOID

from relay.dane.der import OBJECT_IDENTIFIER, SEQUENCE, BadDer, certificate_parts, elements, only
from relay.tls.peer import CertFacts

T = TypeVar("T")

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MAX_SHOWN_NAME: Final = 200
# A host shows the same certificates in each session, and those of a large provider serve thousands of domains. Reading one
# takes a sixth of a millisecond. What hostile ones can make us remember (names, mostly) stays below 20 MB.
MAX_REMEMBERED: Final = 256
MAX_REMEMBERED_OCTETS: Final = 4096
_SUBJECT_ALT_NAME: Final = bytes.fromhex("551d11")
_EXTENDED_KEY_USAGE: Final = bytes.fromhex("551d25")
_DNS_NAME: Final = 0x82
# id-kp-serverAuth and the two "server gated cryptography" OIDs that OpenSSL takes for it (v3_purp.c).
_SERVER_AUTH: Final = frozenset(
    bytes.fromhex(oid) for oid in ("2b06010505070301", "6086480186f8420401", "2b0601040182370a0303")
)


def cert_facts(der: bytes) -> CertFacts:
    """Read one certificate.

    :param der: as the peer sent it; never refused, see above.
    """
    return _remembered(der) if len(der) <= MAX_REMEMBERED_OCTETS else _read(der)


def _read(der: bytes) -> CertFacts:
    try:
        parts = certificate_parts(der)
    except BadDer:
        return _unreadable(der)
    names, readable = _dns_names(parts.extensions)
    loaded = _load(der)
    if loaded is None:
        return _unreadable(der, parts.spki, self_issued=parts.issuer == parts.subject)
    not_before = _or(EPOCH, lambda: loaded.not_valid_before_utc)
    not_after = _or(EPOCH, lambda: loaded.not_valid_after_utc)
    return CertFacts(
        der=der,
        spki=parts.spki,
        subject=_or("", lambda: _shown(loaded.subject.rfc4514_string())),
        issuer=_or("", lambda: _shown(loaded.issuer.rfc4514_string())),
        self_issued=parts.issuer == parts.subject,
        dns_names=names,
        # Behind a SAN extension that cannot be read there may be dNSNames, and then the CN would not count.
        common_name=_or("", lambda: _common_name(loaded.subject)) if readable else "",
        not_before=not_before,
        not_after=not_after,
        server_auth=_server_auth(parts.extensions),
    )


_remembered = lru_cache(maxsize=MAX_REMEMBERED)(_read)


def cut_spki(der: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a certificate as sent; empty if it cannot be found."""
    try:
        return certificate_parts(der).spki
    except BadDer:
        return b""


def issuer_name(der: bytes) -> str:
    """The issuer's common name, for people; empty if it has none or cannot be read."""
    loaded = _load(der)
    return "" if loaded is None else _or("", lambda: _shown(_common_name(loaded.issuer)))


def shown_name(facts: CertFacts) -> str:
    """The subject's common name, or all of the subject, for people: escaped and bounded."""
    return _shown(facts.common_name) or facts.subject


def issuer_line(der: bytes) -> str:
    """The issuer as ``/C=NL/O=Example/CN=Example CA``, the form of Postfix's log; empty if it cannot be read."""
    loaded = _load(der)
    if loaded is None:
        return ""
    return _or("", lambda: _shown("".join(f"/{part.rfc4514_attribute_name}={part.value!s}" for part in loaded.issuer)))


def _unreadable(der: bytes, spki: bytes = b"", *, self_issued: bool = True) -> CertFacts:
    return CertFacts(
        der=der,
        spki=spki,
        subject="",
        issuer="",
        self_issued=self_issued,
        dns_names=(),
        common_name="",
        not_before=EPOCH,
        not_after=EPOCH,
        server_auth=False,
    )


def _load(der: bytes) -> x509.Certificate | None:
    return _or(None, lambda: x509.load_der_x509_certificate(der))


def _or(default: T, read: Callable[[], T]) -> T:
    """What ``read`` gives, ``default`` where the octets are not what they should be."""
    with warnings.catch_warnings():
        # The library warns of odd serial numbers and parameters; a peer must not be able to write to our error output.
        warnings.simplefilter("ignore")
        try:
            return read()
        except Exception:  # hostile octets: whatever the parser raises, this piece is unreadable
            return default


def _dns_names(extensions: dict[bytes, bytes]) -> tuple[tuple[str, ...], bool]:
    """The dNSNames, and whether the extension, if any, could be read."""
    if _SUBJECT_ALT_NAME not in extensions:
        return (), True
    try:
        names = list(elements(only(extensions[_SUBJECT_ALT_NAME], SEQUENCE)))
    except BadDer:
        return (), False
    written = (name.content.decode("ascii", "backslashreplace").lower() for name in names if name.tag == _DNS_NAME)
    return tuple(written), True


def _server_auth(extensions: dict[bytes, bytes]) -> bool:
    if _EXTENDED_KEY_USAGE not in extensions:
        return True
    try:
        purposes = list(elements(only(extensions[_EXTENDED_KEY_USAGE], SEQUENCE)))
    except BadDer:
        return False
    return any(purpose.tag == OBJECT_IDENTIFIER and purpose.content in _SERVER_AUTH for purpose in purposes)


def _common_name(subject: x509.Name) -> str:
    values = [attribute.value for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return values[-1] if values and isinstance(values[-1], str) else ""


def _shown(text: str) -> str:
    # Of other scripts only what can be seen: no control characters, no marks that turn the direction of a line around.
    start = text[: MAX_SHOWN_NAME + 1]
    clean = "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in start)
    return clean if len(clean) <= MAX_SHOWN_NAME else clean[: MAX_SHOWN_NAME - 3] + "..."
