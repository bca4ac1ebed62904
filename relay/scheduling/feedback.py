"""How much one delivery's result moves a destination's window: ``1``, ``1/8``, ``1 / concurrency`` (qmgr_feedback.c)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

_NOTATION = re.compile(
    r"(\d{1,9}(?:\.\d{1,9})?)(?:\s*/\s*(\d{1,9}(?:\.\d{1,9})?|concurrency|sqrt_concurrency))?", re.ASCII
)


class Per(Enum):
    """What a feedback is divided by."""

    ONE = ""
    CONCURRENCY = "concurrency"
    SQRT_CONCURRENCY = "sqrt_concurrency"


@dataclass(frozen=True, slots=True)
class Feedback:
    """A feedback in Postfix's notation.

    :param base: from 0 (none) to 1 (a whole delivery at a time more or less).
    """

    base: float
    per: Per = Per.ONE

    @classmethod
    def parse(cls, text: str) -> Feedback:
        """Read a number from 0 to 1, ``NUMBER / NUMBER``, ``NUMBER / concurrency`` or ``NUMBER / sqrt_concurrency``.

        :raises ValueError: if it is none of these, or beyond 0 to 1; Postfix warns there and takes 1.
        """
        match = _NOTATION.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text[:40]!r} is no number from 0 to 1, with or without / and what it is divided by")
        base, per = float(match[1]), Per.ONE
        if match[2] in (Per.CONCURRENCY.value, Per.SQRT_CONCURRENCY.value):
            per = Per(match[2])
        elif match[2]:
            divisor = float(match[2])
            if not divisor:
                raise ValueError(f"{text[:40]!r} divides by zero")
            base /= divisor
        if base > 1:
            raise ValueError(f"{text[:40]!r} is more than 1")
        return cls(base, per)

    def value(self, window: int) -> float:
        """The step at a window of so many deliveries at a time."""
        match self.per:
            case Per.ONE:
                return self.base
            case Per.CONCURRENCY:
                return self.base / window
            case Per.SQRT_CONCURRENCY:
                return self.base / math.sqrt(window)
            case _:
                assert_never(self.per)

    def __str__(self) -> str:
        return f"{self.base:g}" + (f" / {self.per.value}" if self.per is not Per.ONE else "")


WHOLE = Feedback(1.0)
"""Postfix's default in both directions."""
