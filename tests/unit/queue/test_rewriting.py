"""A log that is there is written to the disk as it reads, before anything in it is believed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from relay.queue.rewriting import write_log_anew
from tests.unit.queue.recording_vfs import Record, RecordingVfs


@pytest.fixture
def vfs() -> Iterator[RecordingVfs]:
    watched = RecordingVfs("rewriting", Record())
    yield watched
    watched.unregister()


def log_of(database: Path, octets: bytes) -> Path:
    database.touch()
    path = database.with_name("q-wal")
    path.write_bytes(octets)
    return path


@pytest.mark.parametrize("size", [2, 65_536, 400_001])
def test_all_of_it_is_written_at_its_place_and_then_synced(vfs: RecordingVfs, tmp_path: Path, size: int) -> None:
    content = bytes(number % 251 for number in range(size))
    path = log_of(tmp_path / "q", content)
    write_log_anew(tmp_path / "q", vfs.vfs_name)
    assert path.read_bytes() == content
    events = vfs.record.events
    assert [one.what for one in events[-2:]] == ["write", "sync"]
    assert {one.file for one in events} == {"q-wal"}
    assert b"".join(one.data for one in events) == content


@pytest.mark.parametrize("octets", [None, b""])
def test_without_a_log_nothing_is_done(vfs: RecordingVfs, tmp_path: Path, octets: bytes | None) -> None:
    if octets is not None:
        log_of(tmp_path / "q", octets)
    write_log_anew(tmp_path / "q", vfs.vfs_name)
    assert vfs.record.events == []
    assert (tmp_path / "q-wal").exists() == (octets is not None)


def test_what_the_disk_says_is_passed_on(vfs: RecordingVfs, tmp_path: Path) -> None:
    log_of(tmp_path / "q", b"x" * 100)
    vfs.failure = apsw.IOError("disk I/O error")
    with pytest.raises(apsw.IOError):
        write_log_anew(tmp_path / "q", vfs.vfs_name)
    vfs.failure, vfs.sync_failure = None, apsw.IOError("disk I/O error")
    with pytest.raises(apsw.IOError):
        write_log_anew(tmp_path / "q", vfs.vfs_name)
