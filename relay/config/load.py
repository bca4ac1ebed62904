"""Reading a configuration: file, environment and defaults in, a ``Config`` or every fault at once out."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from relay.config.config import SECTIONS, Config
from relay.config.contradictions import contradictions
from relay.config.environment import Override, overrides
from relay.config.errors import ConfigError, ConfigErrors
from relay.config.files import missing_files
from relay.config.kinds import found
from relay.config.locate import locate
from relay.config.section import RELEASE, Section, is_later

Option = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Examined:
    """A configuration that was read with every fault noted.

    :param config: what it says; an option that is wrong in itself has its default here.
    :param wrong: the options that have a fault.
    :param errors: the faults, in order; empty if the configuration can be used.
    """

    config: Config
    wrong: frozenset[Option]
    errors: tuple[ConfigError, ...]


def load(path: Path, environ: Mapping[str, str], *, hostname: str) -> Config:
    """Read a configuration file.

    :param path: the file; faults name it as given here.
    :param environ: the environment; variables ``DANE_RELAY_SECTION__KEY`` win over the file.
    :param hostname: the system's name (socket.getfqdn()), for ``relay.myhostname`` where nothing sets it.
    :raises ConfigErrors: with every fault.
    """
    return _sound(examine(path, environ, hostname=hostname))


def read(text: str, *, name: str, base: Path, environ: Mapping[str, str], hostname: str) -> Config:
    """Read a configuration from text, as ``load`` does.

    :param name: what faults call the text.
    :param base: the directory that relative paths start from.
    """
    return _sound(_examine_text(text, name=name, base=base, environ=environ, hostname=hostname))


def examine(path: Path, environ: Mapping[str, str], *, hostname: str) -> Examined:
    """Read a configuration file and go on after faults, as far as that makes sense.

    :raises ConfigErrors: if the file cannot be read or is no TOML: with that one fault.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise ConfigErrors([ConfigError(str(path), f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigErrors([ConfigError(f"{path}:{line}", "TOML syntax: this line is no UTF-8 text")]) from None
    return _examine_text(text, name=str(path), base=path.parent.absolute(), environ=environ, hostname=hostname)


def _sound(examined: Examined) -> Config:
    if examined.errors:
        raise ConfigErrors(examined.errors)
    return examined.config


def _examine_text(text: str, *, name: str, base: Path, environ: Mapping[str, str], hostname: str) -> Examined:
    text = text.replace("\r\n", "\n")
    reading = _Reading(base)
    _take_document(reading, _parse(text, name), locate(text), name)
    variables, unknown = overrides(environ)
    reading.errors += unknown
    for variable in variables:
        _take_override(reading, variable)
    if reading.values["relay"].get("myhostname", "") == "":
        reading.values["relay"]["myhostname"] = hostname
    sections: dict[str, Any] = {section: _validate(reading, section) for section in SECTIONS}
    config = Config(**sections, base=base, places=reading.places)
    _cross_check(reading, config)
    return Examined(config, frozenset(reading.wrong), tuple(_in_order(reading.errors, name)))


@dataclass(slots=True)
class _Reading:
    """What was read so far: raw values, their places, and the faults."""

    base: Path
    values: dict[str, dict[str, object]] = field(default_factory=lambda: {section: {} for section in SECTIONS})
    plain: dict[Option, str] = field(default_factory=dict)
    places: dict[Option, str] = field(default_factory=dict)
    wrong: set[Option] = field(default_factory=set)
    errors: list[ConfigError] = field(default_factory=list)

    def fault(self, option: Option, message: str) -> None:
        self.wrong.add(option)
        place = self.places.get(option, f"default {'.'.join(option)}")
        self.errors.append(ConfigError(place, f"{'.'.join(option)}: {message}"))


def _parse(text: str, name: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Line and column are attributes only from Python 3.14 on; the message has them everywhere.
        message = str(error)
        match = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
        lines = text.split("\n")
        line, column = (len(lines), len(lines[-1]) + 1)
        if match is not None:
            message = message[: match.start()]
            line, column = (int(match[1]), int(match[2])) if match[1] else (line, column)
        raise ConfigErrors([ConfigError(f"{name}:{line}:{column}", f"TOML syntax: {message}")]) from None


def _take_document(
    reading: _Reading, document: dict[str, object], lines: Mapping[tuple[str, ...], int], name: str
) -> None:
    for section, values in document.items():
        place = f"{name}:{lines.get((section,), 1)}"
        if section not in SECTIONS:
            reading.errors.append(ConfigError(place, _unknown_section(section, values)))
        elif not isinstance(values, dict):
            reading.errors.append(ConfigError(place, f"{section}: expected a section [{section}], {found(values)}"))
        else:
            for key, value in values.items():
                line = lines.get((section, key), lines.get((section,), 1))
                reading.places[section, key] = f"{name}:{line}"
                reading.values[section][key] = value


def _unknown_section(section: str, value: object) -> str:
    if isinstance(value, dict):
        close = get_close_matches(section.lower(), SECTIONS, n=1)
        hint = f"did you mean [{close[0]}]?" if close else f"sections are {', '.join(SECTIONS)}"
        return f"[{section}]: no such section; {hint}"
    homes = [name for name, model in SECTIONS.items() if section in model.model_fields]
    hint = f"put it under [{homes[0]}]" if homes else "every option stands in a section"
    return f"{section}: this option stands outside of a section; {hint}"


def _take_override(reading: _Reading, override: Override) -> None:
    option = (override.section, override.key)
    reading.values[override.section][override.key] = override.value
    reading.places[option] = override.variable
    reading.plain[option] = override.text


def _validate(reading: _Reading, section: str) -> Section:
    """Validate a section; wrong options are noted and take their defaults, so that the others can be checked on."""
    model, values = SECTIONS[section], reading.values[section]
    for _attempt in range(3):
        try:
            validated = model.model_validate(values, context=reading.base)
        except ValidationError as invalid:
            _note_faults(reading, section, invalid)
            continue
        break
    else:
        raise AssertionError(f"[{section}] stays invalid without its wrong options")
    for key, info in model.model_fields.items():
        if is_later(info) and getattr(validated, key) != info.default:
            reading.fault((section, key), f"is not in this release ({RELEASE}); leave it out")
    return validated


def _note_faults(reading: _Reading, section: str, invalid: ValidationError) -> None:
    values = reading.values[section]
    for error in invalid.errors():
        key = str(error["loc"][0])
        option = (section, key)
        if option in reading.plain and values[key] != reading.plain[option]:
            values[key] = reading.plain[option]  # a variable may be meant as plain text: file = 1
            continue
        del values[key]
        if error["type"] == "extra_forbidden":
            reading.errors.append(ConfigError(reading.places.pop(option), _unknown_key(section, key)))
        else:
            reading.fault(option, str(error["ctx"]["error"]))


def _unknown_key(section: str, key: str) -> str:
    fields = SECTIONS[section].model_fields
    elsewhere = [name for name, model in SECTIONS.items() if key in model.model_fields]
    bare = key.lower().removeprefix(f"{section}_")
    close = get_close_matches(bare, [name.lower() for name in fields], n=1)
    if elsewhere:
        hint = f"there is one in {' and '.join(f'[{name}]' for name in elsewhere)}"
    elif close:
        hint = f"did you mean {next(name for name in fields if name.lower() == close[0])}?"
    else:
        hint = "conf/relay.toml shows every option"
    return f"{section}.{key}: no such option; {hint}"


def _cross_check(reading: _Reading, config: Config) -> None:
    for found_one in contradictions(config):
        if reading.wrong.isdisjoint(found_one.options):
            # The place of the first option that somebody set: the default of the other is not at fault.
            set_ones = [option for option in found_one.options if option in reading.places]
            option = (set_ones or found_one.options)[0]
            reading.errors.append(ConfigError(config.place(*option), f"{'.'.join(option)}: {found_one.message}"))
    for missing in missing_files(config):
        if missing.option not in reading.wrong:
            reading.fault(missing.option, missing.message)


def _in_order(errors: Iterable[ConfigError], name: str) -> list[ConfigError]:
    """By line of the file, then the environment."""

    def key(error: ConfigError) -> tuple[bool, int, str, str]:
        line = error.place.removeprefix(f"{name}:")
        in_file = line != error.place and line.isdigit()
        return (not in_file, int(line) if in_file else 0, error.place, error.message)

    return sorted(errors, key=key)
