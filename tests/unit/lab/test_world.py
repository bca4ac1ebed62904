"""A world stands together: what the DNS says, the hosts do, and the files are there until it ends."""

from __future__ import annotations

import asyncio
import errno
import os
import smtplib
import ssl
from datetime import UTC, datetime
from pathlib import Path

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
import uvloop
from cryptography import x509

from relay.lab.ca import tlsa_rdata
from relay.lab.client import submit
from relay.lab.destination import BOGUS_HOSTS, MxSet
from relay.lab.mx import Receiver
from relay.lab.nameserver import Fault, Trust
from relay.lab.scenarios import DESTINATIONS, RETURN_DOMAIN, RETURN_HOST
from relay.lab.world import LabError, World, open_world

DEADLINE = 20.0


async def ask(world: World, name: str, rrtype: str) -> dns.message.Message:
    query = dns.message.make_query(name, rrtype, use_edns=0)
    query.flags |= dns.flags.AD
    host, port = world.nameserver
    return await dns.asyncquery.udp(query, host, timeout=DEADLINE, port=port)


async def test_every_destination_is_in_the_dns_as_it_says() -> None:
    async with open_world(now=datetime.now(UTC)) as world:
        for one in world.destinations:
            response = await ask(world, one.domain, "MX")
            if one.mx is MxSet.NO_DOMAIN:
                assert response.rcode() == dns.rcode.NXDOMAIN
                continue
            if one.trust.is_bogus:
                assert response.rcode() == dns.rcode.SERVFAIL
                continue
            assert bool(response.flags & dns.flags.AD) is (one.trust is Trust.SECURE)
            records = (rrset for rrset in response.answer if rrset.rdtype == dns.rdatatype.MX)
            shown = {rdata.to_text().split()[1].rstrip(".") for rrset in records for rdata in rrset}
            wanted = {host.shown_name for host in one.hosts} if one.mx is MxSet.RECORDS else set()
            assert shown == ({""} if one.mx is MxSet.NULL else wanted)
            for host in one.hosts:
                addresses = await ask(world, host.shown_name, "A")
                if host.name.endswith(f".{BOGUS_HOSTS}"):
                    assert addresses.rcode() == dns.rcode.SERVFAIL
                    continue
                assert addresses.answer[-1][0].to_text() == world.placement.addresses[host.name]
                if host.tlsa_fault is Fault.NONE:
                    tlsa = await ask(world, world.placement.tlsa_owner(host.tlsa_base), "TLSA")
                    found = [rrset for rrset in tlsa.answer if rrset.rdtype == dns.rdatatype.TLSA]
                    assert sum(map(len, found)) == len(host.tlsa)


async def test_the_record_of_a_good_host_is_of_the_certificate_it_presents() -> None:
    async with open_world(now=datetime.now(UTC)) as world:
        good = world.destinations[0]
        address = world.placement.addresses[good.hosts[0].name]
        presented: list[bytes] = []

        def look() -> None:
            context = ssl.create_default_context(cafile=str(world.ca_file))
            context.check_hostname = False
            with smtplib.SMTP(address, world.smtp_port, local_hostname="c.test", timeout=DEADLINE) as session:
                session.starttls(context=context)
                assert isinstance(session.sock, ssl.SSLSocket)
                presented.append(session.sock.getpeercert(binary_form=True) or b"")

        await asyncio.to_thread(look)
        (rrset,) = (await ask(world, world.placement.tlsa_owner(good.hosts[0].name), "TLSA")).answer
        certificate = x509.load_der_x509_certificate(presented[0])
        assert rrset[0].to_wire() == tlsa_rdata(3, 1, 1, certificate)
        assert world.sessions()[good.hosts[0].name][0].tls is not None


async def test_the_policy_map_has_a_line_for_each_that_wants_one() -> None:
    async with open_world(now=datetime.now(UTC)) as world:
        lines = world.policy_file.read_text().splitlines()[1:]
        assert [line.split("\t")[0] for line in lines] == [one.domain for one in DESTINATIONS if one.policy]
        assert not any("{" in line for line in lines)


async def test_bounces_have_somewhere_to_go() -> None:
    async with open_world(now=datetime.now(UTC)) as world:
        response = await ask(world, RETURN_DOMAIN, "MX")
        assert response.flags & dns.flags.AD
        assert RETURN_HOST.name in response.answer[0].to_text()
        assert list(world.reports()) == []


async def test_nothing_is_left_of_it() -> None:
    async with open_world(now=datetime.now(UTC)) as world:
        directory = world.directory
        assert isinstance(directory, Path)
        assert directory.stat().st_mode & 0o077 == 0
        port, address = world.smtp_port, world.placement.addresses[DESTINATIONS[0].hosts[0].name]
    assert not directory.exists()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(address, port)


async def test_an_address_that_cannot_be_had_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Receiver.start

    async def start_all_but_one(self: Receiver, port: int = 0) -> int:
        if self.address == "127.0.0.14":
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        return await start(self, port)

    monkeypatch.setattr(Receiver, "start", start_all_but_one)
    with pytest.raises(
        LabError, match=r"cannot listen on 127\.0\.0\.14:\d+: Cannot assign requested address; .*lo0 alias"
    ):
        async with open_world(now=datetime.now(UTC)):
            raise AssertionError("unreachable")


def test_it_works_under_uvloop_and_takes_what_the_lab_sends() -> None:
    """The lab's own client against a lab host: content arrives as it was sent, byte for byte."""

    async def play() -> None:
        async with open_world(now=datetime.now(UTC)) as world:
            good = world.destinations[0]
            host = good.hosts[0].name
            relay = world.placement.addresses[host], world.smtp_port
            submission = await asyncio.to_thread(submit, relay, [good], datetime.now(UTC))
            assert not submission.refused
            (received,) = world.receivers[host].received()
            assert received.content == submission.sent[good.name]
            assert b"\r\n..\r\n" in received.wire

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(play())
