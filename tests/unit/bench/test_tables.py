"""What benches make of their figures."""

from __future__ import annotations

import pytest

from tests.bench.__main__ import rows
from tests.bench.flat import POINTS, Figures, Point, is_flat, ratios
from tests.bench.link import Trips
from tests.bench.runs import Score, choices, markdown


def test_a_score_is_its_medians_and_the_most_memory() -> None:
    score = Score([100.0, 300.0, 200.0], [0.001, 0.004, 0.002], [50.0, 70.0, 60.0], [0.01, 0.02, 0.03], [0.2, 0.4, 0.3])
    found = score.summary()
    assert found["messages_per_second"] == 200
    assert found["runs"] == [100, 300, 200]
    assert (found["processor_us_per_message"], found["memory_mib"]) == (2000, 70)
    assert (found["delay_p50_ms"], found["delay_p99_ms"]) == (20, 300)


def test_the_table_says_how_many_times_as_fast_ours_is() -> None:
    ours = Score([500.0], [0.001], [60.0], [0.1], [0.2]).summary()
    theirs = Score([200.0], [0.003], [90.0], [0.1], [0.2]).summary()
    found = list(rows({"dane; reused": {"relay": ours, "postfix": theirs}, "dane; TLS sessions": {"relay": 20}}))
    assert [(row[1], row[2], row[4]) for row in found] == [("relay", "500", ""), ("postfix", "200", "2.50 times")]


def test_markdown() -> None:
    assert markdown(("a", ""), [("1", "2"), ("3", "4")]) == "| a |  |\n| --- | --- |\n| 1 | 2 |\n| 3 | 4 |\n"


def test_a_choice_that_there_is_not_is_refused_by_name() -> None:
    said: list[str] = []
    assert choices("clear,dane", ("dane", "clear"), said.append) == ["clear", "dane"]
    assert said == []
    choices("dane,no", ("dane", "clear"), said.append)
    assert said == ["no such choice: no; there are dane, clear"]


def test_ratios_are_to_the_first_of_each_series() -> None:
    found: list[tuple[Point, dict[str, float]]] = [
        (Point("a", "1"), {"x": 10.0}),
        (Point("a", "2"), {"x": 13.0}),
        (Point("b", "1"), {"x": 4.0}),
        (Point("b", "2"), {"x": 2.0}),
    ]
    assert ratios(found, "x") == pytest.approx([1, 1.3, 1, 0.5])
    assert Figures([5.0, 7.0, 6.0], [1.0], [2.0], [3.0], [8.0, 9.0]).summary()["through_cpu_us"] == 6


@pytest.mark.parametrize(
    ("due", "through", "flat"),
    [(119.0, 100.0, True), (81.0, 100.0, True), (121.0, 100.0, False), (79.0, 100.0, False), (100.0, 130.0, False)],
)
def test_flat_is_within_a_fifth_on_both_sides(due: float, through: float, flat: bool) -> None:
    first = {"due_cpu_us": 100.0, "through_cpu_us": 100.0}
    assert (
        is_flat([(Point("a", "1"), first), (Point("a", "2"), {"due_cpu_us": due, "through_cpu_us": through})]) is flat
    )


def test_the_points_reach_what_issue_8_asks_for() -> None:
    assert {1_000, 100_000} <= {point.queued for point in POINTS}
    assert {1, 10_000} <= {point.destinations for point in POINTS if point.series == "destinations"}
    assert max(point.lines for point in POINTS) == 1_000_000


def test_trips_are_a_message() -> None:
    found = Trips([5.0, 4.0, 6.0], [20, 20, 25], [1100, 1200, 1150], [13_000, 13_400, 14_000]).summary(1000)
    assert (found["seconds"], found["messages_per_second"], found["round_trips_per_message"]) == (5, 200, 1.15)
    assert (found["messages_per_connection"], found["packets_per_message"]) == (50, 13.4)
