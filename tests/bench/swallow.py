"""A receiver that takes every message and keeps none: ``python -m tests.bench.swallow PORT``."""

from __future__ import annotations

import asyncio
import sys

import uvloop

_END = b"\r\n.\r\n"


async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one client."""
    try:
        writer.write(b"220 swallow.test\r\n")
        while line := await reader.readline():
            match line[:4].upper():
                case b"EHLO":
                    writer.write(b"250-swallow.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n")
                case b"DATA":
                    writer.write(b"354 go on\r\n")
                    tail = b"\r\n"
                    while not tail.endswith(_END):
                        block = await reader.read(262_144)
                        if not block:
                            return
                        tail = (tail + block)[-len(_END) :]
                    writer.write(b"250 2.0.0 Ok\r\n")
                case b"QUIT":
                    return
                case _:
                    writer.write(b"250 2.0.0 Ok\r\n")
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main(port: int) -> None:
    """Listen until the process is ended."""
    server = await asyncio.start_server(session, "127.0.0.1", port, limit=262_144, backlog=1000)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
