from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from relay.lanes import LARGE_OCTETS, Lanes


async def settle() -> None:
    """Let every task go on as far as it can."""
    for _ in range(20):
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
    lanes, passes, begun = Lanes(width=100), 0, list[int]()
    over = False

    async def count() -> None:
        nonlocal passes
        while not over:
            passes += 1
            await asyncio.sleep(0)

    async def message() -> None:
        async with lanes:
            begun.append(passes)

    counting = asyncio.create_task(count())
    await asyncio.gather(*(message() for _ in range(10)))
    over = True
    await counting
    assert len(set(begun)) == 10


async def test_pieces_going_out_are_given_one_in_a_pass() -> None:
    lanes, passes, given = Lanes(), 0, list[int]()
    over = False

    async def content() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * LARGE_OCTETS

    async def count() -> None:
        nonlocal passes
        while not over:
            passes += 1
            await asyncio.sleep(0)

    async def message() -> None:
        taken = 0
        async for _ in lanes.paced(content()):
            taken += 1
            if taken > 1:
                given.append(passes)

    counting = asyncio.create_task(count())
    await asyncio.gather(*(message() for _ in range(10)))
    over = True
    await counting
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
