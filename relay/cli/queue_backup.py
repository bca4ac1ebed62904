"""``dane-relay queue backup``: the whole queue in one file, while it is in use or while no relay runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import click

from relay.cli.place import find_place, place_options
from relay.cli.queue_asking import ask, errors_for_people
from relay.control.protocol import BadMessage, Done, QueueBackup, Underway, decode_request, encode_request


@click.command("backup")
@place_options
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
def backup(config: Path | None, state_dir: Path | None, file: Path) -> None:
    """Copy the whole queue into FILE, a tar archive that is the queue again when it is unpacked into an empty state_dir.

    Mail is taken and delivered meanwhile. A running relay writes the file itself, as its own user; nothing is written over.
    """
    request = QueueBackup(str(file.absolute()))
    try:
        decode_request(encode_request(request))
    except BadMessage as error:
        raise click.UsageError(str(error)) from None
    place = find_place(config, state_dir)
    done: Mapping[str, object] = {}
    with errors_for_people():
        for answer in ask(place, request):
            match answer:
                case Underway(value=value) if sys.stderr.isatty():
                    click.echo(f"\r\x1b[K{_what(value)} so far", nl=False, err=True)
                case Done(value=value):
                    done = value
                case _:
                    pass
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
    paths = done.get("paths")
    click.echo(f"{file}: {_what(done)}.")
    for path in paths[1:] if isinstance(paths, list) else ():
        click.echo(
            f"{path} is part of it: the queue of another worker, to be unpacked into its directory in state_dir."
        )


def _what(done: Mapping[str, object]) -> str:
    octets = done.get("octets")
    size = f"{octets / 1048576:.1f} MiB" if isinstance(octets, int) else "?"
    return f"{done.get('messages', 0)} messages, {done.get('files', 0)} of them in files of their own, {size}"
