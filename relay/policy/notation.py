"""Postfix's notations inside policy values: match lists, fingerprints, protocol lists and cipher grades. Pure.

Shared by the policy map parser and by the configuration, so that both read the same text in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from relay.mail.names import BadName, Domain
from relay.policy.parameters import cipher_list, enabled_versions
from relay.policy.policy import LiteralName, MatchName, MatchRule

_HEX = re.compile(r"[0-9a-f]+", re.ASCII)
# Digits of the digests that smtp_tls_fingerprint_digest may name: MD5, SHA-1 and SHA-2.
_DIGEST_DIGITS = {32, 40, 64, 96, 128}
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class MatchList:
    """A match list read item by item.

    :param rules: what could be understood, in order and without repeats.
    :param ignored: one text for each item that names nothing, in Postfix's words (tls_client.c, add_namechecks).
    """

    rules: tuple[MatchRule, ...]
    ignored: tuple[str, ...] = ()


def split_list(text: str) -> tuple[str, ...]:
    """The items of a main.cf list: separated by commas, white space or colons."""
    return tuple(item for item in re.split(r"[,\s:]+", text) if item)


def parse_match(items: Iterable[str]) -> MatchList:
    """Read ``hostname``, ``nexthop``, ``dot-nexthop``, ``example.com`` and ``.example.com``, any case."""
    rules: list[MatchRule] = []
    ignored: list[str] = []
    for item in items:
        try:
            rules.append(_match_rule(item))
        except BadName:
            ignored.append(f'ignoring invalid match name: "{item[:_SHOWN]}"')
    return MatchList(tuple(dict.fromkeys(rules)), tuple(ignored))


def _match_rule(item: str) -> MatchRule:
    word = item.strip().lower()
    for name in MatchName:
        if word == name.value:
            return name
    return LiteralName(Domain.parse(word.removeprefix(".")), below=word.startswith("."))


def parse_fingerprint(text: str) -> str:
    """Read a certificate or key fingerprint: pairs of hexadecimal digits, colons between them optional.

    :returns: lower-case digits without colons.
    :raises ValueError: with Postfix's words, if these are no digits or not as many as any digest has.
    """
    digits = text.strip().replace(":", "").lower()
    if not _HEX.fullmatch(digits) or len(digits) not in _DIGEST_DIGITS:
        raise ValueError(f"malformed fingerprint value: {text.strip()[:_SHOWN]}")
    return digits


def parse_protocols(text: str) -> str:
    """Read a protocol list such as ``>=TLSv1.2, !TLSv1.3`` or ``!SSLv2:!SSLv3`` (smtp_tls_protocols).

    :returns: the items as written, one space between them; empty for an empty list.
    :raises ValueError: with Postfix's words, if an item names no protocol, or no version of TLS is left.
    """
    # A blank may stand between the operator and the name.
    items = split_list(re.sub(r"(>=|<=|!)\s+", r"\1", text))
    normal = " ".join(items)
    enabled_versions(normal)
    return normal


def parse_exclusions(text: str) -> str:
    """Read OpenSSL cipher terms to exclude (smtp_tls_exclude_ciphers).

    :returns: the text as written.
    :raises ValueError: with Postfix's words, if a term has an operator or is none.
    """
    cipher_list("medium", text, mandatory=True, must_match=True)
    return text


def parse_grade(text: str) -> str:
    """Read a cipher grade (smtp_tls_ciphers), any case.

    :raises ValueError: with Postfix's words, if there is no such grade.
    """
    grade = text.strip().lower()
    cipher_list(grade, mandatory=True, must_match=True)
    return grade
