"""Windows grow with success, within the limit and not far beyond what is under way; they shrink with failure, to one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.concurrency import MAX_REMEMBERED, Concurrency


def fill(windows: Concurrency, destination: str = "a") -> int:
    began = 0
    while windows.room(destination):
        windows.begin(destination)
        began += 1
    return began


def test_begins_at_the_initial_window_and_grows_to_the_limit() -> None:
    windows = Concurrency(initial=2, limit=4)
    assert fill(windows) == 2
    assert windows.full() == ["a"]
    for expected in (3, 4, 4):
        windows.end("a", throttled=False)
        windows.begin("a")
        assert sum(1 for _ in range(fill(windows))) + expected <= 5
    windows.end("a", throttled=False)
    assert fill(windows) == 1


def test_failures_shrink_to_one_and_no_further() -> None:
    windows = Concurrency(initial=3, limit=10)
    for _ in range(10):
        windows.begin("a")
        windows.end("a", throttled=True)
    assert fill(windows) == 1


def test_destinations_do_not_share() -> None:
    windows = Concurrency(initial=1, limit=1)
    windows.begin("a")
    assert windows.room("b") == 1
    assert windows.room("a") == 0


def test_memory_is_bounded_and_what_is_under_way_is_kept() -> None:
    windows = Concurrency(initial=1, limit=1)
    windows.begin("kept")
    for number in range(MAX_REMEMBERED + 50):
        windows.begin(str(number))
        windows.end(str(number), throttled=False)
    assert windows.room("kept") == 0
    assert len(windows._windows) <= MAX_REMEMBERED + 1


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 8), st.integers(1, 8))
def test_never_above_the_limit_never_below_one(results: list[bool], initial: int, limit: int) -> None:
    windows = Concurrency(initial=initial, limit=limit)
    for throttled in results:
        busy = fill(windows)
        assert 1 <= busy <= limit
        for _ in range(busy):
            windows.end("a", throttled=throttled)
