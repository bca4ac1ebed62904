"""That ``put`` returns after a sync of what it wrote (P1). Killing a process does not show this: the kernel keeps what
was written; only a record of the syncs does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import pytest

from relay.queue.sqlite import SqliteStore
from tests.unit.queue.recording_vfs import Happened, Record, RecordingFiles, RecordingVfs
from tests.unit.queue.samples import SENT, T0, chunks, lease, new, put, settlement

MARK = b"this is the message that must not be lost"


@pytest.fixture
def record() -> Record:
    return Record()


@pytest.fixture
def vfs(record: Record) -> Iterator[str]:
    name = "recording"
    watched = RecordingVfs(name, record)
    yield name
    watched.unregister()


def missing_syncs(events: Sequence[Happened]) -> list[str]:
    """What of the marked message was not synced when ``put`` returned: each write without a later sync of its file."""
    returned = [index for index, event in enumerate(events) if event.what == "returned"]
    first = next((index for index, event in enumerate(events) if MARK in event.data), None)
    if first is None or not returned or returned[0] < first:
        return ["the message was not written before put returned"]
    span = events[first : returned[0]]
    return [
        f"write {index} to {event.file}"
        for index, event in enumerate(span)
        if event.what == "write"
        and not any(later.what == "sync" and later.file == event.file for later in span[index:])
    ]


async def put_marked(
    path: Path, vfs: str, record: Record, synchronous: Literal["FULL", "NORMAL"], body: bytes
) -> list[Happened]:
    """Open a store, put some mail before, then the marked message; what happened from the last on."""
    store = await SqliteStore.open(
        path, clock=lambda: T0, vfs=vfs, synchronous=synchronous, files=RecordingFiles(record)
    )
    for number in range(3):
        await put(store, new(f"B{number}"))
    record.events.clear()
    await store.put(new("A1"), chunks(body))
    record.add("returned")
    events = list(record.events)
    await store.close()
    return events


@pytest.mark.parametrize("size", [0, 30_000])
async def test_a_small_message_is_synced_before_put_returns(
    tmp_path: Path, vfs: str, record: Record, size: int
) -> None:
    events = await put_marked(tmp_path / "q", vfs, record, "FULL", MARK + b"x" * size)
    assert {event.file for event in events if MARK in event.data} == {"q-wal"}
    assert missing_syncs(events) == []


async def test_the_check_sees_that_synchronous_normal_does_not_sync(tmp_path: Path, vfs: str, record: Record) -> None:
    events = await put_marked(tmp_path / "q", vfs, record, "NORMAL", MARK)
    missing = missing_syncs(events)
    assert missing
    assert all("q-wal" in one for one in missing)


async def test_a_large_message_is_synced_in_its_file_before_its_row_is_written(
    tmp_path: Path, vfs: str, record: Record
) -> None:
    events = await put_marked(tmp_path / "q", vfs, record, "FULL", MARK + b"x" * 500_000)
    assert missing_syncs(events) == []
    (name,) = (event.file for event in events if event.what == "rename")
    steps: list[tuple[str, Callable[[Happened], bool]]] = [
        ("write", lambda event: MARK in event.data),
        ("sync", lambda event: event.file == f"{name}.tmp"),
        ("rename", lambda event: event.file == name),
        ("sync directory", lambda event: event.file == "q.spool"),
        ("write", lambda event: event.file == "q-wal" and name.encode() in event.data),
        ("sync", lambda event: event.file == "q-wal"),
        ("returned", lambda event: True),
    ]
    order = [
        next(index for index, event in enumerate(events) if event.what == what and fits(event)) for what, fits in steps
    ]
    assert order == sorted(order)
    last_write = max(index for index, event in enumerate(events) if event.file == f"{name}.tmp" and event.data)
    assert last_write < order[1]


async def test_a_large_message_under_synchronous_normal_is_seen_too(tmp_path: Path, vfs: str, record: Record) -> None:
    events = await put_marked(tmp_path / "q", vfs, record, "NORMAL", MARK + b"x" * 500_000)
    assert any("q-wal" in one for one in missing_syncs(events))


async def test_a_file_layer_that_does_not_sync_is_seen(tmp_path: Path, vfs: str, record: Record) -> None:
    class Forgetful(RecordingFiles):
        def sync(self, descriptor: int) -> None:
            pass

    store = await SqliteStore.open(tmp_path / "q", clock=lambda: T0, vfs=vfs, files=Forgetful(record))
    record.events.clear()
    await store.put(new("A1"), chunks(MARK + b"x" * 500_000))
    record.add("returned")
    assert any(".tmp" in one for one in missing_syncs(record.events))
    await store.close()


async def test_a_result_is_synced_before_settle_returns(tmp_path: Path, vfs: str, record: Record) -> None:
    store = await SqliteStore.open(tmp_path / "q", clock=lambda: T0, vfs=vfs)
    await put(store, new("A1"))
    (held,) = await lease(store)
    record.events.clear()
    await store.settle(settlement(held, SENT))
    log = [event.what for event in record.events if event.file == "q-wal"]
    assert "write" in log
    assert log[-1] == "sync"
    await store.close()
