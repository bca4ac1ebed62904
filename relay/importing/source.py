"""The Postfix configuration as it is read during an import: values with references replaced, and what was used of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from relay.importing.defaults import DEFAULTS
from relay.importing.draft import Draft, Sort
from relay.importing.expand import CannotExpand, expand
from relay.importing.files import Parameter

BY_DEFAULT = "Postfix's default"


class Source:
    """Parameters of main.cf, those of one service of master.cf before them.

    :param known: what Postfix finds out by itself: the host's name, where its configuration is.
    """

    def __init__(self, main: Mapping[str, Parameter], known: Mapping[str, str], draft: Draft) -> None:
        self._main = main
        self._overrides: dict[str, Parameter] = {}
        self._known = known
        self._draft = draft
        self._taken: set[str] = set()

    def override(self, options: Iterable[Parameter]) -> None:
        """Let ``-o`` settings of a service win over main.cf."""
        # syslog_name tells a service's lines from those of others; here there is one name
        self._overrides |= {option.name: option for option in options if option.name != "syslog_name"}

    def parameter(self, name: str) -> Parameter | None:
        """A parameter as it was set, None if nobody did."""
        return self._overrides.get(name) or self._main.get(name)

    def is_set(self, name: str) -> bool:
        """Whether somebody set the parameter."""
        return self.parameter(name) is not None

    def place(self, name: str) -> str:
        """Where the value of a parameter comes from."""
        parameter = self.parameter(name)
        return BY_DEFAULT if parameter is None else parameter.place

    def value(self, name: str) -> str:
        """The value of a parameter, references replaced; Postfix's default where nobody set it."""
        parameter = self.parameter(name)
        return self.expanded(parameter.value if parameter else DEFAULTS.get(name, ""), self.place(name), name)

    def expanded(self, text: str, place: str, name: str) -> str:
        """A text with references replaced; empty, with a remark, if they make no sense."""
        try:
            return expand(text, self._raw).strip()
        except CannotExpand as error:
            self._draft.remark(Sort.LOOK, place, f"{name}: cannot be read: {error}")
            return ""

    def take(self, name: str) -> str:
        """The value of a parameter, which counts as dealt with from now on."""
        self._taken.add(name)
        return self.value(name)

    def items(self, name: str) -> tuple[str, ...]:
        """The value of a list, which counts as dealt with from now on."""
        return tuple(split(self.take(name)))

    def switch(self, name: str) -> bool:
        """The value of a yes or no, which counts as dealt with from now on."""
        return self.take(name).lower() == "yes"

    def left(self) -> Iterator[Parameter]:
        """What was set and nobody dealt with, in order of place."""
        everything = {**self._main, **self._overrides}
        return (parameter for name, parameter in everything.items() if name not in self._taken)

    def used_names(self) -> frozenset[str]:
        """Names that other parameters refer to: those of the administrator's own among them."""
        texts = [parameter.value for parameter in (*self._main.values(), *self._overrides.values())]
        return frozenset(
            name for name in self._main if any(f"${name}" in text or f"${{{name}" in text for text in texts)
        )

    def _raw(self, name: str) -> str:
        parameter = self.parameter(name)
        if parameter is not None:
            return parameter.value
        return self._known.get(name) or DEFAULTS.get(name, "")


def split(text: str) -> Iterator[str]:
    """Items between commas and white space; braces keep theirs together (postfix mystrtokq)."""
    item, depth = "", 0
    for character in text:
        if depth == 0 and (character.isspace() or character == ","):
            if item:
                yield item
            item = ""
            continue
        depth += {"{": 1, "}": -1}.get(character, 0)
        item += character
    if item:
        yield item
