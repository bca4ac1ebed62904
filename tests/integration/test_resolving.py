"""The whole relay in the modes ``validate`` and ``auto`` on a signed tree: what is verified, deferred, and delivered later."""

from __future__ import annotations

import asyncio

import pytest

from relay.app import CannotStart
from relay.dns import follow, libunbound
from tests.relay_process import RelayProcess
from tests.resolved_world import World, send
from tests.signed_tree import Key

VERIFIED = r"Verified TLS connection established to mx\.good\.zt"


async def test_validate_verifies_and_follows_its_anchor(world: World) -> None:
    (world.directory / "state" / "root.key").write_text("\n".join(world.server.tree.anchors) + "\n")
    async with world.relay(f'mode = "validate"\n{world.nameserver}') as (log, address):
        await log.wait_for(r"resolver validates: libunbound through 127\.[\d.]+:\d+: dnssec_probe 'ns:\.'")
        await log.wait_for(r"trust anchor .*root\.key: the trusted keys have changed")  # from DS to DNSKEY records
        queue_id = await send(address, "bob@good.zt")
        await log.wait_for(VERIFIED)
        await log.wait_for(f"{queue_id}: to=<bob@good.zt>.*tls=dane.*status=sent")
    (message,) = world.receiver.received()
    assert message.encrypted
    assert "autotrust" in (world.directory / "state" / "root.key").read_text()


async def test_validate_defers_bogus_with_its_reason_and_delivers_insecure_opportunistically(world: World) -> None:
    anchor = world.write_anchor(world.server.tree.anchors)
    settings = f'mode = "validate"\n{world.nameserver}\ntrust_anchor_file = "{anchor}"'
    async with world.relay(settings) as (log, address):
        bogus, plain = await send(address, "bob@bogus.zt"), await send(address, "bob@plain.zt")
        line = await log.wait_for(f"{bogus}: to=.*status=deferred")
        assert "validation failure <mx.bogus.zt. A" in line
        await log.wait_for(f"{plain}: to=.*status=sent")
    assert not (world.directory / "state" / "root.key").exists()


async def test_stopped_resolver_defers_with_its_reason_and_mail_flows_when_it_returns(
    world: World, impatient: None
) -> None:
    anchor = world.write_anchor(world.server.tree.anchors)
    world.server.stop()
    settings = f'mode = "validate"\n{world.nameserver}\ntrust_anchor_file = "{anchor}"'
    async with world.relay(settings) as (log, address):
        queue_id = await send(address, "bob@good.zt")
        await log.wait_for("warning: resolver does not validate: dnssec_probe 'ns:.' received no response")
        line = await log.wait_for(f"{queue_id}: to=<bob@good.zt>.*status=deferred")
        assert "type=MX: Host not found, try again" in line
        assert "libunbound through" in line
        assert not world.receiver.sessions
        world.server.start()
        await log.wait_for("resolver validates: libunbound through")
        await log.wait_for(f"{queue_id}: to=<bob@good.zt>.*tls=dane.*status=sent")


async def test_auto_takes_libunbound_where_it_validates(world: World) -> None:
    anchor = world.write_anchor(world.server.tree.anchors)
    async with world.relay(f'mode = "auto"\n{world.nameserver}\ntrust_anchor_file = "{anchor}"') as (log, address):
        queue_id = await send(address, "bob@good.zt")
        await log.wait_for(f"{queue_id}: to=<bob@good.zt>.*tls=dane.*status=sent")
        assert "libunbound through" in await log.wait_for("resolver validates")


async def test_auto_behind_a_forwarder_that_strips_signatures(world: World, impatient: None) -> None:
    anchor = world.write_anchor(world.server.tree.anchors)
    world.server.strips_signatures = True
    async with world.relay(f'mode = "auto"\n{world.nameserver}\ntrust_anchor_file = "{anchor}"') as (log, address):
        alarm = await log.wait_for("warning: resolver does not validate")
        for candidate in ("libunbound through", "libunbound with full recursion", "trust-ad through"):
            assert candidate in alarm
        queue_id, plain = await send(address, "bob@good.zt"), await send(address, "bob@may.zt")
        line = await log.wait_for(f"{queue_id}: to=<bob@good.zt>.*status=deferred")
        assert "resolver does not validate: expected a resolver that validates DNSSEC; found libunbound through" in line
        # What asks for no DANE needs no proof, and its hosts are found.
        await log.wait_for(f"{plain}: to=<bob@may.zt>.*status=sent")
        assert [message.recipients for message in world.receiver.received()] == [("bob@may.zt",)]
        world.server.strips_signatures = False
        await log.wait_for("resolver validates: libunbound through")
        await log.wait_for(f"{queue_id}: to=<bob@good.zt>.*tls=dane.*status=sent")


