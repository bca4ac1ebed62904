"""The walk is a delivery's walk, up to MAIL and no further: same order, same limits, same decisions, same words."""

from __future__ import annotations

import asyncio

import pytest

from relay.dane.tlsa import Failed as TlsaFailed
from relay.dane.tlsa import NotLookedUp, Usable
from relay.delivery.gather import Destination, LookupTrouble
from relay.delivery.reach import Families, Reach
from relay.dns.answer import LookupFailed, LookupFault, RRType
from relay.explain.explainer import parse_destination
from relay.explain.story import (
    AddressStory,
    Failed,
    Handshake,
    NotReached,
    NotTried,
    Satisfied,
    Story,
    Tried,
    WouldEnd,
    WouldFail,
    WouldSend,
)
from relay.explain.text import story_lines
from relay.lab.mx import Receiver
from relay.lab.script import Script, StartTls
from relay.mail.names import BadName, Domain
from relay.outcome.result import Bounced, Deferred, RelayHost, Sent
from relay.policy.level import Level
from relay.policy.policy import MalformedEntry, TlsPolicy, Withheld
from relay.tls.verdict import Verified, Word
from tests.unit.explain.scene import DOMAIN, Scene, named
from tests.zone import found, mx_rdata

BEFORE_MAIL = {"EHLO", "STARTTLS", "QUIT"}


def addresses(story: Story, host: int = 1) -> tuple[AddressStory, ...]:
    (hop,) = story.hops
    found_there = hop.hosts[host - 1].addresses
    assert isinstance(found_there, tuple), found_there
    return found_there


def tried(story: Story, host: int = 1) -> Tried:
    made = addresses(story, host)[0].made
    assert isinstance(made, Tried), made
    return made


def policy(story: Story, host: int = 1) -> TlsPolicy:
    decision = tried(story, host).decision
    assert isinstance(decision, TlsPolicy), decision
    return decision


def taken(story: Story) -> WouldSend:
    assert isinstance(story.ending, WouldSend), story.ending
    return story.ending


def failure(story: Story) -> WouldFail:
    assert isinstance(story.ending, WouldFail), story.ending
    return story.ending


async def verbs(host: Receiver) -> set[str]:
    """Of all sessions, when they have ended."""
    async with asyncio.timeout(20):
        while not all(session.ended for session in host.sessions):
            host.changed.clear()
            await host.changed.wait()
    return {command.verb for session in host.sessions for command in session.commands}


async def test_without_live_nobody_is_called(scene: Scene) -> None:
    first, second = await scene.host(tlsa=True), await scene.host(wrong_tlsa=True)
    story = await scene.explain()
    assert [host.host for host in story.hops[0].hosts] == [Domain(named(1)), Domain(named(2))]
    for number in (1, 2):
        assert policy(story, number).level is Level.DANE
        assert isinstance(tried(story, number).tlsa, Usable)
        assert tried(story, number).session == NotTried("no session was asked for")
    assert policy(story).why == ("relay.toml:7 asks for dane", f"secure TLSA records at _{scene.port}._tcp.{named(1)}")
    assert str(taken(story).relay) == f"{named(1)}[127.0.0.2]:{scene.port}"
    assert not first.sessions
    assert not second.sessions


async def test_a_match_ends_before_mail(scene: Scene) -> None:
    host = await scene.host(tlsa=True)
    story = await scene.explain(live=True)
    session = taken(story).session
    assert isinstance(session, Satisfied)
    assert isinstance(session.verdict, Verified)
    assert isinstance(session.handshake, Handshake)
    assert session.handshake.word is Word.VERIFIED
    (line,) = session.handshake.log
    assert line.startswith(f"Verified TLS connection established to {named(1)}[127.0.0.2]:{scene.port}: TLSv1.3 with")
    assert "PIPELINING" in session.extensions
    assert tried(story).session == session
    assert await verbs(host) == BEFORE_MAIL


