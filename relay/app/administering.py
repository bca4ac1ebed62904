"""A queue that no relay uses, for the length of one command: locked, open, and with everything that queue commands need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from relay.app.building import Building, WriteLine
from relay.app.rules import read_rules
from relay.config.config import Config
from relay.queue.administration import Administration


@asynccontextmanager
async def open_administration(config: Config, write_line: WriteLine, *, routes: bool) -> AsyncIterator[Administration]:
    """Own the state directory and its queue.

    :param routes: whether mail will be routed; whoever only looks must not depend on maps that can be read.
    :param write_line: takes the log's lines where ``log.file`` names no file.
    :raises CannotStart: (or an error of the room concerned, its message for people) if it cannot be had.
    """
    async with AsyncExitStack() as stack:
        building = Building(config, stack)
        building.open_log(None if config.log.file else write_line)
        await building.open_queue()
        if routes:
            building.rules = read_rules(config)
        building.settler = building.new_settler(lambda destinations: None)
        yield building.administration(lambda: None)
