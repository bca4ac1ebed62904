"""A text that nobody but its user may see. Pure."""

from __future__ import annotations

import hmac
from typing import NoReturn

HIDDEN = "<secret>"


class Secret:
    """A password or token: equal to its like, and shown by nothing; only ``reveal`` gives it.

    Whatever prints, formats, logs, copies into a traceback or serialises an object that holds one gets ``<secret>``, or a
    TypeError where it would have been written out.
    """

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        """The text itself: for the octets of a mechanism, and nothing else."""
        return self.__text

    def __bool__(self) -> bool:
        return bool(self.__text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.__text.encode(errors="replace"), other.__text.encode(errors="replace"))

    def __hash__(self) -> NoReturn:
        raise TypeError("a hash would be a way to recognise a secret")

    def __repr__(self) -> str:
        return HIDDEN

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return format(HIDDEN, spec)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not to be written out")
