"""Plays the scripted hosts of a laid-out lab, and the name server that says nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from relay.lab.mx import Receiver
from relay.lab.real.evidence import EvidenceFile
from relay.lab.real.layout import Laid
from relay.lab.real.plan import SMTP_PORT, Server


class _Void(asyncio.DatagramProtocol):
    """Takes questions to the DNS; answers some with what is none, and none with an answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        if b"garbage" in data and isinstance(self._transport, asyncio.DatagramTransport):
            self._transport.sendto(data[:2] + b"\x81\x80 this is no DNS message", addr)


@asynccontextmanager
async def playing(laid: Laid) -> AsyncIterator[int]:
    """Run them for the length of the context; gives how many hosts listen.

    :raises OSError: if an address or port cannot be had.
    """
    plan = laid.plan
    async with AsyncExitStack() as stack:
        loop = asyncio.get_running_loop()
        void, _ = await loop.create_datagram_endpoint(_Void, local_addr=(plan.void, 53))
        stack.callback(void.close)
        hosts = [host for host in plan.run_by(Server.SCRIPTED) if host.listens]
        for host in hosts:
            file = EvidenceFile(laid.evidence / f"{host.name}.jsonl", str(os.getpid()))
            receiver = Receiver(host.name, plan.addresses[host.name], host.script, laid.credential(host.name), file.add)
            await receiver.start(SMTP_PORT)
            stack.push_async_callback(receiver.stop)
        yield len(hosts)
