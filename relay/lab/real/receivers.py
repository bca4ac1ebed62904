"""Plays the scripted hosts of a laid-out lab, and the name server that says nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from relay.lab.attacks import LOOK_SECONDS, Attack, Attacks, Board, Stage, play
from relay.lab.destination import LAB
from relay.lab.mx import Receiver
from relay.lab.real.evidence import EvidenceFile
from relay.lab.real.layout import RELOAD, Laid
from relay.lab.real.plan import SMTP_PORT, Server
from relay.lab.scenarios import DESTINATIONS


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
        stages: dict[str, Stage] = {}
        hosts = [host for host in plan.run_by(Server.SCRIPTED) if host.listens]
        for host in hosts:
            file = EvidenceFile(laid.evidence / f"{host.name}.jsonl", str(os.getpid()))
            receiver = Receiver(host.name, plan.addresses[host.name], host.script, laid.credential(host.name), file.add)
            await receiver.start(SMTP_PORT)
            stack.push_async_callback(receiver.stop)
            stages[host.name] = Stage(receiver, host.script, laid.credential(host.name), laid.attackers)
        watching = asyncio.create_task(_follow(laid, stages), name="follow attacks")
        stack.callback(watching.cancel)
        yield len(hosts)


async def _follow(laid: Laid, stages: Mapping[str, Stage]) -> None:
    """Play the attacks that are wanted, as soon as they are."""
    board, destinations = Board(laid.directory), {one.name: one for one in DESTINATIONS}
    now: Attacks = {}
    while True:
        wanted = board.wanted()
        if wanted != now:
            play(wanted, destinations, stages)
            spoil_zones(laid, wanted)
            board.follow(wanted)
            now = wanted
        await asyncio.sleep(LOOK_SECONDS)


def spoil_zones(laid: Laid, attacks: Attacks) -> None:
    """Serve zones under attack with signatures that are over, and all others as they were signed."""
    for spoilt in (laid.directory / "dns").glob("*.zone.bogus"):
        served = spoilt.with_suffix("")
        attack = attacks.get(served.name.removesuffix(f".{LAB}.zone"))
        source = spoilt if attack is Attack.BOGUS else served.with_suffix(".zone.good")
        if served.read_bytes() != source.read_bytes():
            temporary = served.with_suffix(".new")
            temporary.write_bytes(source.read_bytes())
            temporary.replace(served)
            (laid.directory / "dns" / RELOAD).write_text(f"{served.name} {source.name}\n")
