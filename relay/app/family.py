"""What is asked of a relay of several workers, on its control socket: the workers are asked, and their answers put together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import datetime
from functools import partial

from relay import __version__
from relay.app.members import Member
from relay.control.asking import ask
from relay.control.client import entries
from relay.control.merging import ShardFailed, merged
from relay.control.protocol import (
    Alive,
    Answer,
    Done,
    Failed,
    HoldRuleAdd,
    HoldRuleRemove,
    Item,
    LedgerAsk,
    Numbers,
    QueueList,
    QueueRequest,
    QueueShow,
    Readiness,
    Reload,
    Request,
    Status,
    Stop,
    no_such_message,
)
from relay.desk.workers import CannotSay, Workers


class Family:
    """The workers, as those who command the relay see them; an ``Answering``.

    :param stop: begins the end of all.
    """

    def __init__(self, members: Sequence[Member], *, stop: Callable[[], None], started: datetime) -> None:
        self._members = members
        self._stop = stop
        self._started = started.isoformat(timespec="seconds")
        self._one_rule_at_a_time = asyncio.Lock()

    async def answers(self, request: Request, by: str) -> AsyncGenerator[Answer, None]:
        """Carry out a request; the last answer is ``Done`` or ``Failed``."""
        try:
            async with aclosing(self._answers(request, by)) as answers:
                async for answer in answers:
                    yield answer
        except ShardFailed as error:
            yield Failed(str(error))

    async def alive(self) -> None:
        """Return if every worker that is up answers; one that ended meanwhile is being started again."""
        await asyncio.gather(*(self.answers_of(member) for member in self._members if member.ready.is_set()))

    async def answers_of(self, member: Member) -> None:
        """Return if a worker answers, or is not there."""
        with suppress(ShardFailed):
            await _result(member, Alive(), "")

    async def _answers(self, request: Request, by: str) -> AsyncGenerator[Answer, None]:
        there = [member for member in self._members if member.needed]
        match request:
            case Status():
                yield await self._status(there, by)
            case Stop():
                yield Done({"pid": os.getpid()})
                self._stop()
            case Reload():
                yield await self._reload(there, by)
            case Alive():
                await self.alive()
                yield Done({})
            case Readiness():
                yield Done({"reasons": await self._reasons()})
            case Numbers():
                yield Failed("ask the workers, or http.listen")
            case _:
                async with aclosing(self._of_queues(request, there, by)) as answers:
                    async for answer in answers:
                        yield answer

    async def _of_queues(
        self, request: QueueRequest | LedgerAsk, there: Sequence[Member], by: str
    ) -> AsyncGenerator[Answer, None]:
        if isinstance(request, HoldRuleAdd | HoldRuleRemove):
            await self._one_rule_at_a_time.acquire()
        try:
            if not isinstance(request, QueueShow):
                await self._statuses(there, by)  # all or none: who is away is not found out half-way
            shards = {member.name: partial(_ask, member, by) for member in there}
            async with aclosing(merged(request, shards)) as answers:
                async for answer in answers:
                    yield answer
        finally:
            if isinstance(request, HoldRuleAdd | HoldRuleRemove):
                self._one_rule_at_a_time.release()

    def desk(self) -> Workers:
        """The workers, as the HTTP pages see them."""
        return Workers(
            version=__version__,
            numbers=self._numbers,
            reasons=self._reasons,
            listing=self._listing,
            message=self._message,
        )

    async def _numbers(self) -> tuple[Mapping[str, str], int]:
        texts: dict[str, str] = {}
        there = [member for member in self._members if member.needed]
        for member in there:
            with suppress(ShardFailed):
                texts[member.name] = str((await _result(member, Numbers(), "")).get("numbers", ""))
        return texts, len(there) - len(texts)

    async def _reasons(self) -> list[str]:
        reasons: list[str] = []
        for member in self._members:
            if member.needed:
                try:
                    said = (await _result(member, Readiness(), "")).get("reasons")
                    reasons += [f"{member.name}: {each}" for each in said] if isinstance(said, list) else []
                except ShardFailed as error:
                    reasons.append(str(error))
        return reasons

    async def _listing(self, after: str, limit: int) -> list[Mapping[str, object]]:
        found: list[Mapping[str, object]] = []
        if limit:
            async with aclosing(self.answers(QueueList(after=after), "")) as answers:
                async for entry in _entries(answers):
                    found.append(entry)
                    if len(found) == limit:
                        break
        return found

    async def _message(self, queue_id: str) -> Mapping[str, object] | None:
        try:
            async with aclosing(self.answers(QueueShow(queue_id), "")) as answers:
                found = [entry async for entry in _entries(answers)]
        except CannotSay as error:
            if str(error) == no_such_message(queue_id):
                return None
            raise
        return found[0] if found else None

    async def _status(self, there: Sequence[Member], by: str) -> Answer:
        workers = [{"worker": member.post.number, "pid": member.pid, "up": member.ready.is_set()} for member in there]
        up = await self._statuses([member for member in there if member.ready.is_set()], by)
        validating = bool(up) and all(each.get("validating") is True for each in up)
        facts = {"version": __version__, "started": self._started, "validating": validating}
        return Done({"pid": os.getpid(), **facts, "workers": workers})

    async def _statuses(self, members: Sequence[Member], by: str) -> list[dict[str, object]]:
        return [await _result(member, Status(), by) for member in members]

    async def _reload(self, there: Sequence[Member], by: str) -> Answer:
        results = await asyncio.gather(*(_result(member, Reload(), by) for member in there))
        messages: dict[str, None] = {}
        for result in results:
            said = result.get("messages")
            messages.update(dict.fromkeys(str(each) for each in said) if isinstance(said, list) else {})
        accepted = all(result.get("accepted") is True for result in results)
        return Done({"accepted": accepted, "messages": list(messages)})


async def _entries(answers: AsyncGenerator[Answer, None]) -> AsyncGenerator[Mapping[str, object], None]:
    """The messages of a listing, put together.

    :raises CannotSay: if it fails.
    """
    parts: list[Item] = []
    async for answer in answers:
        if isinstance(answer, Failed):
            raise CannotSay(answer.error)
        if isinstance(answer, Item):
            parts.append(answer)
            if not answer.value.get("continued"):
                for entry in entries(parts):
                    yield entry
                parts = []


def _ask(member: Member, by: str, request: Request) -> AsyncGenerator[Answer, None]:
    return ask(member.post.office, member.name, request, by)


async def _result(member: Member, request: Request, by: str) -> dict[str, object]:
    async with aclosing(_ask(member, by, request)) as answers:
        async for answer in answers:
            match answer:
                case Done(value=value):
                    return dict(value)
                case Failed(error=error):
                    raise ShardFailed(f"{member.name}: {error}")
                case _:
                    pass
    raise ShardFailed(f"{member.name} did not answer")