async def test_auto_without_libunbound_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise libunbound.NoLibunbound("libunbound is not installed (apt-get install libunbound8)")

    monkeypatch.setattr(libunbound, "load", none)
    async with world.relay(f'mode = "auto"\n{world.nameserver}') as (log, _):
        assert "apt-get install libunbound8" in await log.wait_for("warning: resolver does not validate")
    with pytest.raises(CannotStart, match=r'dns\.mode = "validate": .*apt-get install libunbound8'):
        async with world.relay(f'mode = "validate"\n{world.nameserver}'):
            pass


async def test_wrong_anchor_does_not_validate_and_is_named(world: World) -> None:
    anchor = world.write_anchor([Key.new().delegation_signer(".")])
    async with world.relay(f'mode = "validate"\n{world.nameserver}\ntrust_anchor_file = "{anchor}"') as (log, address):
        alarm = await log.wait_for("warning: resolver does not validate")
        assert f"trust anchor: {anchor}" in alarm
        queue_id = await send(address, "bob@good.zt")
        await log.wait_for(f"{queue_id}: to=<bob@good.zt>.*status=deferred")
    assert not world.receiver.sessions


@pytest.mark.parametrize(("text", "why"), [(None, "Is a directory"), ("nonsense\n", "is no master file")])
async def test_anchor_that_cannot_be_read_stops_the_start(world: World, text: str | None, why: str) -> None:
    managed = world.directory / "state" / "root.key"
    if text is None:
        managed.mkdir()
    else:
        managed.write_text(text)
    with pytest.raises(CannotStart, match=f"trust anchor .*root.key: .*{why}"):
        async with world.relay(f'mode = "validate"\n{world.nameserver}'):
            pass


async def test_name_that_must_be_refused(world: World) -> None:
    anchor = world.write_anchor(world.server.tree.anchors)
    common = f'mode = "validate"\n{world.nameserver}\ntrust_anchor_file = "{anchor}"'
    async with world.relay(f'{common}\nprobe_bogus_name = "mx.bogus.zt"') as (log, _):
        await log.wait_for(r"resolver validates: .* and refused dns\.probe_bogus_name 'mx\.bogus\.zt'")
    async with world.relay(f'{common}\nprobe_bogus_name = "mx.good.zt"') as (log, _):
        await log.wait_for(
            r"warning: resolver does not validate: dns\.probe_bogus_name 'mx\.good\.zt' received an answer"
        )


async def test_anchor_that_cannot_be_followed_is_told_and_mail_flows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> bool:
        raise follow.FollowFailed("No space left on device")

    monkeypatch.setattr(follow, "follow", fails)
    (world.directory / "state" / "root.key").write_text("\n".join(world.server.tree.anchors) + "\n")
    async with world.relay(f'mode = "validate"\n{world.nameserver}') as (log, address):
        await log.wait_for(r"warning: trust anchor .* could not be brought up to date: No space left on device")
        queue_id = await send(address, "bob@good.zt")
        await log.wait_for(f"{queue_id}: to=<bob@good.zt>.*tls=dane.*status=sent")


async def test_as_people_run_it(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A process of its own, on uvloop, from a configuration file."""
    anchor = world.write_anchor(world.server.tree.anchors)
    relay = RelayProcess(
        tmp_path_factory.mktemp("relay"),
        {
            "smtp": {"port": world.port},
            "dns": {
                "mode": "validate",
                "nameservers": [f"{world.server.address}:{world.server.port}"],
                "trust_anchor_file": str(anchor),
            },
        },
    )

    def run() -> str:
        with relay:
            content = b"Subject: hello\r\n\r\nhello\r\n"
            queue_id = relay.send(content, sender="ann@client.test", recipients=["bob@good.zt"])
            return relay.wait_for_status(queue_id)

    assert "status=sent" in await asyncio.to_thread(run)
    assert world.receiver.sessions[0].tls is not None
