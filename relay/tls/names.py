"""Whether a certificate carries a wanted name, by OpenSSL's rules with Postfix's flags (v3_utl.c, X509_check_host). Pure.

dNSName SANs count; the common name only where there is none of them. A wildcard is a whole left-most label and stands
for exactly one label of letters, digits and hyphens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from relay.mail.names import MAX_NAME_OCTETS
from relay.policy.policy import LiteralName
from relay.tls.peer import CertFacts

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
# At least two labels after the star: "*.com" would match every company.
_WILDCARD: Final = re.compile(rf"\*((?:\.{_LABEL}){{2,}})", re.ASCII)
_STAR_STANDS_FOR: Final = re.compile(r"[a-z0-9-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class NameMatch:
    """The certificate's name ``presented`` covers the ``wanted`` one."""

    presented: str
    wanted: LiteralName


@dataclass(frozen=True, slots=True)
class NoNameMatch:
    """None of the certificate's names (all that count, possibly none) is wanted."""

    presented: tuple[str, ...]


def match_names(
    leaf: CertFacts, wanted: Iterable[LiteralName], *, common_name_counts: bool = True
) -> NameMatch | NoNameMatch:
    """Look for a wanted name in a certificate.

    :param wanted: any of them suffices; the order decides which one is named.
    :param common_name_counts: whether a certificate without dNSNames may show its name as CN (not under RFC 8461).
    """
    common_name = leaf.common_name.lower() if common_name_counts else ""
    presented = leaf.dns_names or ((common_name,) if common_name else ())
    for name in wanted:
        for candidate in presented:
            if covers(candidate, name):
                return NameMatch(candidate, name)
    return NoNameMatch(presented)


def covers(presented: str, wanted: LiteralName) -> bool:
    """Whether one name of a certificate covers a wanted name.

    :param presented: lower case, as written in the certificate: any characters.
    :param wanted: an exact name, or with ``below`` any sub-domain of it, which ``*.sub.domain`` covers as well.
    """
    if len(presented) > MAX_NAME_OCTETS or "\0" in presented:
        return False
    if wanted.below:
        return presented.endswith(f".{wanted.domain}")
    if presented == wanted.domain.name:
        return True
    wildcard = _WILDCARD.fullmatch(presented)
    if wildcard is None:
        return False
    first, dot, rest = wanted.domain.name.partition(".")
    return dot + rest == wildcard[1] and _STAR_STANDS_FOR.fullmatch(first) is not None
