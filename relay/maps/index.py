"""Where each key of a large file stands: a hash table of numbers, some 20 octets an entry. Pure.

A dictionary would keep a string and a number object for each key, 150 octets, of what the file's text has already.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator

_SMALLEST = 64
_TAG = 0xFFFFFFFF
NOTHING = -1


class KeyIndex:
    """Finds the position (0, 1, 2 …) under which a key was added.

    :param key_at: the key of a position, for the keys that cannot be told apart by their hash.
    """

    __slots__ = ("_key_at", "_slots", "_tags")

    def __init__(self, key_at: Callable[[int], str]) -> None:
        self._key_at = key_at
        self._tags = array("I")  # by position: a part of the key's hash
        self._slots = array("I", bytes(4 * _SMALLEST))  # position + 1, 0 for a free one; half of them at most are taken

    def __len__(self) -> int:
        return len(self._tags)

    def add(self, key: str) -> int:
        """Enter a key at the next position, unless it is there.

        :returns: ``NOTHING`` if it is new, else the position that it has.
        """
        if 2 * len(self._tags) >= len(self._slots):
            self._grow()
        tag = hash(key) & _TAG
        for slot in self._way(tag):
            taken = self._slots[slot]
            if not taken:
                self._tags.append(tag)
                self._slots[slot] = len(self._tags)
                return NOTHING
            if self._tags[taken - 1] == tag and self._key_at(taken - 1) == key:
                return taken - 1
        raise AssertionError("a table that is half empty has a free slot")

    def find(self, key: str) -> int:
        """The position of a key; ``NOTHING`` if it has none."""
        tag = hash(key) & _TAG
        for slot in self._way(tag):
            taken = self._slots[slot]
            if not taken:
                return NOTHING
            if self._tags[taken - 1] == tag and self._key_at(taken - 1) == key:
                return taken - 1
        return NOTHING

    def _way(self, tag: int) -> Iterator[int]:
        """The slots in which a key may be, in order; one after the other, round about."""
        mask = len(self._slots) - 1
        slot = tag & mask
        for _ in range(len(self._slots)):
            yield slot
            slot = (slot + 1) & mask

    def _grow(self) -> None:
        slots = array("I", bytes(4 * 2 * len(self._slots)))
        mask = len(slots) - 1
        for position, tag in enumerate(self._tags, 1):
            slot = tag & mask
            while slots[slot]:
                slot = (slot + 1) & mask
            slots[slot] = position
        self._slots = slots
