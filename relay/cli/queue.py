"""``dane-relay queue``: look at the queue and act on it, through the running relay or, without one, on the queue itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import click

from relay.cli import queue_acts, queue_backup
from relay.cli.listing import Listing, as_json, as_postqueue, as_table, group_lines, shown_lines, summary_lines
from relay.cli.place import Place, find_place, place_options
from relay.cli.queue_asking import ask, checked_filter, errors_for_people
from relay.control.client import entries
from relay.control.protocol import (
    BadMessage,
    Done,
    Item,
    QueueCount,
    QueueGroups,
    QueueList,
    QueueShow,
    decode_request,
    encode_request,
)
from relay.queue.acts import GroupBy
from relay.queue.filter_text import EVERYTHING

LISTINGS: Mapping[str, Listing] = {"table": as_table, "postfix": as_postqueue, "json": as_json}


@click.group("queue")
def command() -> None:
    """Look at the queue and act on it.

    Asks the running relay; where none runs, the command locks state_dir and works on the queue itself.

    FILTER says which recipients of which messages are meant: queue IDs, or terms such as domain:example.com, sender:a@b.example,
    rcpt:a@b.example, 'age>2h', 'size>1MiB', status:hold, status:4.7.5, reason:TEXT, 'reason:~REGEX', id:ID,ID, joined with and,
    or, not and ( ); ALL means everything.
    """


for act in (*queue_acts.COMMANDS, queue_backup.backup):
    command.add_command(act)


@command.command("list")
@place_options
@click.argument("where", nargs=-1, metavar="[FILTER]...")
@click.option(
    "--format",
    "form",
    type=click.Choice(list(LISTINGS)),
    default="table",
    help="table for people, postfix as `postqueue -p`, json as `postqueue -j` with more keys.",
)
@click.option("--json", "as_objects", is_flag=True, help="The same as --format json.")
def list_(config: Path | None, state_dir: Path | None, where: tuple[str, ...], form: str, as_objects: bool) -> None:
    """List what is queued; with a filter, only the recipients that it means."""
    text = checked_filter(where) if where else ""
    place = find_place(config, state_dir)
    listing = LISTINGS["json" if as_objects else form]
    with errors_for_people():
        for line in listing(entries(ask(place, QueueList(where=text))), None):
            click.echo(line)


@command.command("show")
@place_options
@click.argument("queue_id", metavar="ID")
@click.option("--json", "as_objects", is_flag=True, help="One JSON object.")
def show(config: Path | None, state_dir: Path | None, queue_id: str, as_objects: bool) -> None:
    """Show one message: envelope, what became of each recipient so far, and the header of its content."""
    request = QueueShow(queue_id)
    try:
        decode_request(encode_request(request))
    except BadMessage as error:
        raise click.UsageError(str(error)) from None
    place = find_place(config, state_dir)
    with errors_for_people():
        answers = list(ask(place, request))
    (entry,) = entries(answers)
    details = [dict(answer.value) for answer in answers if isinstance(answer, Done)][-1]
    if as_objects:
        click.echo(json.dumps({**entry, **details}))
        return
    for line in shown_lines(entry, details, None):
        click.echo(line)


@command.command("summary")
@place_options
@click.argument("where", nargs=-1, metavar="[FILTER]...")
@click.option(
    "--by", type=click.Choice([each.value for each in GroupBy]), help="Count recipients by this, the most first."
)
@click.option("--json", "as_objects", is_flag=True, help="One JSON object, or with --by one a group.")
def summary(
    *, config: Path | None, state_dir: Path | None, where: tuple[str, ...], by: str | None, as_objects: bool
) -> None:
    """Count what is queued; with --by, what a filter means by domain, destination, sender, status or reason."""
    place = find_place(config, state_dir)
    if by is not None:
        _groups(place, QueueGroups(by, checked_filter(where or (EVERYTHING,))), as_objects)
        return
    if where:
        raise click.UsageError("a filter needs --by")
    with errors_for_people():
        counts = [answer.value for answer in ask(place, QueueCount()) if isinstance(answer, Done)][-1]
    if as_objects:
        click.echo(json.dumps(counts))
        return
    for line in summary_lines(counts, None):
        click.echo(line)


def _groups(place: Place, request: QueueGroups, as_objects: bool) -> None:
    with errors_for_people():
        answers = list(ask(place, request))
    groups = [answer.value for answer in answers if isinstance(answer, Item)]
    if as_objects:
        for group in groups:
            click.echo(json.dumps(group))
        return
    total = [answer.value for answer in answers if isinstance(answer, Done)][-1]
    for line in group_lines(groups, total, None):
        click.echo(line)
