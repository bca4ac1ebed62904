"""SASLprep (RFC 4013): user names and passwords made comparable before they are hashed. Pure."""

from __future__ import annotations

import stringprep
import unicodedata

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,  # as for stored strings: unassigned in Unicode 3.2 is refused (RFC 4013 section 2.5)
)


class Unpreparable(ValueError):  # noqa: N818 - it names the state of the text
    """A text that SASLprep prohibits; the message says why and does not quote it."""


def saslprep(text: str) -> str:
    """Map, normalise and check a text.

    :raises Unpreparable: if it may not be used.
    """
    mapped = "".join(" " if stringprep.in_table_c12(one) else one for one in text if not stringprep.in_table_b1(one))
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if any(prohibits(one) for one in prepared for prohibits in _PROHIBITED):
        raise Unpreparable("a character that SASLprep prohibits (RFC 4013)")
    if any(map(stringprep.in_table_d1, prepared)):
        # RFC 3454 section 6: right-to-left text stands alone, and begins and ends so.
        ends_right = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
        if not ends_right or any(map(stringprep.in_table_d2, prepared)):
            raise Unpreparable("text of both directions, which SASLprep prohibits (RFC 4013)")
    return prepared
