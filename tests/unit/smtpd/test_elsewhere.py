"""What workers count together: two of them in one process, on the same memory."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from relay.smtpd.elsewhere import ALONE, BUCKETS, FOREVER, SLOTS, SharedCounts, SharedMemory

NOW = 1000.0


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    memory = SharedMemory.made(3)
    yield memory
    memory.close()


def counts(memory: SharedMemory) -> list[SharedCounts]:
    return [SharedCounts(memory, worker) for worker in range(memory.workers)]


def test_each_has_the_sum_of_the_others(memory: SharedMemory) -> None:
    one, two, three = counts(memory)
    one.tell("open", "192.0.2.1", 3, FOREVER, NOW)
    two.tell("open", "192.0.2.1", 4, FOREVER, NOW)
    two.tell("open", "192.0.2.2", 5, FOREVER, NOW)
    two.tell("rate", "192.0.2.1", 6, FOREVER, NOW)
    assert [each.count("open", "192.0.2.1", NOW) for each in (one, two, three)] == [4, 3, 7]
    assert three.count("open", "192.0.2.2", NOW) == 5
    two.tell("open", "192.0.2.1", 1, FOREVER, NOW)
    assert three.count("open", "192.0.2.1", NOW) == 4
    two.tell("open", "192.0.2.1", 0, FOREVER, NOW)
    one.tell("open", "192.0.2.1", 0, FOREVER, NOW)
    one.tell("open", "192.0.2.1", 0, FOREVER, NOW)
    assert three.count("open", "192.0.2.1", NOW) == 0


def test_a_count_ends_with_its_time(memory: SharedMemory) -> None:
    one, two, _ = counts(memory)
    one.tell("rate", "a", 3, NOW + 60, NOW)
    assert two.count("rate", "a", NOW + 59.9) == 3
    assert two.count("rate", "a", NOW + 60) == 0
    one.tell("rate", "a", 1, NOW + 121, NOW + 61)
    assert two.count("rate", "a", NOW + 62) == 1


def test_what_a_dead_worker_counted_is_cleared(memory: SharedMemory) -> None:
    one, two, three = counts(memory)
    one.tell("open", "a", 1, FOREVER, NOW)
    two.tell("open", "a", 2, FOREVER, NOW)
    memory.clear(1)
    assert three.count("open", "a", NOW) == 1


def test_slots_are_used_again(memory: SharedMemory) -> None:
    """More clients than there are slots, one after the other, and none is forgotten."""
    one, two, _ = counts(memory)
    for number in range(2 * BUCKETS * SLOTS):
        one.tell("open", f"c{number}", 1, FOREVER, NOW)
        assert two.count("open", f"c{number}", NOW) == 1
        one.tell("open", f"c{number}", 0, FOREVER, NOW)


def test_in_a_full_bucket_a_count_is_not_shared_and_none_is_lost(memory: SharedMemory) -> None:
    one, two, _ = counts(memory)
    names = [f"c{number}" for number in range(2 * BUCKETS * SLOTS)]
    for number, name in enumerate(names):
        one.tell("rate", name, 1 + number % 5, NOW + 60, NOW)
    seen = [two.count("rate", name, NOW) for name in names]
    assert all(count in (0, 1 + number % 5) for number, count in enumerate(seen))
    assert sum(count > 0 for count in seen) > 0.8 * BUCKETS * SLOTS
    one.tell("rate", names[seen.index(0)], 7, NOW + 120, NOW + 61)
    assert two.count("rate", names[seen.index(0)], NOW + 62) == 7, "those that ended make room"


def test_the_memory_is_inherited_and_outlives_a_kill() -> None:
    memory = SharedMemory.made(2)
    pid = os.fork()
    if pid == 0:
        theirs = SharedMemory(os.dup(memory.descriptor))
        SharedCounts(theirs, 1).tell("open", "a", 9, FOREVER, NOW)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert SharedCounts(memory, 0).count("open", "a", NOW) == 9
    memory.clear(1)
    assert SharedCounts(memory, 0).count("open", "a", NOW) == 0
    memory.close()


def test_where_a_client_is_counted_cannot_be_foreseen() -> None:
    one, other = SharedMemory.made(1), SharedMemory.made(1)
    assert one.secret != other.secret
    one.close()
    other.close()


def test_alone_there_are_no_others() -> None:
    ALONE.tell("open", "a", 3, FOREVER, NOW)
    assert ALONE.count("open", "a", NOW) == 0
