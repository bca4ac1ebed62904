from __future__ import annotations

import asyncio

import pytest

from relay.smtpd.alarms import Alarms
from relay.smtpd.watch import Watch

LONG = 3600.0


async def forever() -> None:
    await asyncio.Event().wait()


async def test_time_over_is_a_timeout_and_the_next_wait_has_its_own_time() -> None:
    watch = Watch(Alarms())
    for _ in range(2):
        with pytest.raises(TimeoutError), watch.within(0.0):
            await forever()
    with watch.within(LONG):
        await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    watch.close()


async def test_a_limit_that_was_set_for_an_earlier_wait_does_not_end_a_later_one() -> None:
    watch = Watch(Alarms())
    with watch.within(0.001):
        await asyncio.sleep(0)
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.02, done.set_result, "in time")
    with watch.within(LONG):
        assert await done == "in time"
    watch.close()


async def test_a_shorter_limit_after_a_longer_one_holds() -> None:
    watch = Watch(Alarms())
    with watch.within(LONG):
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError), watch.within(0.001):
        await forever()
    watch.close()


async def test_a_wait_can_be_shortened_from_outside_never_lengthened() -> None:
    watch = Watch(Alarms())
    watch.shorten(0.0)  # nobody waits: nothing happens
    asyncio.get_running_loop().call_soon(watch.shorten, 0.0)
    with pytest.raises(TimeoutError), watch.within(LONG):
        await forever()
    asyncio.get_running_loop().call_soon(watch.shorten, LONG)
    with pytest.raises(TimeoutError), watch.within(0.01):
        await forever()
    watch.close()


async def test_a_wait_can_begin_anew_longer_or_shorter() -> None:
    watch = Watch(Alarms())
    watch.renew(0.0)  # nobody waits: nothing happens
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    with watch.within(0.02):
        watch.renew(LONG)
        loop.call_later(0.05, done.set_result, "in time")
        assert await done == "in time"
    loop.call_soon(watch.renew, 0.001)
    with pytest.raises(TimeoutError), watch.within(LONG):
        await forever()
    watch.close()


async def test_a_cancellation_stays_one() -> None:
    watch = Watch(Alarms())
    began = asyncio.Event()

    async def waits() -> None:
        with watch.within(LONG):
            began.set()
            await forever()

    task = asyncio.create_task(waits())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    watch.close()


async def test_a_cancellation_that_comes_with_the_end_of_the_time_wins() -> None:
    watch = Watch(Alarms())
    began = asyncio.Event()

    async def waits() -> None:
        with watch.within(LONG):
            began.set()
            await forever()

    task = asyncio.create_task(waits())
    await began.wait()
    watch.shorten(-1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    watch.close()


async def test_an_error_passes_through() -> None:
    watch = Watch(Alarms())
    with pytest.raises(OSError, match="reset"), watch.within(LONG):
        raise OSError("reset")
    watch.close()


async def test_one_wait_at_a_time() -> None:
    watch = Watch(Alarms())
    with watch.within(LONG), pytest.raises(RuntimeError), watch.within(LONG):
        await asyncio.sleep(0)
    watch.close()
