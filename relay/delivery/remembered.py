"""Results of pure functions, kept for as long as they are asked about equal facts.

Nothing here is ever too old: a result stands beside all that it was made from, and what is not equal to that is made anew.
While rules and DNS answers are the same objects, as they are from one message to the next, comparing them costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

MAX_REMEMBERED = 1_000

K = TypeVar("K", bound=Hashable)
F = TypeVar("F")
V = TypeVar("V")


class Remembered(Generic[K, F, V]):
    """The last result for each of some keys, the oldest keys forgotten first.

    :param capacity: keys.
    """

    def __init__(self, capacity: int = MAX_REMEMBERED) -> None:
        self._capacity = capacity
        self._kept: dict[K, tuple[F, V]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K, facts: F) -> V | None:
        """The result for these facts, if it is the last one for the key.

        :param facts: all that the result depends on, the key included where the rest does not imply it.
        """
        kept = self._kept.get(key)
        return kept[1] if kept is not None and kept[0] == facts else None

    def keep(self, key: K, facts: F, result: V) -> V:
        """Remember a result; gives it back."""
        if key not in self._kept and len(self._kept) >= self._capacity:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = facts, result
        return result
