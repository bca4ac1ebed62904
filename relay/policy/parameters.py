"""Postfix's notation for TLS protocols and ciphers, read into what an ``SSLContext`` takes (postfix tls_misc.c). Pure."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

_SEPARATORS: Final = re.compile(r"[\s,:]+")
_EXCLUSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+=.-]*", re.ASCII)
_STRONG_ONLY: Final = "!SEED:!IDEA:!3DES:!RC2:!RC4:!RC5:!kDH:!kECDH:!aDSS:!MD5:@STRENGTH"
_MEDIUM: Final = f"aNULL:-aNULL:HIGH:MEDIUM:{_STRONG_ONLY}"
_GRADES: Final = {
    "high": f"aNULL:-aNULL:HIGH:{_STRONG_ONLY}",
    "medium": _MEDIUM,
    "low": _MEDIUM,  # ciphers of these two grades are gone from OpenSSL; Postfix keeps the words
    "export": _MEDIUM,
    "null": "eNULL:!aNULL",
}


class InvalidTlsParameter(ValueError):  # noqa: N818 - it names the fault, not the handling
    """A protocol list, cipher grade or exclusion that cannot be used; the message is Postfix's."""


class TlsVersion(IntEnum):
    """Protocol versions that a session may use, numbered as on the wire and as in ``ssl.TLSVersion``."""

    TLS1 = 0x0301
    TLS1_1 = 0x0302
    TLS1_2 = 0x0303
    TLS1_3 = 0x0304


_SSL2: Final = 0x0002
_SSL3: Final = 0x0300
_NAMES: Final = {
    "sslv2": _SSL2,
    "sslv3": _SSL3,
    "tlsv1": TlsVersion.TLS1,
    "tlsv1.1": TlsVersion.TLS1_1,
    "tlsv1.2": TlsVersion.TLS1_2,
    "tlsv1.3": TlsVersion.TLS1_3,
}


def enabled_versions(text: str) -> tuple[TlsVersion, ...]:
    """Read a protocol list.

    :param text: ``>=TLSv1.2``, ``<=0x0304``, ``!TLSv1``, ``TLSv1.2`` in any mix, separated by spaces, commas or colons;
        bounds may be hexadecimal; where versions are named without ``!``, the others are off.
    :returns: the versions left, lowest first; SSL versions can be named but are never among them.
    :raises InvalidTlsParameter: if an item is unknown or no version is left.
    """
    floor, ceiling = 0, 0xFFFF
    included: set[int] = set()
    excluded: set[int] = set()
    for item in filter(None, _SEPARATORS.split(text)):
        if item.startswith(">="):
            floor = _bound(item[2:], text)
        elif item.startswith("<="):
            ceiling = _bound(item[2:], text)
        elif item.startswith("!"):
            excluded.add(_named(item[1:], text))
        else:
            included.add(_named(item, text))
    left = tuple(
        version
        for version in TlsVersion
        if floor <= version <= ceiling and version not in excluded and (not included or version in included)
    )
    if not left:
        raise InvalidTlsParameter(f"{_invalid(text)}: it leaves none of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3")
    return left


def cipher_list(grade: str, exclude: str = "", *, mandatory: bool, must_match: bool) -> str:
    """The OpenSSL cipher list of a grade.

    :param grade: ``high``, ``medium``, ``low``, ``export`` or ``null``, any case.
    :param exclude: OpenSSL terms without operators, separated by spaces, commas or colons.
    :param mandatory: whether a session in the clear is refused: then ciphers that do not encrypt are off.
    :param must_match: whether the peer must prove who it is: then ciphers without certificates are off.
    :raises InvalidTlsParameter: at an unknown grade or an exclusion that is no plain term.
    """
    base = _GRADES.get(grade.lower())
    if base is None:
        raise InvalidTlsParameter(f'invalid cipher grade: "{grade}"')
    terms = [base]
    for item in filter(None, _SEPARATORS.split(exclude)):
        if item[0] in "!+-@":
            raise InvalidTlsParameter(f"invalid unary '!+-@' in cipher exclusion: \"{item}\"")
        if not _EXCLUSION.fullmatch(item):
            raise InvalidTlsParameter(f'invalid cipher exclusion: "{item}"')
        terms.append(f"!{item}")
    terms += ["!aNULL"] if must_match else []
    terms += ["!eNULL"] if mandatory else []
    return ":".join(terms)


def _invalid(text: str) -> str:
    return f'Invalid TLS protocol list "{text}"'


def _named(name: str, text: str) -> int:
    version = _NAMES.get(name.lower())
    if version is None:
        raise InvalidTlsParameter(_invalid(text))
    return version


def _bound(name: str, text: str) -> int:
    """A version by name, or its number in hexadecimal (``0x0303``, ``303``)."""
    version = _NAMES.get(name.lower())
    if version is not None:
        return version
    if not re.fullmatch(r"(?:0[xX])?[0-9a-fA-F]{1,4}", name, re.ASCII):
        raise InvalidTlsParameter(_invalid(text))
    return int(name, 16)
