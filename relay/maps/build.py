"""From ``TYPE:NAME`` and a file's text to a table. Pure but for the clock that bounds patterns."""

from __future__ import annotations

from relay.maps.cidr import read_cidr
from relay.maps.file import FileTable
from relay.maps.inplace import read_inline, read_static
from relay.maps.notation import BadNotation, MapSpec
from relay.maps.patterns import read_patterns
from relay.maps.table import KeyReader, LookupTable, fold

__all__ = ["BadNotation", "MapSpec", "build_table"]


def build_table(spec: MapSpec, text: str = "", *, read_key: KeyReader = fold) -> LookupTable:
    """Make a table; what is wrong with single lines is in its ``problems``, and looking them up fails.

    :param text: the content of ``spec.file``, if it has one; octets that are no UTF-8 as surrogates.
    :param read_key: how keys are normalised; look-ups give keys that are.
    :raises BadNotation: if what stands in place of a file (``inline:``, ``static:``) cannot be read at all.
    """
    match spec.type:
        case "inline":
            return read_inline(spec.argument, spec.name, read_key)
        case "static":
            return read_static(spec.argument, spec.name)
        case "cidr":
            return read_cidr(text, spec.name)
        case "regexp" | "pcre":
            return read_patterns(text, spec.name, spec.type)
        case _:
            return FileTable(text, spec.name, read_key)
