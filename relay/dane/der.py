"""As much DER as it takes to cut pieces out of certificates and keys exactly as they were sent (X.690, RFC 5280). Pure.

Digests of TLSA records are made over the peer's own octets, so nothing here is decoded and encoded again. The input is
hostile: every length is checked against its container, and whatever does not fit raises ``BadDer``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

SEQUENCE: Final = 0x30
OBJECT_IDENTIFIER: Final = 0x06
OCTET_STRING: Final = 0x04
BIT_STRING: Final = 0x03
_VERSION: Final = 0xA0
_EXTENSIONS: Final = 0xA3
_SIGNATURE: Final = 1
_SUBJECT: Final = 4
_SPKI: Final = 5


class BadDer(ValueError):  # noqa: N818 - it names the fault, not the handling
    """Octets that are not DER, or not the structure that was looked for."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its tag octet, and its octets with and without the header."""

    tag: int
    whole: bytes
    content: bytes


@dataclass(frozen=True, slots=True)
class CertificateParts:
    """Pieces of a certificate as sent.

    :param spki: the SubjectPublicKeyInfo with its header.
    :param algorithms: how it is signed: as what is signed says, and as what is not; RFC 5280 section 4.1.1.2 wants them equal.
    :param extensions: content of ``extnValue`` by the content octets of the extension's OID; the first of each counts.
    """

    issuer: bytes
    subject: bytes
    spki: bytes
    algorithms: tuple[bytes, bytes]
    extensions: dict[bytes, bytes]


def elements(octets: bytes) -> Iterator[Element]:
    """The elements that ``octets`` consist of, one after the other.

    :raises BadDer: at a high tag number, an indefinite length, or one that goes beyond the end.
    """
    at = 0
    while at < len(octets):
        element = _element(octets, at)
        yield element
        at += len(element.whole)


def only(octets: bytes, tag: int) -> bytes:
    """The content of the one element that ``octets`` must consist of.

    :raises BadDer: if there are none or several, or its tag is another.
    """
    found = list(elements(octets))
    if len(found) != 1 or found[0].tag != tag:
        raise BadDer(f"not one element of tag {tag:#04x}")
    return found[0].content


def has_outline(octets: bytes, tags: tuple[int, ...]) -> bool:
    """Whether ``octets`` are one SEQUENCE of elements with just these tags, whatever is inside them."""
    try:
        return tuple(element.tag for element in elements(only(octets, SEQUENCE))) == tags
    except BadDer:
        return False


def certificate_parts(der: bytes) -> CertificateParts:
    """Cut a certificate apart.

    :raises BadDer: if it has not the shape of RFC 5280 section 4.1.
    """
    outer = list(elements(only(der, SEQUENCE)))
    if not outer or outer[0].tag != SEQUENCE:
        raise BadDer("no TBSCertificate")
    fields = list(elements(outer[0].content))
    if fields and fields[0].tag == _VERSION:
        fields.pop(0)
    if len(fields) <= _SPKI or any(field.tag != SEQUENCE for field in fields[1 : _SPKI + 1]):
        raise BadDer("no SubjectPublicKeyInfo")
    return CertificateParts(
        issuer=fields[2].whole,
        subject=fields[_SUBJECT].whole,
        spki=fields[_SPKI].whole,
        algorithms=(fields[_SIGNATURE].whole, outer[1].whole if len(outer) > 1 else b""),
        extensions=_extensions(fields[_SPKI + 1 :]),
    )


def _element(octets: bytes, at: int) -> Element:
    if len(octets) - at < 2:
        raise BadDer("truncated header")
    tag, first = octets[at], octets[at + 1]
    if tag & 0x1F == 0x1F:
        raise BadDer("high tag number")
    start, length = at + 2, first
    if first & 0x80:
        count = first & 0x7F
        if not 1 <= count <= 4 or len(octets) - start < count:
            raise BadDer("bad length")
        length = int.from_bytes(octets[start : start + count], "big")
        start += count
    if len(octets) - start < length:
        raise BadDer("length beyond the end")
    return Element(tag, octets[at : start + length], octets[start : start + length])


def _extensions(fields: list[Element]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for field in fields:
        if field.tag != _EXTENSIONS:
            continue
        for extension in elements(only(field.content, SEQUENCE)):
            parts = list(elements(extension.content)) if extension.tag == SEQUENCE else []
            if len(parts) not in (2, 3) or parts[0].tag != OBJECT_IDENTIFIER or parts[-1].tag != OCTET_STRING:
                raise BadDer("bad extension")
            found.setdefault(parts[0].content, parts[-1].content)
    return found
