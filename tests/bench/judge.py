"""What one delivery pays for DANE: the verdict on a session, and the look-ups before it.

``python -m tests.bench.judge`` (or ``make bench BENCH=tests.bench.judge``) prints medians in microseconds and writes
bench-judge-result.json. The name server of the look-ups is in this process, so its work is in their figures.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import statistics
import struct
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Final, cast

import uvloop
from rich.console import Console
from rich.table import Table

from relay.dane.tlsa import Tlsa
from relay.dns.ad import AdResolver, NameServer
from relay.dns.answer import Found, RRType
from relay.dns.cache import CachingResolver
from relay.mail.names import Domain
from relay.policy.level import Level
from relay.policy.policy import LiteralName, Rule, TlsPolicy
from relay.tls.certificate import cert_facts
from relay.tls.chain import ChainChecker
from relay.tls.judge import judge
from relay.tls.peer import PeerFacts
from relay.tls.verdict import Verified
from tests import pki
from tests.pki import NOW, PrivateKey

RESULT: Final = Path("bench-judge-result.json")
NAME: Final = "mx.example"
WARM_UP: Final = 50
_RECORD: Final = struct.pack("!HHHIH", 0xC00C, RRType.TLSA, 1, 3600, 35) + bytes((3, 1, 1)) + bytes(32)
_SECURE_ANSWER: Final = struct.pack("!5H", 0x81A0, 1, 1, 0, 0)
_OPT_OCTETS: Final = 11


def main() -> int:
    """Run the bench; exit status 0, or an assertion if something did not come out as it should."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.judge", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000, help="measurements of each figure (%(default)s)")
    parser.add_argument("--output", type=Path, default=RESULT, help="%(default)s")
    arguments = parser.parse_args()
    verdicts = {
        f"{what}, {kind}": figure
        for kind, make_key in (("EC P-256", pki.ec_key), ("RSA 2048", pki.rsa_key))
        for what, figure in of_verdicts(make_key, arguments.rounds).items()
    }
    lookups = uvloop.run(of_lookups(arguments.rounds))
    result = {
        "what": "median microseconds of one verdict and of one TLSA look-up",
        "rounds": arguments.rounds,
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "verdict_us": verdicts,
        "lookup_us": lookups,
    }
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    table = Table("what", "median µs", title=f"DANE, {arguments.rounds} rounds each")
    for what, figure in {**verdicts, **lookups}.items():
        table.add_row(what, f"{figure:.1f}")
    console = Console()
    console.print(table)
    console.print(f"written to {arguments.output}")
    return 0


def of_verdicts(make_key: Callable[[], PrivateKey], rounds: int) -> dict[str, float]:
    """judge() with the real chain checker, and what reading the presented chain costs before it."""
    root = pki.authority("Root", key=make_key())
    inter = root.issue("Inter", ca=True, key=make_key())
    leaf = inter.issue("leaf", dns=[NAME], key=make_key())
    sent = (leaf, inter)
    facts = tuple(cert_facts(cert.der) for cert in sent)
    peer = PeerFacts(
        chain=facts, protocol="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", bits=256, algorithm_bits=256, sni=NAME
    )
    checker = ChainChecker()

    def verdict(record: Tlsa) -> Callable[[], object]:
        policy = TlsPolicy(
            level=Level.DANE,
            asked=Level.DANE,
            rule=Rule("smtp_tls_security_level"),
            names=(LiteralName(Domain(NAME)),),
            tlsa=(record,),
        )
        assert isinstance(judge(policy, peer, checker, NOW), Verified)
        return lambda: judge(policy, peer, checker, NOW)

    return {
        "reading a chain of two": _median(lambda: [cert_facts(cert.der) for cert in sent], rounds),
        "judge, 3 1 1": _median(verdict(leaf.tlsa(3, 1, 1)), rounds),
        "judge, 2 1 1": _median(verdict(inter.tlsa(2, 1, 1)), rounds),
        "judge, 2 0 0 with a root that is not sent": _median(verdict(root.tlsa(2, 0, 0)), rounds),
    }


async def of_lookups(rounds: int) -> dict[str, float]:
    """One TLSA look-up after the other, over UDP on loopback."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(_Responder, local_addr=("127.0.0.1", 0))
    try:
        port = transport.get_extra_info("sockname")[1]
        inner = AdResolver([NameServer(ip_address("127.0.0.1"), port, trusted=True)], timeout=5.0)
        cached = CachingResolver(inner, monotonic=time.monotonic)
        names = (Domain(f"_25._tcp.mx{number}.example") for number in range(10 * rounds + 10 * WARM_UP))
        known = next(names)

        async def lookup(resolver: AdResolver | CachingResolver, name: Domain) -> None:
            answer = await resolver.query(name, RRType.TLSA)
            assert isinstance(answer, Found)
            assert answer.secure

        return {
            "look-up without a cache": await _median_of(lambda: lookup(inner, known), rounds),
            "look-up of what the cache does not have": await _median_of(lambda: lookup(cached, next(names)), rounds),
            "look-up of what the cache has": await _median_of(lambda: lookup(cached, known), rounds),
        }
    finally:
        transport.close()


class _Responder(asyncio.DatagramProtocol):
    """Answers every question with one secure TLSA record."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # uvloop's is one, and no subclass

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        question = data[12:-_OPT_OCTETS]
        self._transport.sendto(data[:2] + _SECURE_ANSWER + question + _RECORD, addr)


def _median(work: Callable[[], object], rounds: int) -> float:
    for _ in range(WARM_UP):
        work()
    taken = []
    gc.disable()
    try:
        for _ in range(rounds):
            begin = time.perf_counter_ns()
            work()
            taken.append(time.perf_counter_ns() - begin)
    finally:
        gc.enable()
    return round(statistics.median(taken) / 1000, 2)


async def _median_of(work: Callable[[], Awaitable[None]], rounds: int) -> float:
    for _ in range(WARM_UP):
        await work()
    taken = []
    for _ in range(rounds):
        begin = time.perf_counter_ns()
        await work()
        taken.append(time.perf_counter_ns() - begin)
    return round(statistics.median(taken) / 1000, 2)


if __name__ == "__main__":
    raise SystemExit(main())
