"""Where we and Postfix are expected to part, in what, and why; anything else that differs is a failure."""

from __future__ import annotations

from dataclasses import dataclass

from tests.interop.side_by_side_hosts import REPLIES, SEVERAL, STARTTLS
from tests.interop.side_by_side_lookups import HALF, LOOKUPS
from tests.interop.side_by_side_records import END_ENTITY, TRUST_ANCHOR, UNUSABLE, WHERE

SECTIONS = (END_ENTITY, TRUST_ANCHOR, UNUSABLE, WHERE, LOOKUPS, HALF, STARTTLS, SEVERAL, REPLIES)
CASES = tuple(case for section in SECTIONS for case in section.cases)
POSTFIX = "3.7"
"""The version that the differences are told of: Debian 12's."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is expected to differ.

    :param fields: what differs, by the names of ``Fate``; all of these and no others.
    :param why: for the document.
    """

    fields: frozenset[str]
    why: str


_EVERYTHING = frozenset({"status", "dsn", "sessions", "reached", "relay", "reason"})

_BEFORE_THE_VERDICT = (
    "Before the verdict nothing that a host says is authenticated: whoever can strip STARTTLS can as well forge a 5xx and have"
    " the mail bounced. Where TLS is required we take it for a 4xx"
)
_TABLE_ONLY = (
    "Postfix 3.6 to 3.7.12 have by accident `smtp_tls_dane_insecure_mx_policy = may` unless the global level is `dane`"
    " (corrected in 3.7.13); our default is `dane` always"
)

DIFFERENCES = {
    "ta-name": Difference(
        frozenset({"sessions"}),
        "The chain leads to the anchor and the name alone is wrong: we say Trusted, as Postfix does since the middle of 2025;"
        " 3.6 and 3.7 say Untrusted. Refused by both.",
    ),
    "short-digest-dane-only": Difference(
        frozenset({"sessions", "reached", "relay", "reason"}),
        "Postfix notices that a digest has the wrong length when OpenSSL refuses it, in the session; we do when we read the"
        " record, and do not call (`TLSA records unusable`).",
    ),
    "no-digest": Difference(
        _EVERYTHING,
        "Postfix's client dies of it (`panic: mymalloc: requested length 0`), and master starts no other for a minute, whatever"
        " else waits to be sent. For us the record is one that cannot be used.",
    ),
    "half-table": Difference(
        frozenset({"sessions"}), f"{_TABLE_ONLY}: the TLSA records, which match, are not looked at there."
    ),
    "half-table-mismatch": Difference(
        frozenset({"status", "dsn", "reached", "reason"}), f"{_TABLE_ONLY}: the mismatch goes unseen there."
    ),
    "starttls-554-dane": Difference(frozenset({"status", "dsn"}), f"{_BEFORE_THE_VERDICT}, and try again later."),
    "starttls-554-unusable": Difference(frozenset({"status", "dsn"}), f"{_BEFORE_THE_VERDICT}, and try again later."),
    "two-554": Difference(_EVERYTHING, f"{_BEFORE_THE_VERDICT}, and go on to the next host."),
    "ehlo-554": Difference(frozenset({"status", "dsn"}), f"{_BEFORE_THE_VERDICT}, and try again later."),
}
