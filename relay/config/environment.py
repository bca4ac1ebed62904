"""Options from environment variables: ``DANE_RELAY_SECTION__KEY``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from relay.config.config import SECTIONS
from relay.config.errors import ConfigError

PREFIX = "DANE_RELAY_"


@dataclass(frozen=True, slots=True)
class Override:
    """A variable that sets an option.

    :param value: the text read as a TOML value, or the text itself where it is none.
    :param text: the text itself.
    """

    variable: str
    section: str
    key: str
    value: object
    text: str


def variable_name(section: str, key: str) -> str:
    """The variable that sets an option."""
    return f"{PREFIX}{section}__{key}".upper()


def overrides(environ: Mapping[str, str]) -> tuple[tuple[Override, ...], tuple[ConfigError, ...]]:
    """Find the variables with our prefix.

    :returns: the overrides, and an error for each variable that names no option.
    """
    names = {
        variable_name(section, key): (section, key) for section in SECTIONS for key in SECTIONS[section].model_fields
    }
    found: list[Override] = []
    errors: list[ConfigError] = []
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX):
            continue
        if variable in names:
            found.append(Override(variable, *names[variable], _value(text), text))
            continue
        close = get_close_matches(variable, names, n=1, cutoff=0.8)
        hint = f"did you mean {close[0]}?" if close else f"options are set as {PREFIX}SECTION__KEY"
        errors.append(ConfigError(variable, f"no option has this variable; {hint}"))
    return tuple(found), tuple(errors)


def _value(text: str) -> object:
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # A text with line breaks could be a whole document; only one value is meant.
    return document["value"] if len(document) == 1 else text
