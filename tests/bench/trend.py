"""Whether a series of samples grows: pure arithmetic for the soak.

A leak shows as a slope that lasts. What only swings (memory with the length of the queue, tasks with the mail under way)
has a slope by chance: so growth is only called that when the last third lies above the first by more than a tolerance, and the
slope through all samples says the same.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True, slots=True)
class Trend:
    """What became of one figure.

    :param first: median of the first third of the samples, in the figure's unit.
    :param last: median of the last third.
    :param slope: of the line through all samples (Theil-Sen: the median of the slopes of all pairs), in units an hour.
    :param rise: what that slope makes of the whole time, in units.
    :param grows: whether both ``last - first`` and ``rise`` are more than the tolerance.
    """

    first: float
    middle: float
    last: float
    highest: float
    slope: float
    rise: float
    grows: bool


def trend(times: Sequence[float], values: Sequence[float], *, tolerance: float) -> Trend:
    """The trend of a series.

    :param times: seconds, ascending, as many as values, and at least three.
    :param tolerance: in the unit of the values: a rise up to this is not called growth.
    :raises ValueError: if there are fewer than three samples, or not as many of one as of the other.
    """
    if len(times) != len(values) or len(times) < 3:
        raise ValueError(f"a trend needs three samples or more: {len(times)} times, {len(values)} values")
    third = len(values) // 3
    first, middle, last = (
        statistics.median(part) for part in (values[:third], values[third : len(values) - third], values[-third:])
    )
    slope = theil_sen(times, values)
    rise = slope * (times[-1] - times[0])
    return Trend(
        first=first,
        middle=middle,
        last=last,
        highest=max(values),
        slope=slope * 3600,
        rise=rise,
        grows=last - first > tolerance and rise > tolerance,
    )


def theil_sen(times: Sequence[float], values: Sequence[float]) -> float:
    """The median of the slopes between all pairs of samples, in units a second; no outlier moves it far."""
    pairs = combinations(zip(times, values, strict=True), 2)
    return statistics.median((v2 - v1) / (t2 - t1) for (t1, v1), (t2, v2) in pairs if t2 != t1)
