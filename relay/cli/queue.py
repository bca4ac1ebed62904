"""``dane-relay queue``: look at the queue and hurry it, through the running relay or, without one, on the store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from relay.cli.listing import Listing, as_json, as_postqueue, as_table, summary_lines
from relay.cli.place import Place, TemporaryFailure, find_place, place_options
from relay.control import client
from relay.control.lock import Held, LockFailed, hold
from relay.control.protocol import MAX_IDS, BadMessage, QueueCount, QueueFlush, decode_request, encode_request
from relay.mail.envelope import QueueId
from relay.queue.showq import counts_object, entry_object
from relay.queue.sqlite import SqliteStore
from relay.queue.store import EntryState, QueueCounts, QueueEntry, StoreUnavailable

PAGE = 100
LISTINGS: Mapping[str, Listing] = {"table": as_table, "postfix": as_postqueue, "json": as_json}
T = TypeVar("T")


@click.group("queue")
def command() -> None:
    """Look at the queue and act on it.

    Asks the running relay; where none runs, the command locks state_dir and reads the queue itself.
    """


@command.command("list")
@place_options
@click.option(
    "--format",
    "form",
    type=click.Choice(list(LISTINGS)),
    default="table",
    help="table for people, postfix as `postqueue -p`, json as `postqueue -j` with more keys.",
)
@click.option("--json", "as_objects", is_flag=True, help="The same as --format json.")
def list_(config: Path | None, state_dir: Path | None, form: str, as_objects: bool) -> None:
    """List what is queued."""
    place = find_place(config, state_dir)
    listing = LISTINGS["json" if as_objects else form]
    with errors_for_people():
        for line in listing(queue_entries(place), None):
            click.echo(line)


@command.command("flush")
@place_options
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.pass_context
def flush(ctx: click.Context, config: Path | None, state_dir: Path | None, ids: tuple[str, ...]) -> None:
    """Try everything now, or only the messages with these queue IDs."""
    if len(ids) > MAX_IDS:
        raise click.UsageError(f"at most {MAX_IDS} queue IDs at once")
    request = QueueFlush(ids=ids)
    try:
        decode_request(encode_request(request))
    except BadMessage as error:
        raise click.UsageError(str(error)) from None
    place = find_place(config, state_dir)
    with errors_for_people():
        try:
            flushed = client.call(place.state_dir, request).get("flushed", 0)
            when = "are tried now"
        except client.NoRelay:
            flushed = _flush_alone(place, ids)
            when = "will be tried when the relay starts"
    click.echo(f"{flushed} deliveries {when}.")
    if ids and not flushed:
        click.echo("None of these messages is waiting in the queue.", err=True)
        ctx.exit(1)


@command.command("summary")
@place_options
@click.option("--json", "as_objects", is_flag=True, help="One JSON object.")
def summary(config: Path | None, state_dir: Path | None, as_objects: bool) -> None:
    """Count what is queued."""
    place = find_place(config, state_dir)
    with errors_for_people():
        try:
            counts: Mapping[str, object] = client.call(place.state_dir, QueueCount())
        except client.NoRelay:
            counts = counts_object(_count_alone(place))
    if as_objects:
        click.echo(json.dumps(counts))
        return
    for line in summary_lines(counts, None):
        click.echo(line)


def queue_entries(place: Place) -> Iterator[Mapping[str, object]]:
    """Every queued message, from the running relay or, without one, from the store."""
    try:
        yield from client.entries(place.state_dir)
        return
    except client.NoRelay:
        pass  # known before the first entry
    nothing: Sequence[QueueEntry] = ()
    with _alone(place) as ask:
        last: QueueId | None = None
        while page := ask(partial(_page, after=last), nothing):
            yield from map(entry_object, page)
            last = page[-1].message.queue_id


async def _page(store: SqliteStore, *, after: QueueId | None) -> Sequence[QueueEntry]:
    return await store.entries(limit=PAGE, after=after)


def _flush_alone(place: Place, ids: tuple[str, ...]) -> int:
    now = datetime.now(UTC)
    with _alone(place) as ask:
        return ask(lambda store: store.flush(now=now, ids=[QueueId(each) for each in ids]), 0)


def _count_alone(place: Place) -> QueueCounts:
    nothing = QueueCounts(messages=0, deliveries=dict.fromkeys(EntryState, 0), oldest_arrival=None)
    with _alone(place) as ask:
        return ask(lambda store: store.counts(), nothing)


class _Ask:
    """Runs one question after the other on a store opened for this command."""

    def __init__(self, runner: asyncio.Runner, store: SqliteStore | None) -> None:
        self._runner = runner
        self._store = store

    def __call__(self, question: Callable[[SqliteStore], Coroutine[Any, Any, T]], otherwise: T) -> T:
        """The answer, or ``otherwise`` where there is no queue yet."""
        return otherwise if self._store is None else self._runner.run(question(self._store))


@contextmanager
def _alone(place: Place) -> Iterator[_Ask]:
    """Own the state directory for as long as the context lasts."""
    with hold(place.state_dir), asyncio.Runner() as runner:
        if not place.queue_file.exists():
            # A listing makes no queue: the file would belong to whoever listed.
            yield _Ask(runner, None)
            return
        store = runner.run(SqliteStore.open(place.queue_file, clock=lambda: datetime.now(UTC)))
        try:
            yield _Ask(runner, store)
        finally:
            runner.run(store.close())


@contextmanager
def errors_for_people() -> Iterator[None]:
    """What can go wrong while asking for the queue, as the command's own failure."""
    try:
        yield
    except Held as error:
        raise TemporaryFailure(
            f"{error}, and it does not answer on its control socket (is it starting or ending?)"
        ) from None
    except StoreUnavailable as error:
        raise TemporaryFailure(f"the queue cannot be read: {error}") from None
    except (client.CallFailed, LockFailed) as error:
        raise click.ClickException(str(error)) from None
