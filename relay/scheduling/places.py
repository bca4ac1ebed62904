"""The places at a destination, where several processes deliver to it: together they take no more than its limit."""

from __future__ import annotations

from enum import Enum
from typing import Final, Protocol


class Taken(Enum):
    """What became of the wish for one more place."""

    YES = "taken"
    ENOUGH = "this process has its share, and the others want theirs; one is free again when it leaves one"
    FULL = "others have them all, this process's share too; it must come again"


class Places(Protocol):
    """Places by destination. Nothing here waits."""

    def take(self, name: str, now: float) -> Taken:
        """Take one more place at a destination.

        :param now: seconds on a clock that never goes back.
        """
        ...

    def leave(self, name: str, now: float) -> None:
        """Give one place back."""
        ...

    def waive(self, name: str) -> None:
        """Let the others no longer be told that this process wants more, until it asks again."""
        ...

    def held(self, name: str) -> int:
        """How many places at a destination are this process's now."""
        ...


class _Alone:
    """There are no other processes: windows are all that limits."""

    def take(self, name: str, now: float) -> Taken:
        return Taken.YES

    def leave(self, name: str, now: float) -> None:
        raise AssertionError("nothing is held")

    def waive(self, name: str) -> None:
        return

    def held(self, name: str) -> int:
        return 0


ALONE: Final = _Alone()
