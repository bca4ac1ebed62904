"""A relay of several workers: the parent of their processes.

The parent holds the lock of the state directory and the listening sockets, which workers inherit: so the lock holds as long
as any of them lives, and a connection that waits to be accepted outlives the end of a worker. It carries no mail itself.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import chain
from pathlib import Path

from relay import __version__
from relay.app.building import Building, CannotStart, now
from relay.app.family import Family
from relay.app.members import Member, Starting, environment_of_workers
from relay.app.notify import Notifier
from relay.app.posts import Post, left_over, office
from relay.app.watchman import keep_watching
from relay.config.config import Config
from relay.control import lock
from relay.control import server as control
from relay.desk import http
from relay.desk.workers import Pages
from relay.log.events import Crashed, Noted, Program
from relay.queue.spool import make_durably
from relay.smtpd.elsewhere import SharedMemory
from relay.smtpd.listeners import Listeners
from relay.smtpd.local import LocalSockets


class Supervisor:
    """Workers that run.

    :param members: in the order of their numbers.
    :param listeners: closed when the end begins.
    """

    def __init__(self, members: tuple[Member, ...], listeners: Listeners, building: Building) -> None:
        self.members = members
        self._listeners = listeners
        self._building = building
        self._tasks: list[asyncio.Task[None]] = []
        self.stopping = asyncio.Event()

    async def start(self) -> None:
        """Start the first, and when it is up the others; return when all are up.

        :raises CannotStart: if one ends before it is up; all are stopped then.
        """
        for group in (self.members[:1], self.members[1:]):
            begun = [(member, self._keep(member)) for member in group]
            for member, task in begun:
                await self._up(member, task)

    def _keep(self, member: Member) -> asyncio.Task[None]:
        task = asyncio.create_task(member.run(), name=f"keep {member.name}")
        self._tasks.append(task)
        task.add_done_callback(self._kept)
        return task

    def _kept(self, task: asyncio.Task[None]) -> None:
        """A worker is kept no more; if nobody asked for that the relay ends, to be started anew, rather than go on without it."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._building.observe(Crashed("keeping a worker", "".join(traceback.format_exception(error))))
        if not self.stopping.is_set():
            self.stop()

    async def _up(self, member: Member, task: asyncio.Task[None]) -> None:
        up, failed = asyncio.ensure_future(member.ready.wait()), asyncio.ensure_future(member.failed.wait())
        await asyncio.wait((up, failed, task), return_when=asyncio.FIRST_COMPLETED)
        ready, ended = member.ready.is_set(), task.done()
        up.cancel()
        failed.cancel()
        if ready or self.stopping.is_set() or (ended and task.exception() is None):
            return
        self.stop()
        await self.ended()
        raise CannotStart(f"{member.name} did not start; what it said is above, or in the log")

    def stop(self) -> None:
        """Begin the end; a second call cuts it short."""
        self.stopping.set()
        self._listeners.close()
        for member in self.members:
            member.stop()

    def reload(self) -> None:
        """Have all read their rules anew."""
        self._building.reopen_log()
        for member in self.members:
            member.reload()

    async def ended(self) -> None:
        """Return when no worker is left."""
        await asyncio.gather(*self._tasks)

    def status(self) -> str:
        """One line for the service manager."""
        up = sum(member.ready.is_set() for member in self.members)
        return f"{up} of {len(self.members)} workers are up"


@asynccontextmanager
async def open_workers(config: Config, *, source: Path, notifier: Notifier) -> AsyncIterator[Supervisor]:
    """Run a relay of workers for the length of the context.

    :param source: the configuration's file, which workers read themselves.
    :raises CannotStart: (or an error of the room concerned, its message for people) if it cannot run.
    """
    async with AsyncExitStack() as stack:
        building = Building(config, stack)
        building.open_log(None)
        state_dir = config.relay.state_dir
        try:
            make_durably(state_dir)
        except OSError as error:
            raise CannotStart(f"relay.state_dir {state_dir}: cannot make it: {error.strerror}") from None
        held = stack.enter_context(lock.hold(state_dir))
        smtpd = config.smtpd
        local = LocalSockets(smtpd.unix_listen, smtpd.unix_listen_mode)
        listeners = Listeners.bind(smtpd.listen, smtpd.submissions_listen, local)
        stack.callback(listeners.close)
        clients = SharedMemory.made(config.relay.workers)
        stack.callback(clients.close)
        supervisor = Supervisor(_members(source, held, listeners, clients, building), listeners, building)
        stack.push_async_callback(_end, supervisor)
        family = Family(supervisor.members, stop=supervisor.stop, started=now())
        await supervisor.start()
        listen = config.http.listen
        if listen:
            await stack.enter_async_context(http.serve(listen, Pages(family.desk())))
        await stack.enter_async_context(control.serve(held, family))
        building.observe(
            Noted(Program.MASTER, f"daemon started -- version {__version__}, {len(supervisor.members)} workers")
        )
        notifier.ready()
        tasks = [
            asyncio.create_task(notifier.keep_telling(family.alive, supervisor.status), name="tell the manager"),
            *(
                asyncio.create_task(
                    keep_watching(member, partial(family.answers_of, member)), name=f"watch {member.name}"
                )
                for member in supervisor.members
            ),
        ]
        try:
            yield supervisor
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            notifier.stopping(config.relay.drain_time)


async def _end(supervisor: Supervisor) -> None:
    if not supervisor.stopping.is_set():
        supervisor.stop()
    await supervisor.ended()


def _members(
    source: Path, held: lock.StateLock, listeners: Listeners, clients: SharedMemory, building: Building
) -> tuple[Member, ...]:
    config = building.config
    state_dir = config.relay.state_dir
    spares = left_over(config)
    if spares and config.smtp.tls_ratchet != "off":
        raise CannotStart(
            f"{office(state_dir, spares[0])} may have mail of a relay with more workers, and smtp.tls_ratchet is on, which "
            "knows nothing of what they have seen; set tls_ratchet to off until that mail is delivered"
        )
    numbers = [*range(1, config.relay.workers + 1), *spares]
    inherited: dict[str, list[int]] = {}
    for kind, each in listeners.all():
        inherited.setdefault(kind.value, []).append(each.fileno())
    descriptors = [held.descriptor, clients.descriptor, *chain.from_iterable(inherited.values())]
    members = []
    for number in numbers:
        try:
            make_durably(office(state_dir, number))
        except OSError as error:
            raise CannotStart(f"{office(state_dir, number)}: cannot make it: {error.strerror}") from None
        drains = number in spares
        post = Post(
            number=number,
            processes=len(numbers),
            state_dir=str(state_dir.absolute()),
            queue_url=config.queue.url,
            drains=drains,
            parent=-1,
            clients=-1 if drains else clients.descriptor,
            listeners={} if drains else inherited,
        )
        starting = Starting(
            source=source.absolute(),
            descriptors=descriptors[:1] if drains else descriptors,
            environment=environment_of_workers(),
        )
        member = Member(
            post,
            starting,
            patience=config.relay.drain_time,
            monotonic=time.monotonic,
            observe=building.observe,
            ended=partial(_forget_clients, clients, post),
        )
        members.append(member)
    return tuple(members)


def _forget_clients(clients: SharedMemory, post: Post) -> None:
    """The connections of a worker that ended are gone, and what its clients did of late was counted for it alone."""
    if not post.drains:
        clients.clear(post.number - 1)
