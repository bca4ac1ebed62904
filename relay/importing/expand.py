"""``$name`` and its kin in parameter values (postconf(5), postfix mac_expand.c). Pure."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

MAX_DEPTH = 50
_MAX_LENGTH = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9_]+", re.ASCII)
_OPERATOR = re.compile(r"\s*(==|!=|<=level|>=level|==level|!=level|<level|>level|<=|>=|<|>)\s*")
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class CannotExpand(ValueError):  # noqa: N818 - it names the state, not the handling
    """A value whose references make no sense; the message says which."""


def expand(value: str, lookup: Callable[[str], str]) -> str:
    """Replace all references of a value.

    :param lookup: the value of a parameter by name, itself not expanded; what nobody knows is empty.
    :raises CannotExpand: at a brace that is not closed, at something that is no reference, and at a circle.
    """
    return _expand(value, lookup, 0)


def _expand(value: str, lookup: Callable[[str], str], depth: int) -> str:
    if depth > MAX_DEPTH:
        raise CannotExpand("parameters refer to each other in a circle")
    parts: list[str] = []
    position = 0
    while (dollar := value.find("$", position)) >= 0:
        parts.append(value[position:dollar])
        following = value[dollar + 1 : dollar + 2]
        if following == "$":
            parts.append("$")
            position = dollar + 2
        elif following in {"{", "("}:
            inner, position = _enclosed(value, dollar + 1)
            parts.append(_reference(inner.strip(), lookup, depth))
        elif match := _NAME.match(value, dollar + 1):
            parts.append(_expand(lookup(match[0]), lookup, depth + 1))
            position = match.end()
        else:
            raise CannotExpand(f'"${following}" refers to nothing; a dollar sign is written $$')
    text = "".join((*parts, value[position:]))
    if len(text) > _MAX_LENGTH:
        raise CannotExpand("it grows beyond a million characters")
    return text


def _enclosed(value: str, start: int) -> tuple[str, int]:
    """What stands between a bracket and its partner, and where it goes on."""
    opening, closing = value[start], {"{": "}", "(": ")"}[value[start]]
    depth = 0
    for position in range(start, len(value)):
        depth += {opening: 1, closing: -1}.get(value[position], 0)
        if depth == 0:
            return value[start + 1 : position], position + 1
    raise CannotExpand(f'"{value[start:][:40]}" is not closed')


def _reference(inner: str, lookup: Callable[[str], str], depth: int) -> str:
    if inner.startswith("{"):
        condition, rest = _comparison(inner, lookup, depth)
    else:
        match = _NAME.match(inner)
        if match is None:
            raise CannotExpand(f'"${{{inner[:40]}}}" names no parameter')
        value = _expand(lookup(match[0]), lookup, depth + 1)
        rest = inner[match.end() :].strip()
        if not rest:
            return value
        condition = bool(value)
    if rest[:1] == ":":
        return "" if condition else _branch(rest[1:], lookup, depth)[0]
    if rest[:1] != "?":
        raise CannotExpand(f'"${{{inner[:40]}}}": expected ? or : behind it')
    chosen, after = _branch(rest[1:], lookup, depth)
    if condition:
        return chosen
    return _branch(after[1:], lookup, depth)[0] if after[:1] == ":" else ""


def _branch(text: str, lookup: Callable[[str], str], depth: int) -> tuple[str, str]:
    """A text in braces or up to the end, expanded, and what is left."""
    text = text.lstrip()
    if text.startswith("{"):
        inner, end = _enclosed(text, 0)
        return _expand(inner.strip(), lookup, depth + 1), text[end:].lstrip()
    return _expand(text, lookup, depth + 1), ""


def _comparison(inner: str, lookup: Callable[[str], str], depth: int) -> tuple[bool, str]:
    left, end = _enclosed(inner, 0)
    match = _OPERATOR.match(inner, end)
    if match is None or inner[match.end() : match.end() + 1] != "{":
        raise CannotExpand(f'"${{{inner[:40]}}}": expected {{value}} operator {{value}}')
    right, end = _enclosed(inner, match.end())
    one, other = (_expand(each.strip(), lookup, depth + 1) for each in (left, right))
    how = _COMPARE[match[1].removesuffix("level")]
    if match[1].endswith("level"):
        return how(_level(one), _level(other)), inner[end:].strip()
    if one.isascii() and one.isdigit() and other.isascii() and other.isdigit():
        return how(int(one[:18]), int(other[:18])), inner[end:].strip()
    return how(one, other), inner[end:].strip()


def _level(text: str) -> tuple[int, ...]:
    """A compatibility level as numbers: 3.6 is below 3.10."""
    parts = text.split(".")
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise CannotExpand(f'"{text[:40]}" is no compatibility level')
    return tuple(map(int, parts)) + (0,) * (3 - len(parts))
