"""A backup of a queue in use: whole, of one moment, and a queue again when it is unpacked."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from pathlib import Path

import pytest

from relay.queue import backup
from relay.queue.backup import BackedUp, BackupFailed
from relay.queue.health import Disk
from relay.queue.sqlite import SqliteStore
from relay.queue.store import EntryState
from tests.unit.queue.recording_vfs import PATIENCE
from tests.unit.queue.samples import SENT, T0, lease, new, put, read, settlement

LARGE = b"large body " * 20_000


async def opened(directory: Path, *, floor: int = 0, free: int = 10**12) -> SqliteStore:
    directory.mkdir(exist_ok=True)
    return await SqliteStore.open(
        directory / "queue.sqlite", clock=lambda: T0, floor=floor, look=lambda path: Disk(free=free)
    )


async def backed_up(store: SqliteStore, target: Path) -> BackedUp:
    return [step async for step in store.backup(target)][-1]


def restore(archive: Path, state: Path) -> None:
    """As docs/reliability.md says."""
    state.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", state], check=True)


async def test_what_was_queued_is_in_the_backup(tmp_path: Path) -> None:
    store = await opened(tmp_path / "state")
    await put(store, new("A1"), b"small")
    await put(store, new("A2", "one@a.example", "two@b.example"), LARGE)
    await put(store, new("A3"), LARGE)
    for held in await lease(store, limit=1):
        await store.settle(settlement(held, SENT))
    await lease(store, limit=1)
    done = await backed_up(store, tmp_path / "backup.tar")
    assert (done.messages, done.files) == (2, 2)
    assert done.octets == (tmp_path / "backup.tar").stat().st_size
    assert (tmp_path / "backup.tar").stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["backup.tar", "state"]
    await put(store, new("A4"))
    await store.close()

    restore(tmp_path / "backup.tar", tmp_path / "restored")
    store = await opened(tmp_path / "restored")
    assert [entry.message.queue_id for entry in await store.entries(limit=9)] == ["A2", "A3"]
    assert await read(store, "A2") == await read(store, "A3") == LARGE
    assert (await store.counts()).deliveries[EntryState.ACTIVE] == 0
    assert len(await lease(store)) == 3
    await store.close()


async def test_bodies_that_are_settled_meanwhile_are_in_it_and_then_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot has them, so the copy must; afterwards nothing is left of them."""
    store = await opened(tmp_path / "state")
    await put(store, new("A1"), LARGE)
    (held,) = await lease(store)
    between, go_on = threading.Event(), threading.Event()
    contents = backup._contents

    def stopped(copy: Path) -> tuple[int, list[str]]:
        between.set()
        assert go_on.wait(PATIENCE)
        return contents(copy)

    monkeypatch.setattr(backup, "_contents", stopped)
    working = asyncio.create_task(backed_up(store, tmp_path / "backup.tar"))
    assert await asyncio.to_thread(between.wait, PATIENCE)
    assert await store.settle(settlement(held, SENT)), "the queue is in use meanwhile"
    await put(store, new("A2"), LARGE)
    go_on.set()
    done = await working
    assert (done.messages, done.files) == (1, 1)
    assert [name.split(".")[0] for name in os.listdir(tmp_path / "state" / "queue.sqlite.spool")] == ["A2"]
    await store.close()
    restore(tmp_path / "backup.tar", tmp_path / "restored")
    store = await opened(tmp_path / "restored")
    assert await read(store, "A1") == LARGE
    await store.close()


async def test_nothing_is_written_over(tmp_path: Path) -> None:
    store = await opened(tmp_path / "state")
    (tmp_path / "backup.tar").write_text("precious")
    with pytest.raises(BackupFailed, match="is there already"):
        await backed_up(store, tmp_path / "backup.tar")
    assert (tmp_path / "backup.tar").read_text() == "precious"
    with pytest.raises(BackupFailed, match="No such file"):
        await backed_up(store, tmp_path / "missing" / "backup.tar")
    await store.close()


async def test_room_for_mail_is_left_alone(tmp_path: Path) -> None:
    store = await opened(tmp_path / "state", floor=1_000, free=1_000)
    with pytest.raises(BackupFailed, match="write it to another disk"):
        await backed_up(store, tmp_path / "backup.tar")
    assert os.listdir(tmp_path) == ["state"]
    await store.close()


async def test_a_backup_that_nobody_waits_for_is_given_up(tmp_path: Path) -> None:
    store = await opened(tmp_path / "state")
    for number in range(20):
        await put(store, new(f"A{number}"), LARGE)
    steps = store.backup(tmp_path / "backup.tar")
    asking = asyncio.ensure_future(anext(steps))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await steps.aclose()
    left = sorted(os.listdir(tmp_path))
    assert left in (["state"], ["backup.tar", "state"]), "whole or not at all"
    await store.close()
