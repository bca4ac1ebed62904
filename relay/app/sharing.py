"""What a worker shares with the others: the places at destinations, and the rules for mail that comes in."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path

from relay.app.posts import Post, name_of, office
from relay.control.asking import ask
from relay.control.merging import ShardFailed
from relay.control.protocol import Failed, HoldRules, Item
from relay.log.metrics import Metrics
from relay.queue.acts import QueueActs
from relay.queue.store import QueueStore
from relay.scheduling.places import ALONE, Places
from relay.smtpd import elsewhere
from relay.smtpd.elsewhere import Elsewhere, SharedCounts, SharedMemory
from relay.worker.places import SharedPlaces

LOOK_SECONDS = 5.0
# How often, and with how many seconds between, the first worker is asked for its rules.
_TRIES, _PAUSE = 50, 0.2


class NoRules(Exception):  # noqa: N818 - it names the state, not the handling
    """The first worker does not say which rules hold for mail that comes in; the message says why."""


def places(post: Post | None, limit: int, stack: AsyncExitStack, metrics: Metrics) -> Places:
    """A worker's places at destinations; nothing to share where there is but one.

    :param limit: deliveries to one destination at a time, of all workers together.
    :param stack: closes it in the end.
    :param metrics: show what sharing costs.
    :raises OSError: if their file cannot be opened.
    """
    if post is None:
        return ALONE
    made = SharedPlaces(post.places, limit=limit, processes=post.processes)
    stack.callback(made.close)
    metrics.places(lambda: made.full, lambda: made.lock_seconds)
    return made


def clients(post: Post | None, stack: AsyncExitStack) -> Elsewhere:
    """What the other workers count of their clients; nothing where there are none.

    :param stack: gives the memory up in the end.
    """
    if post is None or post.clients < 0:
        return elsewhere.ALONE
    memory = SharedMemory(post.clients)
    stack.callback(memory.close)
    return SharedCounts(memory, post.number - 1)


async def take_hold_rules(post: Post, acts: QueueActs) -> None:
    """Have the rules that the first worker has, before any mail comes in: a worker may be new, or was away for a while.

    :raises ShardFailed: if the first worker does not answer, nor does so soon.
    :raises NoRules: if it does not say them.
    """
    if post.number == 1 or post.drains:
        return
    for _ in range(_TRIES):
        with suppress(ShardFailed, NoRules):  # it may have ended just now, or be asked by many
            wanted = await _rules_of_first(post)
            break
        await asyncio.sleep(_PAUSE)
    else:
        wanted = await _rules_of_first(post)
    for rule in await acts.hold_rules():
        own = (rule.filter, rule.reason, rule.by)
        if wanted[own]:
            wanted[own] -= 1
        else:
            await acts.remove_hold_rule(rule.number)
    for where, reason, by in wanted.elements():
        await acts.add_hold_rule(filter_text=where, reason=reason, by=by)


async def _rules_of_first(post: Post) -> Counter[tuple[str, str, str]]:
    wanted: Counter[tuple[str, str, str]] = Counter()
    first = office(Path(post.state_dir), 1)
    async with aclosing(ask(first, name_of(1), HoldRules(), name_of(post.number))) as said:
        async for answer in said:
            match answer:
                case Item(value=value):
                    wanted[_says(value)] += 1
                case Failed(error=error):
                    raise NoRules(f"worker 1 does not say its hold rules: {error}")
                case _:
                    pass
    return wanted


def _says(rule: Mapping[str, object]) -> tuple[str, str, str]:
    return str(rule["filter"]), str(rule["reason"]), str(rule["by"])


async def until_empty(store: QueueStore) -> bool:
    """Return when the queue has no mail.

    :returns: whether it had none from the first look on.
    :raises StoreUnavailable: if it cannot be read.
    """
    looks = 0
    while await store.entries(limit=1):
        looks += 1
        await asyncio.sleep(LOOK_SECONDS)
    return not looks
