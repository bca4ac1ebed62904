"""What is wrong with a configuration, with the place of each fault."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class ConfigError:
    """One fault.

    :param place: ``FILE:LINE``, ``FILE:LINE:COLUMN`` (syntax), an environment variable, or an option's default.
    :param message: what is wrong and what to do.
    """

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class ConfigErrors(Exception):  # noqa: N818 - it carries all faults at once
    """Every fault that was found, in order; never empty."""

    def __init__(self, errors: Iterable[ConfigError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(map(str, self.errors)))