async def test_a_mismatch_goes_on_to_the_next_host_and_no_further(scene: Scene) -> None:
    hosts = [await scene.host(wrong_tlsa=True), await scene.host(tlsa=True), await scene.host(tlsa=True)]
    story = await scene.explain(live=True)
    refused = tried(story).session
    assert isinstance(refused, Failed)
    assert refused.trouble.reason.startswith("Server certificate not verified: expected TLSA 3 1 1 7878")
    assert isinstance(refused.handshake, Handshake)
    assert [line.split()[0] for line in refused.handshake.log] == ["Untrusted", "server"]
    assert str(taken(story).relay).startswith(named(2))
    assert tried(story, 3).session == NotTried(f"mail would be gone, over {named(2)}[127.0.0.3]:{scene.port}")
    assert policy(story, 3).level is Level.DANE  # decided on all the same
    assert not hosts[2].sessions
    assert (await verbs(hosts[0])) | (await verbs(hosts[1])) == BEFORE_MAIL


async def test_failure_has_the_log_line_and_the_report(scene: Scene) -> None:
    await scene.host(wrong_tlsa=True)
    ending = failure(await scene.explain(live=True))
    result = ending.outcome.result
    assert isinstance(result, Deferred)
    assert ending.log.startswith(f"NOQUEUE: to=<postmaster@{DOMAIN}>, relay={named(1)}[127.0.0.2]:{scene.port}, delay=")
    assert ending.log.endswith(f", tls=!dane, dsn=4.7.5, status=deferred ({result.reason})")
    assert dict(ending.report) == {
        "Action": "failed",
        "Status": "4.7.5",
        "Diagnostic-Code": f"X-Relay; {result.reason}",
    }
    assert not ending.lookups_only


SCRIPTS = {
    "mismatch": Script(),
    "no STARTTLS": Script(starttls=StartTls.ABSENT),
    "554 to STARTTLS": Script(starttls=StartTls.REFUSED_554),
    "babble": Script(starttls=StartTls.GARBAGE),
    "554 greeting": Script(greeting="554 5.3.2 not today"),
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=list(SCRIPTS))
@pytest.mark.parametrize("line", ["", "encrypt", "secure match=elsewhere.test", "dane match=nexthop", "may"])
async def test_what_is_told_is_what_a_delivery_does(scene: Scene, script: Script, line: str) -> None:
    """P3 and P4: one decision, in the same words."""
    await scene.host(script, wrong_tlsa=True)
    scene.policy = f"{DOMAIN} {line}\n" if line else ""
    ending = (await scene.explain(live=True)).ending
    outcome = await scene.deliver()
    if isinstance(ending, WouldSend):
        assert outcome.result.status.klass == 2
        assert isinstance(ending.session, Satisfied)
        assert (ending.relay, ending.session.tls) == (outcome.relay, outcome.tls)
    else:
        assert ending.outcome.result == outcome.result
        assert (ending.outcome.relay, ending.outcome.tls) == (outcome.relay, outcome.tls)


async def test_a_failed_look_up_is_temporary(scene: Scene) -> None:
    host = await scene.host(tlsa=True)
    scene.zone[f"_{scene.port}._tcp.{named(1)}", RRType.TLSA] = LookupFailed(LookupFault.SERVFAIL, "SERVFAIL")
    story = await scene.explain(live=True)
    assert isinstance(tried(story).tlsa, TlsaFailed)
    assert isinstance(tried(story).decision, Withheld)
    assert isinstance(tried(story).session, NotTried)
    assert failure(story).lookups_only
    assert not host.sessions


async def test_a_failed_look_up_beside_a_mismatch_is_not_only_temporary(scene: Scene) -> None:
    await scene.host(wrong_tlsa=True)
    await scene.host(tlsa=True)
    scene.zone[f"_{scene.port}._tcp.{named(2)}", RRType.TLSA] = LookupFailed(LookupFault.TIMEOUT, "no answer")
    assert not failure(await scene.explain(live=True)).lookups_only


@pytest.mark.parametrize("what", [(DOMAIN, RRType.MX), (named(1), RRType.A)])
async def test_failed_look_ups_of_mx_and_addresses(scene: Scene, what: tuple[str, RRType]) -> None:
    await scene.host(tlsa=True)
    scene.zone[what] = LookupFailed(LookupFault.TIMEOUT, "no answer")
    story = await scene.explain()
    troubles = [story.hops[0].found, *(host.addresses for host in story.hops[0].hosts)]
    assert any(isinstance(trouble, LookupTrouble) for trouble in troubles)
    assert failure(story).lookups_only
    assert str(failure(story).outcome.result.status) == "4.4.3"


async def test_a_resolver_that_does_not_validate_is_temporary(scene: Scene) -> None:
    await scene.host(tlsa=True)
    scene.validating = False
    story = await scene.explain()
    assert not tried(story).believed
    assert not story.validation.validating
    assert failure(story).lookups_only
    assert "found as the test says" in failure(story).outcome.result.reason


