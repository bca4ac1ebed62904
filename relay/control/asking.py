"""A parent's questions to its workers: as the command's end of the control socket, without blocking."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from relay.control.address import socket_address
from relay.control.client import TIMEOUT
from relay.control.merging import ShardFailed
from relay.control.protocol import (
    MAX_ANSWER_LINE,
    Answer,
    BadMessage,
    Done,
    Failed,
    Request,
    decode_answer,
    on_behalf,
)


async def ask(office: Path, name: str, request: Request, by: str) -> AsyncGenerator[Answer, None]:
    """The answers of a worker, as they come; ``Done`` or ``Failed`` is the last.

    :param office: the directory with its control socket.
    :param name: what people call it.
    :raises ShardFailed: if it does not answer, or not to the end.
    """
    try:
        with socket_address(office) as address:
            reader, writer = await asyncio.open_unix_connection(address, limit=MAX_ANSWER_LINE)
    except OSError:
        raise ShardFailed(f"{name} does not answer (is it starting or ending?): try again") from None
    try:
        writer.write(on_behalf(request, by))
        while True:
            async with asyncio.timeout(TIMEOUT):
                line = await reader.readline()
            if not line:
                raise ShardFailed(f"{name} broke off before it had answered")
            answer = decode_answer(line)
            yield answer
            if isinstance(answer, Done | Failed):
                return
    except (OSError, ValueError, TimeoutError, BadMessage) as error:
        raise ShardFailed(f"{name} broke off: {error}") from None
    finally:
        writer.close()
