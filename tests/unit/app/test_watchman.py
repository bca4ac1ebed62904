"""Who is asked whether it lives, and what becomes of one that does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from relay.app import watchman


class Worker:
    """One that answers, or not."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.pid = 1
        self.answering = asyncio.Event()
        self.asked = 0
        self.replaced = asyncio.Event()
        self.reason = ""

    def replace(self, reason: str) -> None:
        self.reason = reason
        self.replaced.set()
        self.ready.clear()

    async def answers(self) -> None:
        self.asked += 1
        await self.answering.wait()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("ASK_SECONDS", 0.0), ("PIECE_SECONDS", 0.001)):
        monkeypatch.setattr(watchman, name, seconds)


@asynccontextmanager
async def watched(worker: Worker, answers: Callable[[], Awaitable[None]] | None = None) -> AsyncIterator[None]:
    task = asyncio.create_task(watchman.keep_watching(worker, answers or worker.answers))
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.001)


async def test_one_that_answers_is_asked_again() -> None:
    worker = Worker()
    worker.ready.set()
    worker.answering.set()
    async with watched(worker):
        await until(lambda: worker.asked > 3)
    assert not worker.replaced.is_set()


async def test_one_that_does_not_is_replaced_and_the_next_is_asked() -> None:
    worker = Worker()
    worker.ready.set()
    async with watched(worker):
        await worker.replaced.wait()
        assert worker.asked == 1
        worker.pid, worker.reason = 2, ""
        worker.answering.set()
        worker.ready.set()
        await until(lambda: worker.asked > 3)
    assert worker.reason == ""


async def test_one_that_is_not_up_is_not_asked() -> None:
    worker = Worker()
    async with watched(worker):
        for _ in range(20):
            await asyncio.sleep(0.001)
    assert worker.asked == 0


async def test_one_that_ended_meanwhile_is_left_alone() -> None:
    worker = Worker()
    worker.ready.set()
    async with watched(worker):
        await until(lambda: worker.asked == 1)
        worker.pid = 2
        await until(lambda: worker.asked == 2)
    assert not worker.replaced.is_set()


async def test_time_in_which_all_were_stopped_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock jumps by far more than the patience, once, as when a machine was suspended; then the worker answers."""
    monkeypatch.setattr(watchman, "PIECE_SECONDS", 10.0)
    loop, worker = asyncio.get_running_loop(), Worker()
    worker.ready.set()
    before, jumped = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: before() + jumped)
    async with watched(worker):
        await until(lambda: worker.asked == 1)
        jumped = 10.0 * watchman.PIECES + 100.0
        for _ in range(20):
            await asyncio.sleep(0.001)
        worker.answering.set()
        await until(lambda: worker.asked >= 2)
    assert not worker.replaced.is_set()