async def test_a_malformed_line(scene: Scene) -> None:
    host = await scene.host(tlsa=True)
    scene.policy = f"# first\n{DOMAIN} dane match=nexthop\n"
    story = await scene.explain(live=True)
    (hop,) = story.hops
    assert isinstance(hop.entry, MalformedEntry)
    assert (hop.rule.place, hop.level) == ("tls_policy:2", "malformed")
    assert failure(story).outcome.result.reason.endswith("; rule tls_policy:2")
    assert not failure(story).lookups_only
    assert not host.sessions


async def test_a_line_says_the_level_and_no_tlsa_record_is_asked_for(scene: Scene) -> None:
    await scene.host(wrong_tlsa=True)
    scene.policy = ".test secure\n"
    scene.policy += f"{DOMAIN} encrypt\n"
    story = await scene.explain()
    (hop,) = story.hops
    assert (hop.rule.place, hop.rule.text, hop.level) == ("tls_policy:2", f"{DOMAIN} encrypt", "encrypt")
    assert isinstance(tried(story).tlsa, NotLookedUp)
    assert policy(story).level is Level.ENCRYPT


async def test_null_mx_bounces(scene: Scene) -> None:
    scene.zone[DOMAIN, RRType.MX] = found(DOMAIN, b"\0\0\0")
    ending = failure(await scene.explain())
    assert isinstance(ending.outcome.result, Bounced)
    assert dict(ending.report)["Status"] == "5.1.0"
    assert not ending.lookups_only


async def test_the_address_limit_ends_the_walk(scene: Scene) -> None:
    await scene.host(tlsa=True)
    await scene.host(tlsa=True)
    scene.mx_address_limit = 1
    story = await scene.explain()
    (address,) = addresses(story, 2)
    assert address.made == NotReached("smtp.mx_address_limit = 1 ends the attempt before")


async def test_a_bounce_ends_the_walk(scene: Scene) -> None:
    refusing = (("EHLO", "550 5.7.1 no"), ("HELO", "550 5.7.1 no"))
    await scene.host(Script(refused=refusing))
    await scene.host()
    scene.level = Level.MAY
    story = await scene.explain(live=True)
    assert isinstance(failure(story).outcome.result, Bounced)
    assert story.hops[0].hosts[1].addresses == NotReached("mail would have bounced by now")
    assert ("Remote-MTA", f"dns; {named(1)}") in failure(story).report


async def test_hosts_of_one_preference_come_by_name(scene: Scene) -> None:
    await scene.host()
    await scene.host()
    scene.zone[DOMAIN, RRType.MX] = found(
        DOMAIN, *(mx_rdata(preference, named(n)) for preference, n in ((20, 1), (10, 3), (10, 4), (10, 2)))
    )
    story = await scene.explain()
    assert [str(host.host) for host in story.hops[0].hosts] == [named(2), named(3), named(4), named(1)]


@pytest.mark.parametrize(("level", "later"), [(Level.MAY, True), (Level.ENCRYPT, False)])
async def test_what_would_go_in_the_clear_later_is_told(scene: Scene, level: Level, later: bool) -> None:
    await scene.host(Script(starttls=StartTls.GARBAGE))
    scene.level = level
    story = await scene.explain(live=True)
    session = tried(story).session
    assert isinstance(session, Failed)
    assert session.in_clear_later is later
    assert isinstance(failure(story).outcome.result, Deferred)


async def test_relay_hosts_are_walked_in_turn(scene: Scene) -> None:
    await scene.host(tlsa=True)
    scene.relay_hosts = ("gone.test", f"[{named(1)}]:{scene.port}")
    story = await scene.explain("elsewhere.test", live=True)
    assert [(str(hop.next_hop), hop.configured) for hop in story.hops] == [
        ("gone.test", True),
        (f"[{named(1)}]:{scene.port}", True),
    ]
    assert isinstance(story.hops[0].hosts[0].addresses, LookupTrouble)
    found_there = story.hops[1].found
    assert isinstance(found_there, Destination)
    assert not found_there.had_mx
    assert isinstance(taken(story).relay, RelayHost)


