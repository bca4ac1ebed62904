"""What signals ask for before the relay is up is done when it is."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from relay.app.signals import Signals


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    numbers = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
    found = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, found, strict=True):
        signal.signal(number, handler)


class Relay:
    """Counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.told = asyncio.Event()

    def stop(self) -> None:
        self._note("stop")

    def reload(self) -> None:
        self._note("reload")

    def _note(self, what: str) -> None:
        self.asked.append(what)
        self.told.set()


async def test_a_reload_asked_for_before_the_loop_hears_of_it() -> None:
    relay, signals = Relay(), Signals()
    os.kill(os.getpid(), signal.SIGHUP)
    signals.listen()
    assert relay.asked == []
    signals.answered_by(stop=relay.stop, reload=relay.reload)
    assert relay.asked == ["reload"]


@pytest.mark.parametrize(
    ("early", "done"),
    [
        ([signal.SIGHUP, signal.SIGHUP], ["reload"]),
        ([signal.SIGTERM], ["stop"]),
        ([signal.SIGHUP, signal.SIGINT], ["stop"]),
        ([], []),
    ],
)
async def test_what_is_asked_for_during_the_start_is_done_once_after_it(
    early: list[signal.Signals], done: list[str]
) -> None:
    relay, signals = Relay(), Signals()
    signals.listen()
    for number in early:
        os.kill(os.getpid(), number)
    for _ in range(3):
        await asyncio.sleep(0)  # the loop reads the signals that it was given
    signals.answered_by(stop=relay.stop, reload=relay.reload)
    assert relay.asked == done


async def test_a_running_relay_does_at_once_what_it_is_asked_for() -> None:
    relay, signals = Relay(), Signals()
    signals.listen()
    signals.answered_by(stop=relay.stop, reload=relay.reload)
    for number, done in ((signal.SIGHUP, "reload"), (signal.SIGTERM, "stop"), (signal.SIGINT, "stop")):
        relay.told.clear()
        os.kill(os.getpid(), number)
        await relay.told.wait()
        assert relay.asked.pop() == done
