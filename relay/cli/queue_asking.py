"""How queue commands ask: through the running relay or, without one, on the queue itself; the answers are the same."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial

import click

from relay.app import CannotStart
from relay.app.administering import open_administrations
from relay.app.posts import places
from relay.cli.place import Place, TemporaryFailure
from relay.config.errors import ConfigErrors
from relay.control import client, queue
from relay.control.lock import Held, LockFailed, hold
from relay.control.merging import merged
from relay.control.protocol import (
    Answer,
    Done,
    Failed,
    HoldRuleAdd,
    HoldRules,
    Item,
    LedgerAsk,
    QueueBackup,
    QueueCount,
    QueueList,
    QueueRequest,
    QueueShow,
    Underway,
)
from relay.control.server import user_name
from relay.queue.administration import Administration
from relay.queue.filter_text import FilterError, parse_filter
from relay.queue.showq import counts_object
from relay.queue.store import EntryState, QueueCounts, StoreUnavailable
from relay.tls.authorities import CaStoreError

Heard = Item | Underway | Done


def checked_filter(words: tuple[str, ...]) -> str:
    """The filter that a command line says, if it can be understood.

    :raises click.UsageError: with the place of the fault shown, if not.
    """
    text = " ".join(words)
    try:
        parse_filter(text)
    except FilterError as error:
        start = max(0, error.position - 60)
        shown = text[start : start + 100]
        raise click.UsageError(f"{error}\n    {shown}\n    {' ' * (error.position - start)}^") from None
    return text


def ask(place: Place, request: QueueRequest, *, needs_configuration: bool = False) -> Iterator[Heard]:
    """The answers to a request, as they come; ``Done`` is the last.

    :param needs_configuration: whether it cannot be done without routes and our name, which a running relay has.
    :raises client.CallFailed: if it was not carried out.
    """
    try:
        yield from client.converse(place.state_dir, request)
        return
    except client.NoRelay:
        pass  # known before the first answer
    if needs_configuration and not place.whole:
        raise click.UsageError("no relay runs on this state_dir, and this needs its configuration: say -c FILE")
    yield from _alone(place, request, routes=needs_configuration)


def _alone(place: Place, request: QueueRequest, *, routes: bool) -> Iterator[Heard]:
    if not any(file.exists() for _, file in places(place.config)):
        with hold(place.state_dir):
            # A command makes no queue: the file would belong to whoever gave it.
            yield _nothing(request)
        return
    with asyncio.Runner() as runner:
        answers = _answers(place, request, routes=routes)
        try:
            while True:
                answer = runner.run(_next(answers))
                match answer:
                    case Failed(error=text):
                        raise client.CallFailed(text)
                    case Done():
                        yield answer
                        return
                    case Item() | Underway():
                        yield answer
        finally:
            runner.run(answers.aclose())


async def _next(answers: AsyncGenerator[Answer, None]) -> Answer:
    return await anext(answers)


async def _answers(place: Place, request: QueueRequest, *, routes: bool) -> AsyncGenerator[Answer, None]:
    async with AsyncExitStack() as stack:
        opening = open_administrations(place.config, lambda line: click.echo(line, err=True), routes=routes)
        by = user_name(os.getuid())
        shards = {
            name: partial(_of_one, administration, by)
            for name, administration in (await stack.enter_async_context(opening)).items()
        }
        answers = merged(request, shards)
        stack.push_async_callback(answers.aclose)
        async for answer in answers:
            yield answer


def _of_one(administration: Administration, by: str, request: QueueRequest | LedgerAsk) -> AsyncGenerator[Answer, None]:
    if isinstance(request, LedgerAsk):
        raise TypeError("the ledger is asked elsewhere")
    return queue.answers(request, administration, by)


def _nothing(request: QueueRequest) -> Done:
    """What an empty queue answers."""
    match request:
        case QueueCount():
            nothing = QueueCounts(messages=0, deliveries=dict.fromkeys(EntryState, 0), oldest_arrival=None)
            return Done(counts_object(nothing))
        case QueueList() | HoldRules():
            return Done({})
        case QueueShow(queue_id=queue_id):
            raise client.CallFailed(f"{queue_id}: no such message in the queue")
        case HoldRuleAdd() | QueueBackup():
            raise client.CallFailed("there is no queue yet: start the relay once")
        case _:
            return Done({"looked": 0, "messages": 0, "recipients": 0, "busy": 0, "removed": False})


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
    except (client.CallFailed, LockFailed, CannotStart, ConfigErrors, CaStoreError) as error:
        raise click.ClickException(str(error)) from None