async def test_a_fallback_relay_is_told_with_the_policy_that_binds_it(scene: Scene) -> None:
    await scene.host(wrong_tlsa=True)
    await scene.host(tlsa=False)
    scene.zone["example.test", RRType.MX] = found("example.test", mx_rdata(10, named(1)))
    scene.fallback = (f"[{named(2)}]:{scene.port}",)
    story = await scene.explain(live=True)
    assert [(str(hop.next_hop), hop.fallback) for hop in story.hops] == [
        ("example.test", False),
        (f"[{named(2)}]:{scene.port}", True),
    ]
    assert any("(smtp.fallback_relay, under the policy of the destination too)" in line for line in story_lines(story))
    would = taken(story)
    assert would.policy.level is Level.SECURE
    assert isinstance((await scene.deliver()).result, Sent)


async def test_a_relay_host_that_is_not_there_is_our_own_fault(scene: Scene) -> None:
    scene.relay_hosts = ("gone.test",)
    ending = failure(await scene.explain())
    assert ending.outcome.result.reason.startswith("relayhost configuration problem: ")
    assert ending.outcome.result == (await scene.deliver()).result


async def test_each_next_hop_has_its_own_line_and_its_own_look_ups(scene: Scene) -> None:
    await scene.host(wrong_tlsa=True)
    await scene.host(tlsa=True)
    scene.relay_hosts = (f"[{named(1)}]:{scene.port}", f"[{named(2)}]:{scene.port}")
    scene.policy = f"[{named(2)}]:{scene.port} encrypt\n"
    story = await scene.explain()
    tlsa = []
    for hop in story.hops:
        assert isinstance(hop.hosts[0].addresses, tuple)
        made = hop.hosts[0].addresses[0].made
        assert isinstance(made, Tried)
        tlsa.append(type(made.tlsa))
    assert [hop.rule.place for hop in story.hops] == ["relay.toml:7", "tls_policy:1"]
    assert tlsa == [Usable, NotLookedUp]


async def test_addresses_that_count_are_those_of_a_delivery(scene: Scene) -> None:
    await scene.host(tlsa=True)
    scene.reach = Reach(families=Families.IPV6)
    ending = failure(await scene.explain())
    assert isinstance(ending.outcome.result, Bounced)
    assert "type=AAAA" in ending.outcome.result.reason
    assert ending.outcome.result == (await scene.deliver()).result


@pytest.mark.parametrize("line", ["error:5.7.1 not here", "retry:come back", "nonsense:"])
async def test_a_route_that_ends_the_mail(scene: Scene, line: str) -> None:
    scene.transport = f"{DOMAIN} {line}\n"
    story = await scene.explain(live=True)
    assert story.hops == ()
    assert failure(story).outcome.result == (await scene.deliver()).result
    assert failure(story).outcome.result.reason.endswith("rule transport:1")
    assert not failure(story).lookups_only


async def test_a_route_that_discards_the_mail(scene: Scene) -> None:
    scene.transport = f"{DOMAIN} discard:silence\n"
    ending = (await scene.explain()).ending
    assert isinstance(ending, WouldEnd)
    assert ending.log.endswith("dsn=2.0.0, status=sent (silence)")


async def test_a_route_to_another_next_hop(scene: Scene) -> None:
    await scene.host(tlsa=True)
    scene.transport = f"elsewhere.test smtp:[{named(1)}]:{scene.port}\n"
    scene.policy = f"[{named(1)}]:{scene.port} dane-only\n"
    story = await scene.explain("elsewhere.test", live=True)
    assert [hop.next_hop.key for hop in story.hops] == [f"[{named(1)}]:{scene.port}"]
    assert story.hops[0].rule.place == "tls_policy:1"
    assert isinstance(taken(story).session, Satisfied)
    assert f"  next-hop  [{named(1)}]:{scene.port}" in story_lines(story)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("example.test", "postmaster@example.test"),
        ("ann@Example.test", "ann@example.test"),
        ("[192.0.2.1]", "postmaster@[192.0.2.1]"),
        ("ann@[IPv6:2001:db8::1]", "ann@[IPv6:2001:db8::1]"),
        ("müller.example", "postmaster@xn--mller-kva.example"),
    ],
)
def test_destinations(text: str, address: str) -> None:
    assert parse_destination(text).text == address


@pytest.mark.parametrize("text", ["", "@example.test", "a b", "[example.test]", "ann@", "k..example"])
def test_what_is_no_destination(text: str) -> None:
    with pytest.raises(BadName):
        parse_destination(text)
