"""Queues that no relay uses, for the length of one command: locked, open, and with everything that queue commands need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from relay.app.building import Building, WriteLine
from relay.app.posts import name_of, of_worker, places
from relay.app.rules import read_rules
from relay.config.config import Config
from relay.control.lock import hold
from relay.queue.administration import Administration


@asynccontextmanager
async def open_administrations(
    config: Config, write_line: WriteLine, *, routes: bool
) -> AsyncIterator[Mapping[str, Administration]]:
    """Own the state directory and the queues in it, one for each worker that there is or was; those that exist.

    :param routes: whether mail will be routed; whoever only looks must not depend on maps that can be read.
    :param write_line: takes the log's lines where ``log.file`` names no file.
    :raises CannotStart: (or an error of the room concerned, its message for people) if they cannot be had.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(hold(config.relay.state_dir))
        rules = read_rules(config) if routes else None
        opened: dict[str, Administration] = {}
        for number, file in places(config):
            if not file.exists():
                continue
            building = Building(of_worker(config, number), stack)
            building.open_log(None if config.log.file else write_line)
            await building.open_store()
            if rules is not None:
                building.rules = rules
            building.settler = building.new_settler(lambda destinations: None)
            opened[name_of(number)] = building.administration(lambda: None)
        yield opened
