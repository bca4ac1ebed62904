"""Which mechanism to take of those that a host offers (RFC 4954 section 3; postfix sasl_mech_filter.c). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from relay.sasl.credentials import Password, TokenCommand, TokenFile, TokenSource
from relay.sasl.scram import MECHANISM as SCRAM_SHA_256

FOR_PASSWORDS = (SCRAM_SHA_256, "PLAIN", "LOGIN")
FOR_TOKENS = ("OAUTHBEARER", "XOAUTH2")
"""Best first."""
MECHANISMS = (*FOR_PASSWORDS, *FOR_TOKENS)
_MAX_OFFERED = 64


def offered(parameters: str) -> tuple[str, ...]:
    """The mechanisms of an EHLO line ``AUTH PLAIN LOGIN``, from its parameters, in capitals."""
    return tuple(dict.fromkeys(word.upper() for word in parameters.split()))[:_MAX_OFFERED]


def filtered(mechanisms: Iterable[str], words: tuple[str, ...]) -> tuple[str, ...]:
    """Those that a filter leaves: the first word that matches decides, and ``!`` before it means no.

    :param words: such as ``plain``, ``!login``, ``static:all``; none for no filter (postfix ``smtp_sasl_mechanism_filter``).
    """
    return tuple(mechanism for mechanism in mechanisms if not words or _passes(mechanism, words))


def _passes(mechanism: str, words: tuple[str, ...]) -> bool:
    for word in words:
        name = word.lstrip("!")
        if name.lower().startswith("static:") or name.upper() == mechanism:
            return (len(word) - len(name)) % 2 == 0
    return False


def fitting(proof: Password | TokenSource, mechanisms: Iterable[str]) -> tuple[str, ...]:
    """The mechanisms that can show a proof, best first."""
    there = frozenset(mechanisms)
    known: tuple[str, ...]
    match proof:
        case Password():
            known = FOR_PASSWORDS
        case TokenFile() | TokenCommand():
            known = FOR_TOKENS
        case _:
            assert_never(proof)
    return tuple(mechanism for mechanism in known if mechanism in there)
