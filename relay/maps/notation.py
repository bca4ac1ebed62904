"""Postfix's small notations: ``TYPE:NAME`` with braces, lists of them, and ``$1`` in results. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

FILE_TYPES = ("texthash", "hash", "lmdb", "btree", "cdb", "dbm")
"""Types whose source is a file of keys and values; where Postfix reads what postmap made of it, we read the source."""
PATTERN_TYPES = ("regexp", "pcre", "cidr")
IN_PLACE_TYPES = ("inline", "static")
MAP_TYPES = (*FILE_TYPES, *PATTERN_TYPES, *IN_PLACE_TYPES)
_TYPE = re.compile(r"[a-z]+", re.ASCII)
_SHOWN = 60


class BadNotation(ValueError):  # noqa: N818 - it names the fault, not the handling
    """A text that is not what the notation says; the message is for people."""


@dataclass(frozen=True, slots=True)
class MapSpec:
    """``TYPE:NAME`` of a map option.

    :param type: one of ``MAP_TYPES``; a bare path is ``texthash``.
    :param argument: the file's name, or what stands in its place for ``inline:`` and ``static:``.
    """

    type: str
    argument: str

    @classmethod
    def parse(cls, text: str) -> MapSpec:
        """Read a specification. What has no type of ours before a colon is a path.

        :raises BadNotation: if nothing follows the type.
        """
        kind, colon, argument = text.strip().partition(":")
        if kind == "proxy" and colon:  # proxymap(8) shares open tables; there is nothing to share here
            kind, colon, argument = argument.partition(":")
        if not colon or kind not in MAP_TYPES:
            return cls("texthash", text.strip())
        if not argument.strip():
            raise BadNotation(f'"{text[:_SHOWN]}" names nothing after {kind}:')
        return cls(kind, argument.strip())

    @property
    def file(self) -> str:
        """The file to read; empty if there is none."""
        return "" if self.type in IN_PLACE_TYPES else self.argument

    @property
    def name(self) -> str:
        """What rules and problems call the table: the file as written, or type and first key of what is in place."""
        if self.file:
            return self.file
        if self.type == "static":
            return "static:..."  # a value may be a password
        key, _, _ = self.argument.strip("{ \t").partition("=")
        return f"inline:{{{key.strip()[:_SHOWN]}=...}}"


def tokens(text: str, separators: str = " \t\r\n,") -> Iterator[str]:
    """Cut at white space and commas that stand outside braces (postfix mystrtok.c, mystrtokq)."""
    if "{" not in text:
        yield from filter(None, re.split(f"[{re.escape(separators)}]", text))
        return
    word, depth = "", 0
    for character in text:
        if depth == 0 and character in separators:
            if word:
                yield word
            word = ""
            continue
        depth += (character == "{") - (character == "}" and depth > 0)
        word += character
    if word:
        yield word


def outer_braces(text: str) -> str:
    """What stands between the first brace and the last, outer white space removed (postfix extpar.c).

    :raises BadNotation: in Postfix's words.
    """
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            if position != len(text) - 1:
                raise BadNotation(f"syntax error after '}}' in \"{text[:_SHOWN]}\"")
            return text[1:position].strip()
    raise BadNotation(f"missing '}}' in \"{text[:_SHOWN]}\"")


def pairs(text: str) -> Iterator[tuple[str, str]]:
    """The pairs of ``{ name=value, { name = value } }`` (postfix dict_inline.c).

    :raises BadNotation: in Postfix's words.
    """
    if not text.startswith("{"):
        raise BadNotation("need inline:{name=value...}")
    for word in tokens(outer_braces(text)):
        pair = outer_braces(word) if word.startswith("{") else word
        match = re.fullmatch(r'\s*("(?:[^"\\]|\\.)*"|[^\s="]+)\s*=(.*)', pair, re.DOTALL)
        if match is None:
            raise BadNotation(f'need name=value, found "{pair[:_SHOWN]}"')
        name = match[1]
        if name.startswith('"'):
            name = re.sub(r"\\(.)", r"\1", name[1:-1])
        yield name, match[2].strip()


Template = tuple[str | int, ...]
"""A result in its parts: text, and numbers of groups whose text goes there."""

_REFERENCE = re.compile(r"\$(?:\$|([A-Za-z0-9_]+)|\{([^{}]*)\}|\(([^()]*)\))")


def read_template(text: str, groups: int) -> Template:
    """Read a result with ``$1``, ``${1}`` or ``$(1)``, and ``$$`` for a dollar (postfix mac_parse.c).

    :param groups: how many groups the pattern has.
    :raises BadNotation: in Postfix's words, if a reference is no number or has no group.
    """
    parts: list[str | int] = []
    position = 0
    for match in _REFERENCE.finditer(text):
        parts.append(text[position : match.start()])
        position = match.end()
        if match[0] == "$$":
            parts.append("$")
            continue
        index = match[1] or match[2] or match[3] or ""
        if not re.fullmatch(r"[0-9]{1,9}", index):
            raise BadNotation(f'non-numeric replacement index "{index}"')
        if not 1 <= int(index) <= groups:
            raise BadNotation(f'out of range replacement index "{index}"')
        parts.append(int(index))
    parts.append(text[position:])
    if any(isinstance(part, str) and part != "$" and "$" in part for part in parts):
        raise BadNotation("bad replacement syntax")
    return tuple(part for part in parts if part != "")


def has_references(shown: str) -> bool:
    """Whether a result, as the rows of a table show it, still waits for what a pattern matches."""
    return "${" in shown


def fill(template: Template, group: Callable[[int], str | None]) -> str:
    """The result with the text of the groups; one that took no part is empty."""
    return "".join(part if isinstance(part, str) else group(part) or "" for part in template)
