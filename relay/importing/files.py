"""The text of Postfix's configuration files: parameters of main.cf, services of master.cf (postconf(5), master(5)). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from relay.maps.lines import LogicalLine, logical_lines

_NAME = re.compile(r"[A-Za-z0-9_]+", re.ASCII)
_FIELDS = 8  # of a service, the command's name among them


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter as it was set.

    :param value: as written, nothing expanded, line ends gone.
    :param place: ``FILE:LINE``.
    """

    name: str
    value: str
    place: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that cannot be read as Postfix reads it."""

    place: str
    text: str


@dataclass(frozen=True, slots=True)
class MainFile:
    """main.cf.

    :param parameters: by name; of several settings of one parameter the last.
    """

    parameters: Mapping[str, Parameter]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Service:
    """One line of master.cf.

    :param name: ``smtp``, ``587``, ``127.0.0.1:10025``, or the name of a transport.
    :param kind: ``inet``, ``unix``, ``pass`` ...
    :param program: ``smtpd``, ``smtp``, ``postscreen`` ...
    :param options: its ``-o`` settings.
    """

    name: str
    kind: str
    program: str
    options: tuple[Parameter, ...]
    place: str


@dataclass(frozen=True, slots=True)
class MasterFile:
    """master.cf."""

    services: tuple[Service, ...]
    problems: tuple[Problem, ...] = ()


def read_main(text: str, name: str) -> MainFile:
    """Read main.cf.

    :param name: the file as reasons are to call it.
    """
    parameters: dict[str, Parameter] = {}
    problems: list[Problem] = []
    for line in logical_lines(text):
        place = f"{name}:{line.number}"
        left, equals, value = line.text.partition("=")
        key = left.strip()
        if line.text[0].isspace() or not equals or not _NAME.fullmatch(key):
            problems.append(Problem(place, f'expected "name = value"; found "{line.text.strip()[:80]}"'))
            continue
        if key in parameters:
            problems.append(Problem(place, f"{key}: set before at {parameters[key].place}; Postfix takes the last"))
        parameters[key] = Parameter(key, " ".join(value.split()), place)
    return MainFile(parameters, tuple(problems))


def read_master(text: str, name: str) -> MasterFile:
    """Read master.cf; ``name`` as in ``read_main``."""
    services: list[Service] = []
    problems: list[Problem] = []
    for line in logical_lines(text):
        place = f"{name}:{line.number}"
        words = list(_words(line.text))
        if line.text[0].isspace() or len(words) < _FIELDS:
            problems.append(Problem(place, f'expected a service of eight fields; found "{line.text.strip()[:80]}"'))
            continue
        options = tuple(replace(option, place=_place(text, line, option, name)) for option in _options(words[_FIELDS:]))
        services.append(Service(words[0], words[1], words[7], options, place))
    return MasterFile(tuple(services), tuple(problems))


def _words(text: str) -> Iterator[str]:
    """Words between white space; braces keep theirs together (postfix split_at, mystrtokq)."""
    word, depth = "", 0
    for character in text:
        if character.isspace() and depth == 0:
            if word:
                yield word
            word = ""
            continue
        depth += {"{": 1, "}": -1}.get(character, 0)
        word += character
    if word:
        yield word


def _options(words: list[str]) -> Iterator[Parameter]:
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "-o" and position < len(words):
            setting = words[position]
            position += 1
        elif word.startswith("-o") and len(word) > len("-o"):
            setting = word[2:]
        else:
            continue
        setting = setting[1:-1] if setting.startswith("{") and setting.endswith("}") else setting
        name, _, value = setting.partition("=")
        yield Parameter(name.strip(), value.strip(), "")


def _place(text: str, line: LogicalLine, option: Parameter, name: str) -> str:
    """The physical line of an option: services are written over many."""
    pattern = re.compile(rf"-o\s*\{{?\s*{re.escape(option.name)}\s*=")
    lines = text.split("\n")
    for number in range(line.number, len(lines) + 1):
        written = lines[number - 1]
        if number > line.number and written[:1].strip() and not written.startswith("#"):
            break
        if pattern.search(written):
            return f"{name}:{number}"
    return f"{name}:{line.number}"
