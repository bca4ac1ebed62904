"""Our configuration while it is written: settings, each with where it comes from, and remarks on what was left behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from relay.config.config import SECTIONS
from relay.config.section import RELEASE, is_later, kind_of
from relay.outcome.wording import one_line


class Sort(Enum):
    """What a remark is about; the value stands before it."""

    LOOK = "to be looked at"
    """The imported file does not do, or not safely, what the Postfix configuration did."""
    DIFFERS = "differs"
    """Something comes out otherwise here."""
    NO_COUNTERPART = "no counterpart"
    """A parameter was set, and there is nothing like it here."""
    IDLE = "of no consequence here"
    """A parameter was set for something that this relay does not do."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that whoever imports should know.

    :param place: ``FILE:LINE``.
    """

    sort: Sort
    place: str
    text: str

    @property
    def is_error(self) -> bool:
        """Whether the import is not done before somebody looked at this."""
        return self.sort is Sort.LOOK

    def __str__(self) -> str:
        return f"{self.place}: {self.sort.value}: {self.text}"


@dataclass(frozen=True, slots=True)
class Setting:
    """An option with its value as TOML text.

    :param because: where it comes from.
    """

    text: str
    because: str


@dataclass(slots=True)
class Draft:
    """What was written so far.

    :param base: the directory that relative paths start from.
    """

    base: Path
    settings: dict[tuple[str, str], Setting] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)

    def put(self, section: str, key: str, raw: object, place: str, what: str) -> None:
        """Set an option, if it takes the value; else remark on it.

        :param raw: as TOML would give it.
        :param what: what stood there, for the comment: the name of the parameter, or more.
        """
        info = SECTIONS[section].model_fields[key]
        kind = kind_of(info)
        try:
            value = kind.read(raw, self.base)
        except ValueError as error:
            self.remark(Sort.LOOK, place, f"{what}: {section}.{key} was left as it is: {error}")
            return
        if is_later(info) and value != info.default:
            self.remark(Sort.LOOK, place, f"{what}: {section}.{key} is not in this release ({RELEASE}): left out")
            return
        self.settings[section, key] = Setting(kind.write(value), one_line(f"{place}: {what}"))

    def put_as_it_stands(self, section: str, key: str, text: str, place: str, what: str) -> None:
        """Set an option to a value that it does not take: the relay refuses to start until somebody looked at it."""
        self.settings[section, key] = Setting(text, one_line(f"{place}: {what}: TO BE LOOKED AT"))

    def remark(self, sort: Sort, place: str, text: str) -> None:
        """Say something, once."""
        remark = Remark(sort, one_line(place), one_line(text))
        if remark not in self.remarks:
            self.remarks.append(remark)

    def document(self, source: str) -> str:
        """The configuration as TOML text, with the remarks as comments.

        :param source: what was imported, for the first line.
        """
        lines = [
            f"# Imported from {one_line(source)} by `dane-relay import-postfix`; conf/relay.toml tells what every option means."
        ]
        lines += [f"# {remark}" for remark in self._in_order()]
        for section in SECTIONS:
            mine = [(key, setting) for (home, key), setting in self.settings.items() if home == section]
            if mine:
                lines += ["", f"[{section}]"]
            for key, setting in mine:
                lines += [f"# {setting.because}", f"{key} = {setting.text}"]
        return "\n".join(lines) + "\n"

    def _in_order(self) -> Iterator[Remark]:
        for sort in Sort:
            yield from (remark for remark in self.remarks if remark.sort is sort)
