"""The kinds of values an option can have: how each is read from TOML, checked, and written back.

``read`` gets what TOML (or an environment variable) gave, and the directory that relative paths start from; it returns
the value as the program uses it or raises ValueError with what was expected and what was found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value, used as ``Annotated`` metadata of an option.

    :param read: ``(raw, base) -> value``; raises ValueError.
    :param write: the value as TOML text.
    """

    read: Callable[[object, Path], object]
    write: Callable[[Any], str]

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        """Tell pydantic to take what ``read`` returns; the base directory travels in the validation context."""

        def validate(raw: object, info: core_schema.ValidationInfo[Any]) -> object:
            return self.read(raw, info.context)

        return core_schema.with_info_plain_validator_function(validate)


def toml_string(text: object) -> str:
    """A value as a TOML basic string."""
    return json.dumps(str(text), ensure_ascii=False)


def toml_list(items: tuple[object, ...]) -> str:
    """Values as a TOML array of strings."""
    return f"[{', '.join(map(toml_string, items))}]"


def found(raw: object) -> str:
    """What was found, for people: the type where it is the fault, and the value, cut."""
    match raw:
        case bool():
            return f"found {str(raw).lower()}"
        case str():
            return f"found {toml_string(raw[:80])}"
        case int() | float():
            return f"found the number {raw}"
        case list():
            return "found an array"
        case dict():
            return "found a table"
        case _:
            return f"found {str(raw)[:80]}"


def text_of(raw: object, expected: str) -> str:
    """The raw value if it is a string.

    :raises ValueError: otherwise.
    """
    if not isinstance(raw, str):
        raise ValueError(f"expected {expected}, {found(raw)}")
    if any(not character.isprintable() for character in raw):
        raise ValueError(f"expected {expected} on one line, {found(raw)}")
    return raw.strip()


def items_of(raw: object, expected: str, separators: str = r"[,\s]+") -> tuple[str, ...]:
    """The items of an array of strings, or of one string in Postfix's list notation.

    :raises ValueError: if it is neither.
    """
    if isinstance(raw, str):
        return tuple(item for item in re.split(separators, raw) if item)
    if isinstance(raw, list):
        return tuple(text_of(item, expected) for item in raw)
    raise ValueError(f"expected {expected}, {found(raw)}")


# --- text, choices and numbers


def _read_text(raw: object, _base: Path) -> str:
    return text_of(raw, "a string")


TEXT = Kind(_read_text, toml_string)


def _read_switch(raw: object, _base: Path) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.lower() in {"yes", "no"}:
        return raw.lower() == "yes"
    raise ValueError(f"expected true or false, {found(raw)}")


SWITCH = Kind(_read_switch, lambda value: str(value).lower())


def choice(*words: str) -> Kind:
    """One of some words, any case."""
    expected = f"one of {', '.join(map(toml_string, words))}"

    def read(raw: object, _base: Path) -> str:
        word = text_of(raw, expected).lower()
        if word not in words:
            raise ValueError(f"expected {expected}, {found(raw)}")
        return word

    return Kind(read, toml_string)


def choices(*words: str) -> Kind:
    """Some of some words, any case; ``""`` is none of them."""
    expected = f"some of {', '.join(map(toml_string, words))}"

    def read(raw: object, _base: Path) -> tuple[str, ...]:
        chosen = tuple(item.lower() for item in items_of(raw, expected))
        wrong = [item for item in chosen if item not in words]
        if wrong:
            raise ValueError(f"expected {expected}, {found(wrong[0])}")
        return chosen

    return Kind(read, toml_list)


def _read_field_names(raw: object, _base: Path) -> tuple[str, ...]:
    expected = 'names of header fields such as ["bcc", "x-originating-ip"]'
    names = tuple(item.lower().removesuffix(":") for item in items_of(raw, expected))
    for name in names:
        if not re.fullmatch(r"[!-9;-~]{1,78}", name):
            raise ValueError(f"expected {expected}, {found(name)}")
        if name in _NEEDED_FIELDS:
            raise ValueError(f"{name} fields cannot be taken out: loops are found by them")
    return names


_NEEDED_FIELDS = frozenset({"received"})
FIELD_NAMES = Kind(_read_field_names, toml_list)


def integer(minimum: int, maximum: int) -> Kind:
    """A whole number within bounds."""
    expected = f"a whole number from {minimum} to {maximum}"

    def read(raw: object, _base: Path) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int) or not minimum <= raw <= maximum:
            raise ValueError(f"expected {expected}, {found(raw)}")
        return raw

    return Kind(read, str)


def notation(parse: Callable[[str], str], expected: str) -> Kind:
    """A text that ``parse`` checks and brings into its normal form, or says what is wrong with (ValueError)."""

    def read(raw: object, _base: Path) -> str:
        try:
            return parse(text_of(raw, expected))
        except ValueError as error:
            message = str(error)
            raise ValueError(message if message.startswith("expected") else f"expected {expected}: {message}") from None

    return Kind(read, toml_string)


# --- durations and sizes

_SECONDS: Mapping[str, int] = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES: Mapping[str, int] = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}
_MAX_SECONDS = 10 * 365 * 86400


def duration(minimum: float = 0) -> Kind:
    """Seconds, from ``"300s"``, ``"5m"``, ``"2h"``, ``"5d"``, ``"1w"`` or a bare number of seconds."""
    expected = 'a duration such as "300s", "5m", "2h", "5d" or "1w"'

    def read(raw: object, _base: Path) -> float:
        if isinstance(raw, int | float) and not isinstance(raw, bool):
            seconds = float(raw)
        else:
            match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([a-z]*)", text_of(raw, expected).lower(), re.ASCII)
            if match is None:
                raise ValueError(f"expected {expected}, {found(raw)}")
            unit = match[2] or "s"
            if unit not in _SECONDS:
                raise ValueError(f"expected {expected}, {found(raw)}; units are {', '.join(_SECONDS)}")
            seconds = float(match[1]) * _SECONDS[unit]
        if not minimum <= seconds <= _MAX_SECONDS:
            raise ValueError(f"expected a duration from {seconds_text(minimum)} to 10 years, {found(raw)}")
        return seconds

    return Kind(read, lambda seconds: toml_string(seconds_text(seconds)))


def seconds_text(seconds: float) -> str:
    """Seconds in the largest unit that needs no fraction: 432000 gives ``5d``, 4000 gives ``4000s``."""
    for unit in ("w", "d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    return f"{seconds:g}s" if seconds % 1 else f"{seconds:.0f}s"


def _read_size(raw: object, _base: Path) -> int:
    expected = 'a size such as "10MiB", "10MB" or a number of bytes'
    if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
        return raw
    match = re.fullmatch(r"(\d{1,15})\s*([a-z]*)", text_of(raw, expected).lower(), re.ASCII)
    if match is None:
        raise ValueError(f"expected {expected}, {found(raw)}")
    if match[2] not in _BYTES:
        raise ValueError(f"expected {expected}, {found(raw)}; units are kB, MB, GB, KiB, MiB, GiB")
    return int(match[1]) * _BYTES[match[2]]


SIZE = Kind(_read_size, str)


# --- paths


def _read_path(raw: object, base: Path) -> Path:
    text = text_of(raw, "a path")
    if not text:
        raise ValueError('expected a path, found ""')
    return base / text


PATH = Kind(_read_path, toml_string)


def _read_optional_path(raw: object, base: Path) -> str:
    text = text_of(raw, 'a path or "" for none')
    return str(base / text) if text else ""


OPTIONAL_PATH = Kind(_read_optional_path, toml_string)
