"""Sessions end before the walk does, whatever the host makes of QUIT."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

from relay.dns.answer import RRType
from relay.explain.story import Satisfied, WouldSend
from relay.policy.level import Level
from tests.unit.explain.scene import DOMAIN, Scene, named
from tests.zone import a, found, mx_rdata


async def test_a_host_that_does_not_hang_up_is_left(scene: Scene) -> None:
    heard: list[bytes] = []
    gone = asyncio.Event()

    async def deaf_to_quit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mx1 ESMTP\r\n")
        while line := await reader.readline():
            heard.append(line.strip())
            if line.startswith(b"EHLO"):
                writer.write(b"250-mx1\r\n250 PIPELINING\r\n")
        gone.set()
        writer.close()

    server = await asyncio.start_server(deaf_to_quit, "127.0.0.2", 0)
    async with server:
        scene.port = server.sockets[0].getsockname()[1]
        scene.level, scene.quit = Level.NONE, 0.05
        scene.zone[DOMAIN, RRType.MX] = found(DOMAIN, mx_rdata(10, named(1)))
        scene.zone[named(1), RRType.A] = found(named(1), a("127.0.0.2"))
        ending = (await scene.explain(live=True)).ending
        assert isinstance(ending, WouldSend)
        assert isinstance(ending.session, Satisfied)
        assert ending.relay.address == ip_address("127.0.0.2")
        async with asyncio.timeout(20):
            await gone.wait()
    assert heard == [b"EHLO relay.test", b"QUIT"]
