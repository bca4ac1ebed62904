"""A resolver that is away, slow, validates nothing or passes on a bit that it did not set: what the relay then does.

For ``on_no_validation`` of both kinds (DESIGN section 6): what is alarmed, what waits, what leaves as ``may`` and says so, and
that waiting mail goes out by itself when the resolver is back.
"""

from __future__ import annotations

import pytest

from relay.app import CannotStart
from tests.resolved_world import Log, World, send
from tests.signed_tree import Key

DEGRADE = 'on_no_validation = "degrade"'
DEFER = 'on_no_validation = "defer"'
NO_ROOT = "dnssec_probe 'ns:.' received a response that is not DNSSEC validated"
DEGRADED = "dns.on_no_validation = degrade lets the global dane act as may"


async def waits(log: Log, queue_id: str, recipient: str) -> str:
    """The line of a delivery that was put off."""
    return await log.wait_for(f"{queue_id}: to=<{recipient}>.*status=deferred")


async def leaves(log: Log, queue_id: str, recipient: str, tls: str) -> str:
    return await log.wait_for(f"{queue_id}: to=<{recipient}>.*tls={tls}, .*status=sent")


def trust_ad(world: World, *settings: str) -> str:
    return "\n".join(['mode = "trust-ad"', world.nameserver, *settings])


@pytest.mark.parametrize("settings", [DEFER, DEGRADE])
@pytest.mark.parametrize("trouble", ["stopped", "silent"])
async def test_nothing_leaves_while_nobody_answers(world: World, impatient: None, settings: str, trouble: str) -> None:
    """Without answers there is no host to go to: ``degrade`` changes nothing, and no answer is no denial."""
    world.server.sets_ad = True
    if trouble == "stopped":
        world.server.stop()
    world.server.silent = True
    async with world.relay(trust_ad(world, settings)) as (log, address):
        ids = [(await send(address, to), to) for to in ("bob@good.zt", "bob@named.zt", "bob@may.zt")]
        await log.wait_for("warning: resolver does not validate: .*received no response")
        for queue_id, recipient in ids:
            assert "Host not found, try again" in await waits(log, queue_id, recipient)
        assert not world.receiver.sessions
        world.server.silent = False
        if trouble == "stopped":
            world.server.start()
        await log.wait_for("resolver validates: trust-ad through")
        for (queue_id, recipient), tls in zip(ids, ("dane", "dane", "may"), strict=True):
            await leaves(log, queue_id, recipient, tls)


@pytest.mark.parametrize("settings", [DEFER, DEGRADE])
async def test_a_resolver_that_does_not_validate(world: World, impatient: None, settings: str) -> None:
    async with world.relay(trust_ad(world, settings)) as (log, address):
        alarm = await log.wait_for("warning: resolver does not validate")
        assert NO_ROOT in alarm
        named, may = await send(address, "bob@named.zt"), await send(address, "bob@may.zt")
        good = await send(address, "bob@good.zt")
        line = await waits(log, named, "bob@named.zt")
        assert "resolver does not validate: expected a resolver that validates DNSSEC; found " in line
        assert NO_ROOT in line
        await leaves(log, may, "bob@may.zt", "may")
        if settings == DEFER:
            assert "resolver does not validate" in await waits(log, good, "bob@good.zt")
        else:
            await leaves(log, good, "bob@good.zt", "may")
            assert DEGRADED in await log.wait_for(f"{good}: .*degrade")
        assert not any("Verified" in line for line in log.lines)
        world.server.sets_ad = True
        await log.wait_for("resolver validates")
        await leaves(log, named, "bob@named.zt", "dane")
        if settings == DEFER:
            await leaves(log, good, "bob@good.zt", "dane")


@pytest.mark.parametrize("world", ["127.0.0.53"], indirect=True)
async def test_a_stub_that_passes_bits_on(world: World) -> None:
    """127.0.0.53 counts only when it is listed, and then a name that must be refused finds out that it validates nothing."""
    world.server.sets_ad = True
    async with world.relay(trust_ad(world)) as (log, address):
        assert NO_ROOT in await log.wait_for("warning: resolver does not validate")
        assert "resolver does not validate" in await waits(log, await send(address, "bob@good.zt"), "bob@good.zt")
        assert not world.receiver.sessions
    listed = f'trusted_nameservers = ["{world.server.address}"]'
    async with world.relay(trust_ad(world, listed, 'probe_bogus_name = "mx.bogus.zt"')) as (log, address):
        await log.wait_for(
            r"warning: resolver does not validate: dns\.probe_bogus_name 'mx\.bogus\.zt' received an answer"
        )
        assert not world.receiver.sessions


@pytest.mark.parametrize("settings", [DEFER, DEGRADE])
async def test_a_stale_anchor_holds_everything_back(world: World, impatient: None, settings: str) -> None:
    """To a validator with the wrong key all is bogus, which never is a reason for less TLS."""
    state = world.directory / "state" / "root.key"
    state.write_text(Key.new().delegation_signer(".") + "\n")
    async with world.relay(f'mode = "validate"\n{world.nameserver}\n{settings}') as (log, address):
        alarm = await log.wait_for("warning: resolver does not validate: .*received a response that does not validate")
        assert f"trust anchor: {state}" in alarm
        for recipient in ("bob@good.zt", "bob@named.zt", "bob@may.zt"):
            line = await waits(log, await send(address, recipient), recipient)
            assert "validation failure" in line
    assert not world.receiver.sessions
    state.write_text("\n".join(world.server.tree.anchors) + "\n")
    async with world.relay(f'mode = "validate"\n{world.nameserver}\n{settings}') as (log, _):
        await log.wait_for("to=<bob@good.zt>.*tls=dane.*status=sent")
        await log.wait_for("to=<bob@named.zt>.*tls=dane.*status=sent")
        await log.wait_for("to=<bob@may.zt>.*tls=may.*status=sent")


async def test_an_empty_anchor_stops_the_start(world: World) -> None:
    anchor = world.write_anchor(["; no key here"])
    with pytest.raises(CannotStart, match=f"trust anchor {anchor}: has no DS or DNSKEY record that is trusted"):
        async with world.relay(f'mode = "validate"\n{world.nameserver}\ntrust_anchor_file = "{anchor}"'):
            pass


async def test_stripped_signatures_degrade_the_default_and_no_map_line(world: World, impatient: None) -> None:
    anchor = world.write_anchor(world.server.tree.anchors)
    world.server.strips_signatures = True
    settings = f'mode = "auto"\n{world.nameserver}\ntrust_anchor_file = "{anchor}"\n{DEGRADE}'
    async with world.relay(settings) as (log, address):
        good, named = await send(address, "bob@good.zt"), await send(address, "bob@named.zt")
        await leaves(log, good, "bob@good.zt", "may")
        assert DEGRADED in await log.wait_for(f"{good}: .*degrade")
        assert "resolver does not validate" in await waits(log, named, "bob@named.zt")
        world.server.strips_signatures = False
        await leaves(log, named, "bob@named.zt", "dane")
