"""What a soak calls growth."""

from __future__ import annotations

import random

import pytest

from tests.bench.trend import theil_sen, trend

TIMES = [10.0 * number for number in range(180)]


def test_a_slope_that_lasts_is_growth() -> None:
    found = trend(TIMES, [80 + time / 100 for time in TIMES], tolerance=4)
    assert found.grows
    assert found.slope == pytest.approx(36)  # MiB an hour
    assert found.rise == pytest.approx(17.9)


def test_what_only_swings_does_not_grow() -> None:
    chance = random.Random(7)
    assert not trend(TIMES, [80 + chance.uniform(-10, 10) for _ in TIMES], tolerance=4).grows


def test_one_outlier_at_the_end_is_not_growth() -> None:
    found = trend(TIMES, [80.0] * (len(TIMES) - 1) + [500], tolerance=4)
    assert (found.grows, found.highest, found.slope) == (False, 500, 0)


def test_one_step_is_no_slope() -> None:
    found = trend(TIMES, [80.0] * 60 + [90.0] * 120, tolerance=4)
    assert (found.first, found.last, found.slope, found.grows) == (80, 90, 0, False)


def test_what_shrinks_does_not_grow() -> None:
    assert not trend(TIMES, [180 - time / 20 for time in TIMES], tolerance=4).grows


def test_theil_sen_is_the_median_of_all_slopes() -> None:
    slopes = (2, 2, 2, 100 / 3, 49, 96)
    assert theil_sen([0, 1, 2, 3], [0, 2, 4, 100]) == pytest.approx((slopes[2] + slopes[3]) / 2)
    assert theil_sen([5, 5, 6], [1, 3, 4]) == pytest.approx(2)  # two samples of one moment have no slope


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, 2.0, 3.0, 4.0]])
def test_too_few_samples_are_an_error(values: list[float]) -> None:
    with pytest.raises(ValueError, match="three samples"):
        trend([0, 1, 2][: max(2, len(values) - 1)], values, tolerance=1)
