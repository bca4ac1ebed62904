"""Files watched from outside: a change counts once it is complete, and once."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from relay.app.watch import Look, keep_watching, look_at


class Enough(Exception):  # noqa: N818 - it ends a test's loop
    """The script has come to its end."""


@dataclass
class Watching:
    """Steps of a test in place of time, and what was reread."""

    files: tuple[Path, ...]
    steps: list[Callable[[], object]]
    refuse: bool = False
    reread: list[tuple[str, ...]] = field(default_factory=list)
    known: Look = field(default_factory=dict)

    async def run(self) -> list[tuple[str, ...]]:
        self.known = look_at(self.files)
        with pytest.raises(Enough):
            await keep_watching(lambda: self.known, self._reread, sleep=self._sleep)
        return self.reread

    async def _sleep(self, seconds: float) -> None:
        assert seconds > 0
        if not self.steps:
            raise Enough
        self.steps.pop(0)()

    async def _reread(self, changed: tuple[Path, ...]) -> None:
        self.reread.append(tuple(file.name for file in changed))
        self.known = look_at(self.files)


def nothing() -> None:
    """A look at which nothing is new."""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    two.write_text("2")
    return one, two


async def test_what_does_not_change_is_left_alone(files: tuple[Path, Path]) -> None:
    assert await Watching(files, [nothing] * 5).run() == []


async def test_a_change_is_told_once_and_only_when_it_is_complete(files: tuple[Path, Path]) -> None:
    one, _ = files
    steps: list[Callable[[], object]] = [
        partial(one.write_text, "half"),
        partial(one.write_text, "half of it all"),
        nothing,
        nothing,
        nothing,
    ]
    watching = Watching(files, steps)
    assert await watching.run() == [("one",)]
    assert not watching.steps


async def test_a_file_that_is_replaced_or_goes_or_comes_back_counts(files: tuple[Path, Path]) -> None:
    one, two = files

    def replace() -> None:
        new = one.with_name("new")
        new.write_text("1")
        os.utime(new, ns=(one.stat().st_mtime_ns, one.stat().st_mtime_ns))
        new.rename(one)

    steps: list[Callable[[], object]] = [
        replace,
        nothing,
        two.unlink,
        nothing,
        partial(two.write_text, "2"),
        nothing,
    ]
    assert await Watching(files, steps).run() == [("one",), ("two",), ("two",)]


async def test_what_somebody_else_read_meanwhile_is_not_read_again(files: tuple[Path, Path]) -> None:
    one, _ = files
    watching = Watching(files, [])

    def reload_by_hand() -> None:
        watching.known = look_at(files)

    watching.steps = [partial(one.write_text, "new"), reload_by_hand, nothing, nothing]
    assert await watching.run() == []
