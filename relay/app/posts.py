"""What a worker is told by its parent, and where it works.

The first worker's queue is in the state directory itself, where that of a relay without workers is; the others' are in
directories below. Every worker has a directory there for its lock and its sockets.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path

from relay.config.config import Config
from relay.config.sections import SQLITE
from relay.smtpd.listeners import Kind, Listeners

READY = b"R"
EMPTY = b"E"
STOP = b"T"
RELOAD = b"H"
EMPTY_MARK = "empty"
PLACES = "places"
# Options of [smtpd] that protect the machine's memory or a secret: each worker keeps to its part of them, rounded up; 0 stays
# no limit. Connections and what clients do are counted together instead (relay/smtpd/elsewhere.py): the system gives a worker
# more than its part of these as it likes, and nobody is to be refused sooner than the configuration says.
_DIVIDED = ("content_memory_limit", "auth_failure_limit")
# The highest number of a worker.
MAX_PROCESSES = 2048
_OFFICE = re.compile(r"worker-([1-9][0-9]{0,3})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A worker's post.

    :param number: from 1 on.
    :param processes: how many workers there are, those that only deliver included.
    :param state_dir: of the relay as a whole.
    :param queue_url: as the parent read it; a file that was edited since must not lead to another queue.
    :param drains: whether it takes no mail, and ends when its queue is empty.
    :param parent: descriptor of the socket to the parent.
    :param clients: descriptor of the memory where workers count their clients; -1 for one that takes no mail.
    :param listeners: descriptors of listening sockets, by option.
    """

    number: int
    processes: int
    state_dir: str
    queue_url: str
    drains: bool
    parent: int
    clients: int = -1
    listeners: Mapping[str, list[int]] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> Post:
        """From ``written``; the parent is trusted."""
        return cls(**json.loads(text))

    def written(self) -> str:
        """As one argument of a command."""
        return json.dumps(asdict(self))

    @property
    def office(self) -> Path:
        """The directory with the lock and the sockets."""
        return office(Path(self.state_dir), self.number)

    @property
    def places(self) -> Path:
        """The file of the places at destinations, of all workers."""
        return Path(self.state_dir) / PLACES

    def sockets(self) -> Listeners:
        """The inherited listeners; to be asked for once."""
        return Listeners.inherited({Kind(option): numbers for option, numbers in self.listeners.items()})

    def applied(self, config: Config) -> Config:
        """The configuration of a worker, from that of the relay."""
        own = replace(
            config,
            relay=config.relay.model_copy(update={"state_dir": place(Path(self.state_dir), self.number)}),
            queue=config.queue.model_copy(update={"url": self.queue_url}),
            http=config.http.model_copy(update={"listen": ()}),
        )
        if self.drains:
            nothing = {"listen": (), "submissions_listen": (), "unix_listen": ()}
            return replace(own, smtpd=config.smtpd.model_copy(update=nothing))
        parts = {name: -(-getattr(config.smtpd, name) // config.relay.workers) for name in _DIVIDED}
        return replace(own, smtpd=config.smtpd.model_copy(update=parts))


def office(state_dir: Path, number: int) -> Path:
    """A worker's own directory."""
    return state_dir / f"worker-{number}"


def place(state_dir: Path, number: int) -> Path:
    """The state directory of a worker: where its queue is."""
    return state_dir if number == 1 else office(state_dir, number)


def places(config: Config) -> Iterator[tuple[int, Path]]:
    """The queues that there are, by the number of their worker: each with its file."""
    for number in range(1, config.relay.workers + 1):
        yield number, queue_file(config, number)
    for number in left_over(config):
        yield number, queue_file(config, number)


def name_of(number: int) -> str:
    """What people call a worker."""
    return f"worker {number}"


def of_worker(config: Config, number: int) -> Config:
    """The configuration of a relay as if its state directory were that of one of its workers."""
    own = config.relay.model_copy(update={"state_dir": place(config.relay.state_dir, number)})
    return replace(config, relay=own)


def queue_file(config: Config, number: int) -> Path:
    """The file of a worker's queue."""
    return of_worker(config, number).queue_file


def left_over(config: Config) -> list[int]:
    """The numbers of workers that there were, and that the configuration has no more, where their queue may have mail.

    A directory whose queue was seen to be empty, and that nobody has used since, has a file that says so.
    """
    if config.queue.url.startswith(f"{SQLITE}/"):
        return []  # one file, wherever the state directory is; several workers are refused with it
    try:
        names = [each.name for each in config.relay.state_dir.iterdir()]
    except OSError:
        return []
    found = sorted(int(match[1]) for name in names if (match := _OFFICE.fullmatch(name)))
    return [
        number
        for number in found
        if config.relay.workers < number <= MAX_PROCESSES
        and queue_file(config, number).exists()
        and not (office(config.relay.state_dir, number) / EMPTY_MARK).exists()
    ]


def serials(post: Post | None) -> Iterator[int]:
    """Numbers of messages: those of two workers never meet, since they differ by the worker's number."""
    steps = 2 * MAX_PROCESSES
    return count(os.getpid()) if post is None else count(os.getpid() * steps + post.number, steps)


class Parent:
    """The worker's end of the socket to its parent: what it is told, and that the parent is there.

    :param post: with the descriptor of the socket, which is ours from now on.
    """

    def __init__(self, post: Post) -> None:
        self._socket = socket.socket(fileno=post.parent)
        self._socket.setblocking(False)

    def answered_by(self, *, stop: Callable[[], object], reload: Callable[[], object]) -> None:
        """Do what it says from now on. A parent that is gone ends us, at once: another may be started any time."""
        asyncio.get_running_loop().add_reader(self._socket, self._read, stop, reload)

    def _read(self, stop: Callable[[], object], reload: Callable[[], object]) -> None:
        try:
            told = self._socket.recv(64)
        except BlockingIOError:
            return
        except OSError:
            told = b""
        if not told:
            asyncio.get_running_loop().remove_reader(self._socket)
            stop()
            stop()
        for each in told:
            if each == STOP[0]:
                stop()
            elif each == RELOAD[0]:
                reload()

    def tell(self, word: bytes) -> None:
        """Say ``READY`` or ``EMPTY``."""
        try:
            self._socket.send(word)
        except OSError:
            return  # it is gone; that is read, too

    def close(self) -> None:
        """Hang up."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
