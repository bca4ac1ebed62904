"""What a store promised, and whether what is found after an accident keeps to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from relay.queue.sqlite import SqliteStore
from relay.queue.store import EntryState, StoreUnavailable
from tests.unit.queue.samples import T0, read


@dataclass(frozen=True, slots=True)
class Begun:
    """Something was asked of the store: whether it happened is open."""

    queue_id: str
    body: bytes = b""
    ended: tuple[int, ...] = ()
    recipients: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Promised:
    """The store said that it happened: ``last`` if the message is gone with it."""

    queue_id: str
    ended: tuple[int, ...] = ()
    last: bool = False
    report: str = ""


@dataclass(slots=True)
class _Message:
    body: bytes
    recipients: frozenset[int]
    must_be: bool = False
    may_be_gone: bool = False
    gone: bool = False
    may_have_ended: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)


class Promises:
    """Told of marks in their order."""

    def __init__(self) -> None:
        self._messages: dict[str, _Message] = {}

    def hear(self, mark: object) -> None:
        """One more."""
        match mark:
            case Begun(queue_id=queue_id, body=body, ended=(), recipients=recipients):
                self._messages[queue_id] = _Message(body, frozenset(recipients))
            case Begun(queue_id=queue_id, ended=ended):
                message = self._messages[queue_id]
                message.may_have_ended.update(ended)
                message.may_be_gone = message.recipients <= message.may_have_ended
            case Promised(queue_id=queue_id, ended=(), report=""):
                self._messages[queue_id].must_be = True
            case Promised(queue_id=queue_id, ended=ended, last=last, report=report):
                message = self._messages[queue_id]
                message.ended.update(ended)
                message.gone = last
                if report:
                    self._messages[report].must_be = True
            case _:
                raise TypeError(mark)

    async def broken_in(self, path: Path) -> list[str]:
        """Open the queue and say what is not as it was promised."""
        try:
            store = await SqliteStore.open(path, clock=lambda: T0)
        except StoreUnavailable as error:
            return [f"the queue does not open: {error}"]
        try:
            return await self._compare(store)
        finally:
            await store.close()

    async def _compare(self, store: SqliteStore) -> list[str]:
        broken = []
        entries = {str(entry.message.queue_id): entry for entry in await store.entries(limit=10_000)}
        for queue_id, message in self._messages.items():
            entry = entries.pop(queue_id, None)
            if entry is None:
                if message.must_be and not message.may_be_gone:
                    broken.append(f"{queue_id} is lost")
                continue
            if message.gone:
                broken.append(f"{queue_id} is back")
            waiting = {int(one.recipient.id) for one in entry.recipients}
            if message.must_be and not message.recipients - message.may_have_ended <= waiting:
                broken.append(f"{queue_id} lost a recipient: {waiting}")
            if waiting & message.ended:
                broken.append(f"{queue_id} has a recipient again: {waiting}")
            try:
                whole = await read(store, queue_id) == message.body
            except KeyError:
                whole = False
            if not whole:
                broken.append(f"{queue_id} lost its content")
        broken += [f"{queue_id} was never put" for queue_id in entries]
        if (await store.counts()).deliveries[EntryState.ACTIVE]:
            broken.append("something is leased")
        return broken
