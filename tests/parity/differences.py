"""Where we and Postfix 3.7 are expected to part over the cases, in what, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is expected to differ.

    :param fields: names of fields of ``Result``; all of these and no others.
    """

    fields: frozenset[str]
    why: str


_SENT = frozenset({"level", "status", "dsn", "session", "reason", "warnings"})
_STRICTER = frozenset({"level", "reason", "warnings"})
_WORDS = frozenset({"warnings"})

_NAME = (
    "The chain is trusted and the name alone is wrong: we say Trusted, as Postfix does since the middle of 2025; 3.7 says"
    " Untrusted. Refused by both."
)
_BRACES = "Braces in policy entries are of Postfix 3.10; 3.7 takes them for a part of a word and defers."
_EARLY = (
    "A protocol list, cipher grade or exclusion that OpenSSL cannot take: we find it when the map is loaded and defer; Postfix"
    " finds it at the handshake, which fails, and at level may mail could go in the clear later."
)
_NEWER = "The attribute is of a later Postfix (enable_rpk 3.9, the policy_ attributes 3.10); 3.7 does not know it and defers."

_GROUPS: tuple[tuple[frozenset[str], str, str], ...] = (
    (frozenset({"session"}), _NAME, "l018 l019 l029 a008 a011 a016 a019 a027 a029 a040 k020 s002 s009"),
    (
        _STRICTER | {"session"},
        "No usable name: Postfix shakes hands with nothing to match, which fails; we do not call.",
        "a020",
    ),
    (_SENT, _BRACES, "a023 a024 a025 a053 a066"),
    (_STRICTER, _BRACES, "a054"),
    (_WORDS, _BRACES, "a026 m007 m008 m009"),
    (_STRICTER, _EARLY, "a055 a056 a060 a061 a065"),
    (_SENT, _NEWER, "m032 m033 m035 m036"),
    (_WORDS, _NEWER, "m034 m038 m039 m040"),
    (frozenset({"reason", "warnings"}), f"{_NEWER} Ours is what a later one does.", "m037"),
    (
        _WORDS,
        (
            "Attributes beside none are told when the map is loaded, by `check` and by policy lint; Postfix says so at each"
            " delivery."
        ),
        "m030",
    ),
    (
        _SENT - {"session"},
        (
            "What is no attribute at all could be a mistyped until=, and then the line would hold for ever: malformed, at"
            " none too. Postfix reads no attribute there."
        ),
        "m031",
    ),
    (_WORDS, "We say which key stands twice, and where.", "c001"),
    (
        _SENT - {"session"},
        (
            "A key that stands twice with different values makes all of a texthash fail in Postfix; here the key alone is"
            " deferred, and other lines hold."
        ),
        "c002",
    ),
)


def _differences() -> Iterator[tuple[str, Difference]]:
    for fields, why, names in _GROUPS:
        for name in names.split():
            yield name, Difference(fields, why)


DIFFERENCES: Mapping[str, Difference] = dict(_differences())
