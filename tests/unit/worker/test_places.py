"""Places that processes share: locks of real processes on a real file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.scheduling.places import Taken
from relay.worker.places import STAND_BACK_SECONDS, TURN_SECONDS, SharedPlaces

# Another process on the same file: takes and leaves as it is told, and answers each line with a word.
_OTHER = """
import sys
from pathlib import Path
from relay.worker.places import SharedPlaces
places = SharedPlaces(Path(sys.argv[1]), limit=int(sys.argv[2]), processes=2)
for line in sys.stdin:
    word, name, now = line.split()
    if word == "take":
        print(places.take(name, float(now)).name, flush=True)
    elif word == "waive":
        print(places.waive(name), flush=True)
    else:
        print(places.leave(name, float(now)), flush=True)
"""


class Other:
    def __init__(self, path: Path, limit: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _OTHER, str(path), str(limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def say(self, word: str, name: str = "d", now: float = 0.0) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word} {name} {now}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def take(self, name: str = "d", now: float = 0.0) -> Taken:
        return Taken[self.say("take", name, now)]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "places"


@pytest.fixture(params=[4])
def other(request: pytest.FixtureRequest, path: Path) -> Iterator[Other]:
    other = Other(path, request.param)
    yield other
    other.kill()
    for stream in (other.process.stdin, other.process.stdout):
        assert stream is not None
        stream.close()


@pytest.fixture(params=[4])
def places(request: pytest.FixtureRequest, path: Path) -> Iterator[SharedPlaces]:
    places = SharedPlaces(path, limit=request.param, processes=2)
    yield places
    places.close()


def test_one_process_alone_has_all_places_and_no_more(places: SharedPlaces) -> None:
    assert [places.take("d", 0.0) for _ in range(5)] == [Taken.YES] * 4 + [Taken.ENOUGH]
    assert places.held("d") == 4
    assert places.take("e", 0.0) is Taken.YES, "another destination has places of its own"


def test_two_processes_have_no_more_than_the_limit_together(places: SharedPlaces, other: Other) -> None:
    mine = sum(places.take("d", 0.0) is Taken.YES for _ in range(3))
    theirs = sum(other.take() is Taken.YES for _ in range(4))
    assert (mine, theirs) == (3, 1)
    places.leave("d", 0.0)
    assert other.take() is Taken.YES
    assert other.take() is Taken.ENOUGH


def test_who_has_more_than_its_share_takes_no_more_while_another_wants_its_own(
    places: SharedPlaces, other: Other
) -> None:
    assert [places.take("d", 0.0) for _ in range(4)] == [Taken.YES] * 4
    assert other.take() is Taken.FULL
    places.leave("d", 0.0)
    assert places.take("d", 1.0) is Taken.ENOUGH, "three are more than the share of two"
    assert other.take() is Taken.YES
    assert other.take() is Taken.FULL
    places.leave("d", 1.0)
    assert places.take("d", 2.0) is Taken.ENOUGH
    assert other.take() is Taken.YES
    other.say("waive")
    other.say("leave")
    assert places.take("d", 3.0) is Taken.YES, "nobody wants it now"


def test_what_a_killed_process_held_is_free_at_once(places: SharedPlaces, other: Other) -> None:
    assert [other.take() for _ in range(4)] == [Taken.YES] * 4
    assert places.take("d", 0.0) is Taken.FULL
    other.kill()
    assert [places.take("d", 0.0) for _ in range(4)] == [Taken.YES] * 4


@pytest.mark.parametrize(("places", "other"), [(1, 1)], indirect=True)
def test_fewer_places_than_processes_go_round(places: SharedPlaces, other: Other) -> None:
    assert places.take("d", 0.0) is Taken.YES
    assert other.take(now=0.0) is Taken.FULL
    places.leave("d", TURN_SECONDS / 2)
    assert places.take("d", TURN_SECONDS / 2) is Taken.YES, "its turn is not over"
    over = TURN_SECONDS * 1.5
    places.leave("d", over)
    assert places.take("d", over) is Taken.FULL
    assert other.take(now=over) is Taken.YES
    assert places.take("d", over + STAND_BACK_SECONDS * 2) is Taken.FULL, "it is taken"
    other.say("leave", now=over)
    assert places.take("d", over + STAND_BACK_SECONDS * 2) is Taken.YES


def test_a_wish_does_not_outlive_its_process(places: SharedPlaces, other: Other) -> None:
    assert [places.take("d", 0.0) for _ in range(4)] == [Taken.YES] * 4
    assert other.take() is Taken.FULL
    other.kill()
    places.leave("d", 0.0)
    assert places.take("d", 1.0) is Taken.YES


def test_the_file_of_others_is_not_followed_through_a_link(tmp_path: Path, path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"symbolic|many"):
        SharedPlaces(path, limit=4, processes=2)
