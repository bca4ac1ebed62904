"""What the service manager hears, over a real socket of its kind."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relay.app.notify import Notifier

PATIENCE = 60.0


@contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        listening.settimeout(PATIENCE)
        yield listening


def heard(listening: socket.socket) -> list[str]:
    return listening.recv(4096).decode().split("\n")


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


def test_a_life(address: str) -> None:
    with manager(address) as listening:
        notifier = Notifier(address)
        notifier.ready()
        assert heard(listening) == ["READY=1", "STATUS=ready"]
        with notifier.reloading():
            first, second, _ = heard(listening)
            assert first == "RELOADING=1"
            assert second.startswith("MONOTONIC_USEC=")
        assert heard(listening) == ["READY=1"]
        notifier.stopping(30)
        assert heard(listening) == ["STOPPING=1", "STATUS=stopping", "EXTEND_TIMEOUT_USEC=40000000"]


def test_a_reload_that_fails_ends_too(address: str) -> None:
    with manager(address) as listening:
        notifier = Notifier(address)
        with pytest.raises(ValueError, match="odd"), notifier.reloading():
            raise ValueError("odd")
        assert heard(listening)[0] == "RELOADING=1"
        assert heard(listening) == ["READY=1"]


@pytest.mark.skipif(sys.platform != "linux", reason="the abstract namespace is Linux's")
def test_the_abstract_namespace() -> None:
    name = f"@dane-relay-test-{os.getpid()}"
    with manager(name) as listening:
        Notifier(name).ready()
        assert heard(listening)[0] == "READY=1"


def test_nobody_there_is_no_trouble(address: str) -> None:
    Notifier().ready()
    Notifier(address).ready()  # no such file
    with manager(address):
        pass
    Notifier(address).ready()  # nobody reads it any more
    assert not Notifier().listens


@pytest.mark.parametrize(
    ("environment", "listens", "watchdog"),
    [
        ({}, False, 0),
        ({"NOTIFY_SOCKET": "/run/n"}, True, 0),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "30000000"}, True, 30),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, True, 30),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, True, 0),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "soon"}, True, 0),
        ({"NOTIFY_SOCKET": "vsock:2:1", "WATCHDOG_USEC": "1"}, False, 0),
        ({"WATCHDOG_USEC": "1"}, False, 0),
    ],
)
def test_the_environment(environment: dict[str, str], listens: bool, watchdog: float) -> None:
    notifier = Notifier.from_environment(environment, 7)
    assert (notifier.listens, notifier._watchdog) == (listens, watchdog)


async def test_the_watchdog_hears_nothing_while_the_queue_does_not_answer(address: str) -> None:
    calls = 0

    async def alive() -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            await asyncio.Event().wait()

    with manager(address) as listening:
        listening.setblocking(False)
        notifier = Notifier(address, watchdog=0.02)
        telling = asyncio.create_task(notifier.keep_telling(alive, lambda: "fine"))
        async with asyncio.timeout(PATIENCE):
            first = await asyncio.get_running_loop().sock_recv(listening, 4096)
        telling.cancel()
        assert first == b"STATUS=fine\nWATCHDOG=1"
        assert calls >= 3


async def test_without_a_watchdog_there_is_a_status_and_without_a_manager_nothing(address: str) -> None:
    async def alive() -> None:
        pass

    await Notifier().keep_telling(alive, lambda: "unheard")
    with manager(address) as listening:
        telling = asyncio.create_task(Notifier(address).keep_telling(alive, lambda: "fine"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert heard(listening) == ["STATUS=fine"]
        telling.cancel()
