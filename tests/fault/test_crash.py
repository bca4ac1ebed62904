"""Kill -9 under load (``crash.py``): nothing accepted is lost, and what comes twice is excused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from tests.fault.crash import Figures, Harness, Sent, run
from tests.fault.receivers import Taken

LONG_ROUNDS = 1_000
SIDE_BY_SIDE = 4


def test_twenty_rounds(tmp_path: Path) -> None:
    harness = run(20, 5, tmp_path)
    figures = harness.figures
    assert harness.troubles == []
    assert (figures.lost, figures.damaged, figures.duplicates_inexcusable) == (0, 0, 0)
    assert figures.duplicates_reply_read == 0, "a session went on behind its 250 before the result was committed"
    assert figures.rounds == 20
    assert figures.kills >= 20
    assert figures.accepted > 200, "there was no load"
    assert figures.duplicates_reply_to_come > 0, "no kill hit a delivery"
    assert figures.deferrals > 0


@pytest.mark.long
def test_a_thousand_rounds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fault.crash", "--rounds", str(LONG_ROUNDS // SIDE_BY_SIDE)]
    runs = [
        subprocess.Popen([*command, "--seed", str(seed), "--tally", str(tmp_path / f"{seed}.json")])
        for seed in range(1, SIDE_BY_SIDE + 1)
    ]
    statuses = [one.wait() for one in runs]
    total = Figures()
    for seed in range(1, SIDE_BY_SIDE + 1):
        total.add(Figures(**json.loads((tmp_path / f"{seed}.json").read_text())))
    sys.stdout.write(f"{total}\n")
    assert statuses == [0] * SIDE_BY_SIDE
    assert total.rounds == LONG_ROUNDS
    assert (total.lost, total.damaged, total.duplicates_inexcusable) == (0, 0, 0)
    assert total.duplicates_reply_read == 0, "a session went on behind its 250 before the result was committed"


def taken(token: str, life: int, *, age: float = -1.0, followed: bool = False) -> Taken:
    """A copy whose 250 was so old when its life ended."""
    answered = 100.0 * life - age
    return Taken(
        token=token, queue_id="Q1", recipients=("a@x",), life=life, whole=True, answered=answered, followed=followed
    )


@pytest.mark.parametrize(
    ("copies", "logged", "found"),
    [
        ([], set(), "lost"),
        ([taken("t", 1)], set(), ""),
        ([taken("t", 1), taken("t", 2, followed=True)], set(), "duplicates_reply_to_come"),
        ([taken("t", 2, followed=True), taken("t", 1)], set(), "duplicates_reply_to_come"),
        ([taken("t", 1, age=0.002), taken("t", 2)], set(), "duplicates_reply_10_ms_old"),
        ([taken("t", 1, age=0.02), taken("t", 2)], set(), "duplicates_reply_100_ms_old"),
        ([taken("t", 1, age=0.2), taken("t", 2)], set(), "duplicates_reply_older"),
        ([taken("t", 1, age=0.002, followed=True), taken("t", 2)], set(), "duplicates_reply_read"),
        ([taken("t", 1, followed=True), taken("t", 2)], {(1, "Q1", "a@x")}, "duplicates_inexcusable"),
        ([taken("t", 1), taken("t", 1)], set(), "duplicates_inexcusable"),
    ],
)
def test_the_judgement(tmp_path: Path, copies: list[Taken], logged: set[tuple[int, str, str]], found: str) -> None:
    """The harness sees what it is there to see."""
    harness = Harness(tmp_path, 1)
    harness.zygote.kill()
    harness.logged, harness.killed = logged, {1: 100.0, 2: 200.0}
    harness.judge(Sent("t", ("a@x",), "Q1"), "a@x", copies)
    names = [one.name for one in fields(Figures) if one.name == "lost" or one.name.startswith("duplicates")]
    assert {name for name in names if getattr(harness.figures, name)} == ({found} if found else set())
    assert bool(harness.troubles) == (found in {"lost", "duplicates_inexcusable"})
