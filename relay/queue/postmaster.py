"""What the postmaster hears of sessions, crashes and the queue itself (``notify_classes`` policy, protocol, resource, software).

The first incident is told at once, those that follow it within a time together, a few of each class and the number of the others:
whoever makes errors on purpose makes the postmaster one message each ten minutes, and not one a session.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import suppress
from datetime import datetime

from relay.log.events import Crashed, Event, Noted, Observer, Program, StoreState
from relay.mail.envelope import (
    NULL_SENDER,
    Address,
    BodyType,
    Envelope,
    Notify,
    QueueId,
    Recipient,
    RecipientId,
    Sender,
)
from relay.outcome.incident import Bulletin, Incident, compose_bulletin
from relay.queue.notices import NoticeClass
from relay.queue.reports import OURSELVES
from relay.queue.store import NewMessage, QueueStore, StoreUnavailable

PAUSE = 600.0
MOST_OF_A_CLASS = 5
_RETRY = 2.0
_ONLY = RecipientId(1)
# Of an exception only its name, on the first line that is not indented: its text may hold anything.
_NAME = re.compile(r"^Traceback .*\n(?: .*\n)*([\w.]+)", re.MULTILINE)


class Postmaster:
    """Gathers incidents and writes to the postmaster about them.

    :param wanted: classes that are told of; others are not even kept.
    :param reader: who is told.
    :param new_id: a new queue ID at each call.
    :param destination_of: the scheduling key of mail to an address from a sender.
    :param queued: told of the destinations of what was written.
    :param sleep: seconds to wait.
    """

    def __init__(
        self,
        *,
        store: QueueStore,
        hostname: str,
        wanted: frozenset[NoticeClass],
        reader: Address,
        clock: Callable[[], datetime],
        new_id: Callable[[], QueueId],
        destination_of: Callable[[Address, Sender], str],
        observe: Observer,
        queued: Callable[[Collection[str]], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.wanted = wanted
        self._store = store
        self._hostname = hostname
        self._words = frozenset(one.value for one in wanted)
        self._reader = reader
        self._clock = clock
        self._new_id = new_id
        self._destination_of = destination_of
        self._observe = observe
        self._queued = queued
        self._sleep = sleep
        self._kept: list[Incident] = []
        self._counts: Counter[str] = Counter()
        self._untold: Counter[str] = Counter()
        self._something = asyncio.Event()

    def take(self, incident: Incident) -> None:
        """Keep an incident until it is told, or count it where there are enough like it."""
        classes = [word for word in incident.classes if word in self._words]
        if not classes:
            return
        if all(self._counts[word] >= MOST_OF_A_CLASS for word in classes):
            self._untold.update(classes[:1])
            return
        self._counts.update(classes)
        self._kept.append(incident)
        self._something.set()

    def observe(self, event: Event) -> None:
        """Hear of what is an incident among the events of the relay."""
        match event:
            case Crashed(where=where, queue_id=queue_id, traceback=traceback):
                about = f"internal error in {where}" + (f", message {queue_id}" if queue_id else "")
                name = _NAME.search(traceback)
                lines: tuple[str, ...] = (
                    f"{name[1] if name else 'An exception'}; the log has where it happened. Please report it.",
                )
                self.take(Incident(classes=(NoticeClass.SOFTWARE.value,), about=about, lines=lines))
            case StoreState(why=why) if why:
                lines = (f"{why}.", "This message could be queued, so mail was taken again, be it only for a while.")
                about = "no mail was taken into the queue"
                self.take(Incident(classes=(NoticeClass.RESOURCE.value,), about=about, lines=lines))
            case _:
                pass

    async def run(self) -> None:
        """Tell what is to be told, until cancelled."""
        while True:
            await self._something.wait()
            try:
                await self._tell()
            except StoreUnavailable:
                await self._sleep(_RETRY)  # what is kept stays, and what comes meanwhile joins it
                continue
            await self._sleep(PAUSE)

    async def finish(self) -> None:
        """Tell what is left, if the queue takes it now."""
        with suppress(StoreUnavailable):
            await self._tell()

    async def _tell(self) -> None:
        self._something.clear()
        if not self._kept:
            return
        kept, untold = tuple(self._kept), Counter(self._untold)
        now, report = self._clock(), self._new_id()
        content = compose_bulletin(
            Bulletin(
                incidents=kept,
                untold=untold,
                hostname=self._hostname,
                reader=self._reader,
                report=report,
                made_at=now,
            )
        )
        destination = self._destination_of(self._reader, NULL_SENDER)
        message = NewMessage(
            queue_id=report, envelope=self._envelope(), arrived_at=now, destinations={_ONLY: destination}
        )
        try:
            await self._store.put(message, _whole(content))
        except StoreUnavailable:
            self._something.set()
            raise
        del self._kept[: len(kept)]
        self._untold -= untold
        self._counts = Counter(word for one in self._kept for word in one.classes if word in self._words)
        told = f"{len(kept) + sum(untold.values())} incidents"
        self._observe(Noted(Program.BOUNCE, f"postmaster notification of {told}", report))
        self._queued({destination})

    def _envelope(self) -> Envelope:
        """From the null sender, asking for no report of its own."""
        return Envelope(
            sender=NULL_SENDER,
            recipients=(Recipient(id=_ONLY, address=self._reader, notify=Notify.NEVER),),
            body=BodyType.SEVEN_BIT,
            client=OURSELVES,
        )


async def _whole(content: bytes) -> AsyncIterator[bytes]:
    yield content
