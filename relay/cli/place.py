"""Which relay a command means: the options ``-c FILE`` and ``--state-dir DIR``, and what they lead to."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from relay.app import system_hostname
from relay.config.config import Config
from relay.config.errors import ConfigErrors
from relay.config.kinds import toml_string
from relay.config.load import load, read

DEFAULT_QUEUE_FILE = "queue.sqlite"
TEMPORARY = 75
Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Place:
    """Where a relay keeps its state: its directory, and the SQLite file of its queue.

    :param config: the relay's; where only the directory was said, defaults stand for what is not known.
    :param whole: whether the configuration was read, and is no stand-in.
    """

    state_dir: Path
    queue_file: Path
    config: Config
    whole: bool


def place_options(command: Command) -> Command:
    """Add ``-c`` and ``--state-dir`` to a click command; it gets them as ``config`` and ``state_dir``."""
    path = click.Path(path_type=Path)
    command = click.option("-c", "--config", type=path, metavar="FILE", help="The relay's configuration.")(command)
    return click.option("--state-dir", type=path, metavar="DIR", help="The relay's state_dir, instead of -c.")(command)


def find_place(config: Path | None, state_dir: Path | None) -> Place:
    """What the options mean.

    :raises click.UsageError: unless exactly one of them is given.
    :raises click.ClickException: (exit status 1) if the configuration has faults; the message has them all.
    """
    if (config is None) == (state_dir is None):
        raise click.UsageError("say which relay: either -c FILE or --state-dir DIR")
    if config is None:
        directory = Path(state_dir or ".")
        return Place(directory, directory / DEFAULT_QUEUE_FILE, _stand_in(directory), whole=False)
    try:
        loaded = load(config, os.environ, hostname=system_hostname())
    except ConfigErrors as errors:
        raise click.ClickException(str(errors)) from None
    return Place(loaded.relay.state_dir, loaded.queue_file, loaded, whole=True)


def _stand_in(state_dir: Path) -> Config:
    text = f"[relay]\nstate_dir = {toml_string(state_dir.absolute())}\n"
    return read(text, name="defaults", base=state_dir, environ={}, hostname="localhost.localdomain")


class TemporaryFailure(click.ClickException):
    """An error that goes away by itself: exit status 75 (EX_TEMPFAIL)."""

    exit_code = TEMPORARY
