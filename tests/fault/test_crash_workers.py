"""Kill -9 of workers and their parent (``crash_workers.py``): nothing is lost or weaker, and limits hold over all of them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.fault.crash import Sent
from tests.fault.crash_workers import GUARDED, LIMIT, WorkersHarness, most_at_a_time, run
from tests.fault.receivers import Stay, Taken

LONG_ROUNDS = 100


def attack(rounds: int, seed: int, directory: Path) -> None:
    harness = run(rounds, seed, directory)
    figures = harness.figures
    sys.stdout.write(f"{json.dumps(asdict(figures))} {harness.worker_kills} {harness.most} {harness.guarded}\n")
    assert harness.troubles == []
    assert (figures.lost, figures.damaged, figures.duplicates_inexcusable) == (0, 0, 0)
    assert figures.rounds == rounds + 1
    assert harness.worker_kills >= rounds
    assert figures.kills > 0, "the parent was never killed"
    assert figures.accepted > 50 * rounds, "there was no load"
    assert figures.duplicates_reply_to_come > 0, "no kill hit a delivery"
    assert harness.guarded > 5 * rounds, "nothing came to the guarded receiver"
    assert harness.most == LIMIT, "the limit was never reached"


def test_some_rounds(tmp_path: Path) -> None:
    attack(3, 11, tmp_path)


@pytest.mark.long
def test_a_hundred_rounds(tmp_path: Path) -> None:
    attack(LONG_ROUNDS, 12, tmp_path)


def taken(life: int, *, followed: bool = False) -> Taken:
    return Taken(
        token="t", queue_id="Q", recipients=("a@x",), life=life, whole=True, answered=float(life), followed=followed
    )


@pytest.mark.parametrize(
    ("copies", "troubles"),
    [
        ([], 1),
        ([taken(1)], 0),
        ([taken(1), taken(2, followed=True)], 0),
        ([taken(1, followed=True), taken(2)], 1),
        ([taken(1), taken(1)], 1),
    ],
)
def test_the_judgement(tmp_path: Path, copies: list[Taken], troubles: int) -> None:
    """The harness sees what it is there to see."""
    harness = WorkersHarness(tmp_path, 1)
    harness.zygote.kill()
    harness.judge(Sent("t", ("a@x",), "Q"), "a@x", copies)
    assert len(harness.troubles) == troubles


def test_what_came_weaker_is_seen(tmp_path: Path) -> None:
    harness = WorkersHarness(tmp_path, 1)
    harness.zygote.kill()
    harness.receivers[GUARDED].taken.append(taken(1))
    harness.look()
    assert len(harness.troubles) == 1


@pytest.mark.parametrize(
    ("stays", "kills", "most"),
    [
        ([], [], 0),
        ([Stay(1, 3), Stay(2, 4), Stay(3, 5)], [], 2),
        ([Stay(1, 4), Stay(2, 4), Stay(3, 5)], [2.5], 3),
        ([Stay(1, 4, cut=True), Stay(2, 4), Stay(3, 5)], [2.5], 2),
        ([Stay(1, 4, cut=True), Stay(2, 4), Stay(3, 5)], [0.5, 9.0], 3),
    ],
)
def test_transactions_at_a_time(stays: list[Stay], kills: list[float], most: int) -> None:
    assert most_at_a_time(stays, kills) == most
