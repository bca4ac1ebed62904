"""All cases, by configuration, and where we and Postfix are expected to part."""

from __future__ import annotations

from tests.parity.case import Group
from tests.parity.grammar import ATTRIBUTES, LEVELS, MALFORMED, UNDER_DANE, UNDER_SECURE
from tests.parity.lookups import CONTRADICTING, INLINE, KEYS, PATTERN_FILE, PATTERNS, STATIC

GROUPS = (
    Group(name="text", cases=(*LEVELS, *ATTRIBUTES, *MALFORMED, *KEYS)),
    Group(name="dane", level="dane", cases=UNDER_DANE),
    Group(name="secure", level="secure", cases=UNDER_SECURE),
    Group(
        name="patterns",
        cases=PATTERNS,
        maps=("regexp:{directory}/patterns", INLINE, "texthash:{lines}"),
        files={"patterns": PATTERN_FILE},
    ),
    Group(name="static", cases=STATIC, maps=("texthash:{lines}", "static:{encrypt ciphers=high}")),
    Group(name="contradicting", cases=CONTRADICTING),
)
CASES = tuple(case for group in GROUPS for case in group.cases)
POSTFIX = "3.7"
"""The version that the results are of: Debian 12's."""
