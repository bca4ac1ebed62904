"""A worker's configuration, its directory, its numbers, and which queues are left over."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest

from relay.app.posts import EMPTY_MARK, Post, left_over, office, places, serials
from relay.config.config import Config
from relay.config.errors import ConfigErrors
from relay.config.load import read

SMTPD = 'listen = "127.0.0.1:2525"\nconnection_limit = 25\ncontent_memory_limit = 1000000\nauth_failure_limit = 3\n'


def config(tmp_path: Path, workers: int, queue: str = "sqlite:queue.sqlite", smtp: str = "") -> Config:
    text = f'[relay]\nstate_dir = "{tmp_path}"\nworkers = {workers}\n[smtpd]\n{SMTPD}[smtp]\n{smtp}[queue]\nurl = "{queue}"\n'
    return read(text, name="relay.toml", base=tmp_path, environ={}, hostname="relay.example")


def post(tmp_path: Path, number: int, *, drains: bool = False) -> Post:
    return Post(
        number=number,
        processes=3,
        state_dir=str(tmp_path),
        queue_url="sqlite:queue.sqlite",
        drains=drains,
        parent=7,
        listeners={"listen": [8, 9]},
    )


def test_what_a_worker_is_told_is_what_it_reads(tmp_path: Path) -> None:
    told = post(tmp_path, 2)
    assert Post.read(told.written()) == told


def test_each_worker_has_a_queue_of_its_own_and_its_part_of_the_limits(tmp_path: Path) -> None:
    whole = config(tmp_path, 2)
    one, two = (post(tmp_path, number).applied(whole) for number in (1, 2))
    assert one.queue_file == whole.queue_file == tmp_path / "queue.sqlite"
    assert two.queue_file == tmp_path / "worker-2" / "queue.sqlite"
    assert (two.smtpd.content_memory_limit, two.smtpd.auth_failure_limit) == (500_000, 2)
    assert two.smtpd.connection_limit == 25
    assert two.http.listen == ()
    assert two.smtpd.listen == whole.smtpd.listen


def test_a_file_edited_since_leads_to_no_other_queue(tmp_path: Path) -> None:
    edited = config(tmp_path / "elsewhere", 2, "sqlite:other.sqlite")
    assert post(tmp_path, 2).applied(edited).queue_file == tmp_path / "worker-2" / "queue.sqlite"


def test_one_that_only_delivers_listens_nowhere(tmp_path: Path) -> None:
    assert post(tmp_path, 2, drains=True).applied(config(tmp_path, 1)).smtpd.listen == ()


def queues(tmp_path: Path, *numbers: int) -> None:
    for number in numbers:
        office(tmp_path, number).mkdir()
        (office(tmp_path, number) / "queue.sqlite").touch()


@pytest.mark.parametrize(("workers", "found"), [(1, [2, 4, 11]), (2, [4, 11]), (4, [11]), (11, [])])
def test_queues_of_workers_that_there_were_are_left_over(tmp_path: Path, workers: int, found: Sequence[int]) -> None:
    queues(tmp_path, 2, 4, 11)
    office(tmp_path, 3).mkdir()  # no queue
    queues(tmp_path, 20)
    (office(tmp_path, 20) / EMPTY_MARK).touch()
    (tmp_path / "worker-x").mkdir()
    (tmp_path / "worker-05").mkdir()
    assert left_over(config(tmp_path, workers)) == found
    numbers = [number for number, _ in places(config(tmp_path, workers))]
    assert numbers == [*range(1, workers + 1), *found]


def test_one_file_wherever_it_is_has_no_leftovers(tmp_path: Path) -> None:
    queues(tmp_path, 2)
    assert left_over(config(tmp_path, 1, f"sqlite:{tmp_path}/queue.sqlite")) == []


@pytest.mark.parametrize(
    ("queue", "smtp", "why"),
    [
        ("sqlite:/var/queue.sqlite", "", "needs queues in relay.state_dir"),
        ("sqlite:queue.sqlite", 'tls_ratchet = "enforce"\n', "does not go with tls_ratchet"),
    ],
)
def test_what_several_workers_cannot_do_is_refused(tmp_path: Path, queue: str, smtp: str, why: str) -> None:
    config(tmp_path, 1, queue, smtp)
    with pytest.raises(ConfigErrors, match=why):
        config(tmp_path, 2, queue, smtp)


def test_numbers_of_messages_never_meet(tmp_path: Path) -> None:
    one, two = (set(islice(serials(post(tmp_path, number)), 1000)) for number in (1, 2))
    assert not one & two
