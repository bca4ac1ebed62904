"""What the validating resolver says of a signed tree: every status apart, on both loops, whatever the server does."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
import uvloop

from relay.dns.anchor import Anchors
from relay.dns.answer import Answer, Bogus, Found, LookupFailed, LookupFault, NoData, NxDomain, RRType
from relay.dns.libunbound import Context, UnboundError
from relay.dns.message import ROOT
from relay.dns.unbound import MAX_PARALLEL, UnboundResolver, Upstream
from relay.mail.names import Domain
from tests.interop.servers import leave_out, require_libunbound
from tests.loopback import LoopbackNetwork
from tests.signed_tree import Key, Tree, TreeServer, Zone

PATIENCE = 20.0


@asynccontextmanager
async def resolver(
    upstream: Upstream, anchors: Anchors, *, timeout: float = PATIENCE
) -> AsyncIterator[UnboundResolver]:
    made = await UnboundResolver.open(upstream, anchors, timeout=timeout)
    try:
        yield made
    finally:
        await made.close()


async def ask(upstream: Upstream, anchors: Anchors, name: str, rrtype: RRType = RRType.A) -> Answer:
    async with resolver(upstream, anchors) as made:
        return await made.query(Domain(name), rrtype)


@pytest.mark.parametrize(
    ("name", "rrtype", "canonical", "secure"),
    [
        ("", RRType.NS, "", True),
        ("mx.good.zt", RRType.A, "mx.good.zt", True),
        ("_25._tcp.mx.good.zt", RRType.TLSA, "_25._tcp.mx.good.zt", True),
        ("alias.good.zt", RRType.A, "mx.good.zt", True),
        ("alias.good.zt", RRType.CNAME, "alias.good.zt", True),
        ("out.good.zt", RRType.A, "mx.ins.zt", False),
        ("in.ins.zt", RRType.A, "mx.good.zt", False),
        ("mx.ins.zt", RRType.A, "mx.ins.zt", False),
        ("any.wild.zt", RRType.A, "any.wild.zt", True),
        ("big.good.zt", RRType.TXT, "big.good.zt", True),  # over TCP
        ("mx.test", RRType.A, "mx.test", True),  # a local zone of the library's, unless removed
    ],
)
async def test_found(
    *, upstream: Upstream, anchors: Anchors, name: str, rrtype: RRType, canonical: str, secure: bool
) -> None:
    answer = await ask(upstream, anchors, name, rrtype)
    assert isinstance(answer, Found), answer
    assert (answer.canonical, answer.secure) == (Domain(canonical), secure)
    assert answer.rdata
    assert 0 < answer.ttl <= 300


async def test_rdata_is_raw_and_uncompressed(upstream: Upstream, anchors: Anchors) -> None:
    mx, tlsa = [await ask(upstream, anchors, *query) for query in QUERIES]
    assert isinstance(mx, Found)
    assert isinstance(tlsa, Found)
    assert mx.rdata == (b"\0\x0a\2MX\4good\2zt\0",)
    assert tlsa.rdata == (b"\3\1\1" + b"\xab" * 32,)


QUERIES = (("good.zt", RRType.MX), ("_25._tcp.mx.good.zt", RRType.TLSA))


@pytest.mark.parametrize(
    ("name", "rrtype", "kind", "canonical", "secure"),
    [
        ("mx.good.zt", RRType.TXT, NoData, "mx.good.zt", True),
        ("alias.good.zt", RRType.TXT, NoData, "mx.good.zt", True),
        ("ent.zt", RRType.A, NoData, "ent.zt", True),
        ("mx.ins.zt", RRType.TXT, NoData, "mx.ins.zt", False),
        ("no.good.zt", RRType.A, NxDomain, "no.good.zt", True),
        ("to-nothing.good.zt", RRType.A, NxDomain, "nothing.good.zt", True),
        ("no.ins.zt", RRType.A, NxDomain, "no.ins.zt", False),
        *(
            # What the library would answer for itself, without proof.
            (f"no.{zone}", RRType.A, NxDomain, f"no.{zone}", True)
            for zone in ("invalid", "onion", "home.arpa", "168.192.in-addr.arpa", "10.in-addr.arpa")
        ),
    ],
)
async def test_nothing_is_proven(
    *,
    upstream: Upstream,
    anchors: Anchors,
    name: str,
    rrtype: RRType,
    kind: type[NoData | NxDomain],
    canonical: str,
    secure: bool,
) -> None:
    answer = await ask(upstream, anchors, name, rrtype)
    assert isinstance(answer, kind), answer
    assert (answer.canonical, answer.secure) == (Domain(canonical), secure)
    assert 0 < answer.ttl <= 60  # the smaller of the SOA record's TTL and MINIMUM


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("mx.spoilt.zt", "signature verification failed"),
        ("to-bogus.good.zt", "signature verification failed"),
        ("mx.expired.zt", "signature expired"),
        ("mx.wrong-ds.zt", "DS"),
        ("nothing.expired.zt", "signature expired"),
    ],
)
async def test_bogus_has_its_reason_in_one_line(upstream: Upstream, anchors: Anchors, name: str, why: str) -> None:
    answer = await ask(upstream, anchors, name)
    assert isinstance(answer, Bogus), answer
    assert why in answer.why
    assert answer.why.isprintable()
    assert len(answer.why) < 400


async def test_bogus_zone_does_not_spoil_its_sound_records(upstream: Upstream, anchors: Anchors) -> None:
    answer = await ask(upstream, anchors, "spoilt.zt", RRType.MX)
    assert isinstance(answer, Found)
    assert answer.secure


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("mx.broken.zt", LookupFault.SERVFAIL),
        ("loop0.good.zt", LookupFault.SERVFAIL),  # a chain of CNAME records that is too long
        ("many.zt", LookupFault.LIMIT),
        ("nul\0.zt", LookupFault.SERVFAIL),
        (f"{'a' * 64}.zt", LookupFault.SERVFAIL),
    ],
)
async def test_failures_are_temporary(upstream: Upstream, anchors: Anchors, name: str, fault: LookupFault) -> None:
    answer = await ask(upstream, anchors, name)
    assert isinstance(answer, LookupFailed), answer
    assert answer.fault is fault
    assert answer.why


async def test_localhost_needs_no_dns(server: TreeServer, upstream: Upstream, anchors: Anchors) -> None:
    answer = await ask(upstream, anchors, "localhost")
    assert isinstance(answer, Found)
    assert answer.rdata == (b"\x7f\0\0\1",)
    assert not server.asked


async def test_nothing_is_secure_without_an_anchor(upstream: Upstream) -> None:
    for name, rrtype in (("", RRType.NS), ("mx.good.zt", RRType.A)):
        answer = await ask(upstream, Anchors((), "none"), name, rrtype)
        assert isinstance(answer, Found)
        assert not answer.secure


async def test_wrong_anchor_makes_everything_bogus_and_is_named(upstream: Upstream) -> None:
    wrong = Anchors((Key.new().delegation_signer("."),), "/etc/old.key")
    root = await ask(upstream, wrong, "", RRType.NS)
    assert isinstance(root, Bogus)
    assert "/etc/old.key" in root.why
    assert isinstance(await ask(upstream, wrong, "mx.good.zt"), Bogus)
    assert isinstance(await ask(upstream, wrong, "mx.ins.zt"), Bogus)


async def test_unusable_anchor_is_refused_at_once(upstream: Upstream) -> None:
    with pytest.raises(UnboundError, match="initialization"):
        await UnboundResolver.open(upstream, Anchors(("no record",), "x"), timeout=PATIENCE)


async def test_forwarder_that_strips_signatures(server: TreeServer, upstream: Upstream, anchors: Anchors) -> None:
    server.strips_signatures = True
    assert isinstance(await ask(upstream, anchors, "", RRType.NS), Bogus)
    assert isinstance(await ask(upstream, anchors, "mx.good.zt"), Bogus)


async def test_silence_ends_with_our_own_deadline_and_is_cancelled(
    server: TreeServer, upstream: Upstream, anchors: Anchors, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[int] = []
    monkeypatch.setattr(Context, "cancel", lambda context, number: cancelled.append(number))
    server.silent = True
    async with resolver(upstream, anchors, timeout=0.2) as made:
        answer = await made.query(Domain("mx.good.zt"), RRType.A)
    assert isinstance(answer, LookupFailed)
    assert answer.fault is LookupFault.TIMEOUT
    assert str(server.port) in answer.why
    assert len(cancelled) == 1


async def test_second_forwarder_answers_for_a_dead_first(server: TreeServer, tree: Tree, anchors: Anchors) -> None:
    with TreeServer(tree) as dead:
        pass
    pair = tuple((ip_address(one.address), one.port) for one in (dead, server))
    answer = await ask(Upstream(forwarders=pair), anchors, "mx.good.zt")
    assert isinstance(answer, Found)
    assert answer.secure


async def test_full_recursion_from_root_hints(zones: tuple[Zone, ...], tmp_path: Path) -> None:
    require_libunbound()
    address = LoopbackNetwork().address(1)
    from_root = Tree(zones, address=address)
    try:
        with TreeServer(from_root, address=address, port=53) as root:
            hints = tmp_path / "root.hints"
            hints.write_text(f". 3600 IN NS ns.zt.\nns.zt. 3600 IN A {address}\n")
            upstream = Upstream(root_hints=str(hints))
            keys = Anchors(from_root.anchors, "test")
            answer = await ask(upstream, keys, "mx.good.zt")
            assert isinstance(answer, Found)
            assert answer.secure
            assert isinstance(await ask(upstream, keys, "mx.spoilt.zt"), Bogus)
            assert root.asked
    except PermissionError:
        leave_out("port 53", "only root may listen there, and root hints have no ports")


async def across(loop_made_by: Callable[[], asyncio.AbstractEventLoop], work: Coroutine[None, None, None]) -> None:
    def run() -> None:
        with asyncio.Runner(loop_factory=loop_made_by) as runner:
            runner.run(work)

    await asyncio.to_thread(run)


@pytest.mark.parametrize("loop_made_by", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
async def test_on_both_loops(
    loop_made_by: Callable[[], asyncio.AbstractEventLoop], server: TreeServer, upstream: Upstream, anchors: Anchors
) -> None:
    async def work() -> None:
        async with resolver(upstream, anchors) as made:
            names = [Domain(f"host{number}.zt") for number in range(5 * MAX_PARALLEL)]
            answers = await asyncio.gather(*(made.query(name, RRType.A) for name in names))
            assert all(isinstance(answer, Found) and answer.secure for answer in answers)
            server.silent = True
            task = asyncio.create_task(made.query(Domain("alias.good.zt"), RRType.A))
            await asyncio.to_thread(server.wait_until_asked, "alias.good.zt.", "A")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            server.silent = False
            answer = await made.query(Domain("alias.good.zt"), RRType.A)
            assert isinstance(answer, Found)
            assert answer.secure

    await across(loop_made_by, work())


async def test_stopped_server_that_returns(server: TreeServer, upstream: Upstream, anchors: Anchors) -> None:
    async with resolver(upstream, anchors, timeout=1) as made:
        assert isinstance(await made.query(ROOT, RRType.NS), Found)
        server.stop()
        failed = await made.query(Domain("mx.good.zt"), RRType.A)
        assert isinstance(failed, LookupFailed)
        server.start()
        async with asyncio.timeout(60):
            while not isinstance(answer := await made.query(Domain("mx.good.zt"), RRType.A), Found):
                assert isinstance(answer, LookupFailed)
        assert answer.secure


async def test_closed_resolver_fails_softly(upstream: Upstream, anchors: Anchors) -> None:
    made = await UnboundResolver.open(upstream, anchors, timeout=PATIENCE)
    await made.close()
    await made.close()
    answer = await made.query(ROOT, RRType.NS)
    assert isinstance(answer, LookupFailed)


async def test_close_lets_look_ups_under_way_end(server: TreeServer, upstream: Upstream, anchors: Anchors) -> None:
    server.silent = True
    made = await UnboundResolver.open(upstream, anchors, timeout=PATIENCE)
    asking = asyncio.create_task(made.query(Domain("mx.good.zt"), RRType.A))
    await asyncio.to_thread(server.wait_until_asked, "mx.good.zt.", "A")
    closing = asyncio.create_task(made.close())
    server.silent = False
    assert isinstance(await asking, Found)
    await closing


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors and threads in /proc")
async def test_nothing_is_left_behind(server: TreeServer, upstream: Upstream, anchors: Anchors) -> None:
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    async def use() -> None:
        async with resolver(upstream, anchors) as made:
            await made.query(Domain("mx.good.zt"), RRType.A)
            task = asyncio.create_task(made.query(Domain("mx.broken.zt"), RRType.A))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # The first rounds start the threads of to_thread, which stay.
    for _ in range(8):
        await use()
    before = held()
    for _ in range(20):
        await use()
    after = held()
    assert after[0] <= before[0]
    assert after[1] <= before[1] + 8
