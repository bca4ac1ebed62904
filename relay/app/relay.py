"""From a configuration to a running relay, and back: start in the order of a message's way, stop against it.

Start: state directory and its lock, log, queue, rules, DNS, delivery, worker, front end, desk, control socket. What was
opened closes in reverse: nothing is accepted any more before attempts are given up, and nothing is given up before the
queue closes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

from relay import __version__
from relay.app.building import Building, WriteLine, now
from relay.app.notify import Notifier
from relay.app.posts import Post
from relay.app.reload import Reloader, Reread
from relay.app.rules import Rules
from relay.config.config import Config
from relay.control import server as control
from relay.dns.probe import FRESH_SECONDS, ValidationProbe
from relay.log.events import Noted, Program
from relay.queue.store import QueueStore
from relay.worker.worker import Worker


@dataclass(slots=True)
class Relay:
    """A running relay, as its owner sees it.

    :param smtp_addresses: where mail is taken.
    :param http_addresses: where the desk answers.
    :param rules: those in force.
    :param stopping: set when the end has begun.
    :param stop: begins the end; a second call cuts it short.
    """

    smtp_addresses: tuple[tuple[str, int], ...]
    http_addresses: tuple[tuple[str, int], ...]
    rules: Rules
    store: QueueStore
    stopping: asyncio.Event
    stop: Callable[[], None]
    reload: Callable[[], Awaitable[control.Reloaded]]
    unready: Callable[[], Sequence[str]]


@asynccontextmanager
async def open_relay(
    config: Config,
    *,
    reread: Reread | None = None,
    write_line: WriteLine | None = None,
    root_hints: str = "",
    notifier: Notifier | None = None,
    source: Path | None = None,
    post: Post | None = None,
) -> AsyncIterator[Relay]:
    """Run a relay for the length of the context.

    :param reread: reads the configuration anew for a reload; without it the same one is read again.
    :param write_line: takes the log's lines instead of ``log.file``.
    :param root_hints: a file with the addresses of the root servers, where they are not the Internet's.
    :param notifier: the service manager, if one started us.
    :param source: the configuration's file; given, it and the files that it names are watched for changes.
    :param post: of a worker that a parent started; ``config`` and ``reread`` are the worker's then.
    :raises CannotStart: (or an error of the room concerned, its message for people) if it cannot run.
    """
    async with AsyncExitStack() as stack:
        building = Building(config, stack, post)
        building.open_log(write_line)
        held = await building.open_queue()
        await building.open_ledger()
        reloader = Reloader(config, reread or (lambda: config), source, take=building.take, observe=building.observe)
        building.rules = await asyncio.to_thread(reloader.first)  # large maps take seconds
        await building.open_names(root_hints)
        building.open_delivery()
        stack.push_async_callback(_end_tasks, building.worker, _begin_tasks(building, reloader))
        await building.open_front_end()
        http_addresses = await building.open_desk()
        manager = notifier or Notifier()

        async def reload() -> control.Reloaded:
            with manager.reloading():
                building.reopen_log()
                return await reloader.reload()

        await building.open_control(held, reload)
        building.warn_of(building.rules.problems)
        building.observe(Noted(Program.MASTER, f"daemon started -- version {__version__}, {_where(building)}"))
        manager.ready()
        telling = asyncio.create_task(manager.keep_telling(building.alive, building.status), name="tell the manager")
        try:
            yield Relay(
                smtp_addresses=building.servers.addresses,
                http_addresses=http_addresses,
                rules=building.rules,
                store=building.store,
                stopping=building.ending.stopping,
                stop=building.ending.stop,
                reload=reload,
                unready=building.unready,
            )
        finally:
            building.ending.stopping.set()
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            manager.stopping(config.relay.drain_time)


def _begin_tasks(building: Building, reloader: Reloader) -> tuple[asyncio.Task[None], ...]:
    """What goes on beside the clients."""
    postmaster = building.postmaster
    told = () if postmaster is None else (asyncio.create_task(postmaster.run(), name="tell the postmaster"),)
    return (
        *told,
        asyncio.create_task(building.worker.run(), name="worker"),
        asyncio.create_task(_keep_probing(building.probe), name="probe the resolver"),
        asyncio.create_task(building.ledger.run(), name="write the ledger"),
        asyncio.create_task(_keep_warning(building), name="warn of lines that end"),
        asyncio.create_task(reloader.keep_watching(), name="watch files"),
    )


def _where(building: Building) -> str:
    addresses = [f"{host}:{port}" for host, port in building.servers.addresses]
    listening = ", ".join((*addresses, *(f"unix:{path}" for path in building.servers.paths))) or "no address"
    return f"SMTP on {listening}, state in {building.config.relay.state_dir}"


async def _keep_probing(probe: ValidationProbe) -> None:
    """Look at the resolver even when no mail asks for it, so that an alarm does not wait for a victim."""
    while True:
        opinion = await probe.current()
        await asyncio.sleep(FRESH_SECONDS if opinion.validating else FRESH_SECONDS / 6)


async def _keep_warning(building: Building) -> None:
    """Say at the start and at the beginning of each day (UTC) which lines of the policy maps have ended or soon will."""
    while True:
        at = now()
        building.warn_of(await asyncio.to_thread(building.rules.endings, at))
        tomorrow = datetime.combine(at.date() + timedelta(days=1), time.min, UTC)
        await asyncio.sleep((tomorrow - at).total_seconds() + 1)


async def _end_tasks(worker: Worker, tasks: Sequence[asyncio.Task[None]]) -> None:
    await worker.stop(0)  # what could be waited for was waited for by ``Ending``
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def system_hostname() -> str:
    """The system's fully qualified name, for ``relay.myhostname`` where nothing sets it."""
    return socket.getfqdn()
