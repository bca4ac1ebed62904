from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from relay.lanes import LARGE_OCTETS, Lanes


async def settle() -> None:
    """Let every task go on as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Passes:
    """``number`` of the pass of the loop that is under way, while the block lasts."""

    def __init__(self) -> None:
        self.number = 0

    async def __aenter__(self) -> Passes:
        self._counting = asyncio.create_task(self._count())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._counting.cancel()

    async def _count(self) -> None:
        while True:
            self.number += 1
            await asyncio.sleep(0)


async def test_turns_go_round() -> None:
    lanes, order = Lanes(width=1), list[str]()

    async def message(name: str) -> None:
        for _ in range(3):
            async with lanes:
                order.append(name)
                await asyncio.sleep(0)

    await asyncio.gather(*map(message, "abc"))
    assert "".join(order) == "abcabcabc"


async def test_no_more_at_a_time_than_there_are_lanes() -> None:
    lanes, inside, most = Lanes(width=2), 0, 0

    async def message() -> None:
        nonlocal inside, most
        for _ in range(5):
            async with lanes:
                inside += 1
                most = max(most, inside)
                await settle()
                inside -= 1

    await asyncio.gather(*(message() for _ in range(10)))
    assert most == 2


async def test_no_two_turns_begin_in_one_pass_of_the_loop_however_many_wait() -> None:
    lanes, begun = Lanes(width=100), list[int]()

    async def message(passes: Passes) -> None:
        async with lanes:
            begun.append(passes.number)

    async with Passes() as passes:
        await asyncio.gather(*(message(passes) for _ in range(10)))
    assert len(set(begun)) == 10


async def test_pieces_going_out_are_given_one_in_a_pass() -> None:
    lanes, given = Lanes(), list[int]()

    async def content() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * LARGE_OCTETS

    async def message(passes: Passes) -> None:
        taken = 0
        async for _ in lanes.paced(content()):
            taken += 1
            if taken > 1:
                given.append(passes.number)

    async with Passes() as passes:
        await asyncio.gather(*(message(passes) for _ in range(10)))
    assert len(given) == len(set(given)) == 30


async def test_a_turn_waits_while_small_messages_are_committed() -> None:
    lanes, taken = Lanes(courtesy=3600), asyncio.Event()

    async def large() -> None:
        async with lanes:
            taken.set()

    with lanes.small_first():
        with lanes.small_first():
            task = asyncio.create_task(large())
            await settle()
        await settle()
        assert not taken.is_set()
    await task
    assert taken.is_set()


async def test_a_turn_does_not_wait_for_ever() -> None:
    lanes = Lanes(courtesy=0)
    with lanes.small_first():
        async with lanes:
            pass


class Times:
    """Timers that come to an end when they are told to, and a clock that is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self._timers: list[asyncio.Handle] = []
        self._loop = asyncio.get_running_loop()
        monkeypatch.setattr(self._loop, "call_later", self._call_later)

    def _call_later(self, delay: float, callback: Callable[[], None]) -> asyncio.Handle:
        assert delay > 0
        self._timers.append(asyncio.Handle(callback, (), self._loop))
        return self._timers[-1]

    async def end(self) -> None:
        """Let the timer that runs come to an end, and what waited for it go on."""
        (timer,) = [each for each in self._timers if not each.cancelled()]
        self._timers.clear()
        timer._run()
        await settle()

    @property
    def running(self) -> int:
        return sum(not each.cancelled() for each in self._timers)


def begin_turns(lanes: Lanes, number: int) -> tuple[asyncio.Future[list[None]], list[None]]:
    """So many that want a turn each, and those that had it so far."""
    had: list[None] = []

    async def large() -> None:
        async with lanes:
            had.append(None)

    return asyncio.gather(*(large() for _ in range(number))), had


async def test_small_mail_that_never_ends_lets_as_many_begin_at_a_time_as_there_are_lanes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = Times(monkeypatch)
    lanes = Lanes(width=3, clock=lambda: times.now)
    with lanes.small_first():
        all_of_them, had = begin_turns(lanes, 7)
        await settle()
        for so_far in (0, 3, 6):
            assert (len(had), times.running) == (so_far, 1)
            await times.end()
        await all_of_them


async def test_while_small_mail_is_about_large_contents_use_a_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = Times(monkeypatch)
    lanes = Lanes(clock=lambda: times.now)

    async def go_on(number: int) -> tuple[asyncio.Future[list[None]], list[None]]:
        begun = begin_turns(lanes, number)
        await settle()
        return begun

    times.now += 10
    assert (await go_on(5))[0].done()  # none is about
    with lanes.small_first():
        pass
    resting, had = await go_on(2)
    assert not had
    with lanes.small_first():  # which does not make the rest longer, or large ones might wait for ever
        pass
    await times.end()
    assert resting.done()
    times.now += 0.0009
    assert (await go_on(5))[0].done()  # the spell is not over
    times.now += 0.0001
    resting, had = await go_on(5)
    assert not had
    await times.end()
    assert resting.done()
    times.now += 1
    assert (await go_on(5))[0].done()  # none is about any more
    assert not times.running


async def test_whoever_gives_up_waiting_leaves_the_lane_to_others() -> None:
    lanes = Lanes(width=1, courtesy=3600)

    async def large() -> None:
        async with lanes:
            pass

    with lanes.small_first():
        task = asyncio.create_task(large())
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await large()


async def test_whoever_gives_up_a_turn_that_has_begun_leaves_the_lane_to_others() -> None:
    lanes = Lanes(width=1)
    turn = asyncio.create_task(lanes.__aenter__())
    for _ in range(2):  # it was let in, and has not noticed
        await asyncio.sleep(0)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    async with lanes:
        pass


async def test_pieces_come_as_they_are_and_each_beyond_the_first_takes_a_turn() -> None:
    class Counting(Lanes):
        turns = 0

        async def __aenter__(self) -> None:
            self.turns += 1
            await super().__aenter__()

    pieces = [b"a" * LARGE_OCTETS, b"b", b"c" * LARGE_OCTETS]

    async def content() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    lanes = Counting(width=1)
    got = []
    async for piece in lanes.paced(content()):
        got.append(piece)
        async with lanes:  # nobody holds the lane while a piece is being sent
            pass
    assert got == pieces
    assert lanes.turns == 2 + len(pieces)
