"""The lab with real servers, as far as it is paper: addresses, signed zones, evidence on disk, and the score of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import dns.dnssec
import dns.exception
import dns.name
import dns.node
import dns.rdataset
import dns.rrset
import dns.zone
import pytest

from relay.lab.client import Submission, compose_message
from relay.lab.destination import Session
from relay.lab.real.evidence import EvidenceFile, read_evidence
from relay.lab.real.layout import Laid, lay_out, read_layout
from relay.lab.real.plan import Server, make_plan
from relay.lab.real.selftest import score
from relay.lab.record import Command, Reach, Received, SessionRecord, TlsSeen
from relay.lab.scenarios import DESTINATIONS, RETURN_ADDRESS, RETURN_HOST

NOW = datetime.now(UTC)
NETWORK = "127.80.0."


@pytest.fixture(scope="module")
def laid(tmp_path_factory: pytest.TempPathFactory) -> Laid:
    return lay_out(tmp_path_factory.mktemp("real") / "lab", NETWORK, now=NOW)


def test_addresses_do_not_depend_on_who_is_here() -> None:
    whole, poor = make_plan(NETWORK), make_plan(NETWORK, [Server.EXIM, Server.OPENSMTPD])
    assert whole.addresses == poor.addresses
    assert len(set(whole.addresses.values())) == len(whole.addresses)
    assert {whole.authority, whole.resolver, whole.relay, whole.void}.isdisjoint(whole.addresses.values())
    assert set(whole.servers.values()) == set(Server)
    assert set(poor.servers.values()) == {Server.SCRIPTED, Server.POSTFIX}


def test_a_real_server_plays_only_what_it_can() -> None:
    """Scripts are for the lab's own receivers; a real one differs in TLS posture alone."""
    plan = make_plan(NETWORK)
    for host in plan.hosts.values():
        if plan.servers[host.name] is not Server.SCRIPTED:
            odd = (host.script.rcpt, host.script.hang, host.script.end_of_data, host.script.greeting)
            usual = RETURN_HOST.script
            assert odd == (usual.rcpt, usual.hang, usual.end_of_data, usual.greeting), host.name
            assert host.listens


def test_a_layout_is_found_again(laid: Laid) -> None:
    assert read_layout(laid.directory) == laid
    assert all(laid.credential(name).exists() for name in laid.plan.hosts)


def zone(laid: Laid, apex: str) -> dns.zone.Zone:
    file = laid.directory / "dns" / f"{apex.rstrip('.') or 'root'}.zone"
    return dns.zone.from_file(str(file), origin=apex, relativize=False)


def verify(laid: Laid, apex: str) -> None:
    """Whether every RRset of a zone is signed by its own key, and its parent vouches for that key."""
    made = zone(laid, apex)
    origin = dns.name.from_text(apex)
    dnskeys = made.find_rdataset(origin, "DNSKEY")
    keys: dict[dns.name.Name, dns.rdataset.Rdataset | dns.node.Node] = {
        origin: dns.rrset.from_rdata_list(origin, 60, list(dnskeys))
    }
    signed = dns.rrset.from_rdata_list(origin, 60, list(made.find_rdataset(origin, "SOA")))
    signature = made.find_rdataset(origin, "RRSIG", "SOA")
    dns.dnssec.validate(signed, dns.rrset.from_rdata_list(origin, 60, list(signature)), keys)
    parent = zone(laid, origin.parent().to_text())
    vouched = parent.find_rdataset(origin, "DS")
    assert dns.dnssec.make_ds(origin, dnskeys[0], "SHA256") in vouched


def test_zones_are_signed_and_broken_as_they_say(laid: Laid) -> None:
    verify(laid, "good.lab.test.")
    with pytest.raises(dns.exception.ValidationFailure):
        verify(laid, "bogus.lab.test.")
    with pytest.raises(AssertionError):
        verify(laid, "wrong-ds-zone.lab.test.")
    lab = zone(laid, "lab.test.")
    assert lab.get_rdataset(dns.name.from_text("insecure.lab.test."), "DS") is None
    assert lab.get_rdataset(dns.name.from_text("insecure.lab.test."), "NS") is not None
    fails = zone(laid, "tlsa-servfail.lab.test.")
    owner = dns.name.from_text("_25._tcp.mx.tlsa-servfail.lab.test.")
    assert fails.get_rdataset(owner, "NS") is not None
    assert fails.get_rdataset(owner, "TLSA") is None


def test_evidence_comes_back_as_it_was_written(laid: Laid, tmp_path: Path) -> None:
    name = "mx.greylist.lab.test"
    record = SessionRecord(
        ("127.0.0.1", 5),
        commands=[Command("EHLO relay", False), Command("MAIL FROM:<>", True)],
        tls=TlsSeen("TLSv1.3", "X", name),
        received=[Received("", ("user@greylist.lab.test",), b"..dots\r\n\xff\r\n", True, True)],
        number=1,
    )
    other = SessionRecord(("127.0.0.1", 6), tls_error="gone", ended=True, number=2)
    file = EvidenceFile(laid.evidence / f"{name}.jsonl", "run")
    try:
        file.add(record)
        record.ended = True
        file.add(record)
        file.add(other)
        with (laid.evidence / f"{name}.jsonl").open("a") as half:
            half.write('{"session": "run/3", "pe')
        record.number = other.number = 0  # which session it was is in the file's own key
        assert read_evidence(laid)[name] == (record, other)
    finally:
        (laid.evidence / f"{name}.jsonl").unlink()


@pytest.mark.parametrize(
    ("protocol", "encrypted"), [("ESMTPS", True), ("esmtps", True), ("ESMTP", False), ("UTF8SMTPS", True)]
)
def test_a_mailbox_is_evidence(laid: Laid, protocol: str, encrypted: bool) -> None:
    folder = laid.mailboxes / "mx.good.lab.test" / "new"
    folder.mkdir(parents=True)
    message = folder / "1"
    message.write_bytes(b"Received: from x\n\tby y with %b id 1\nSubject: s\n\n.dot\n" % protocol.encode())
    try:
        (record,) = read_evidence(laid)["mx.good.lab.test"]
    finally:
        message.unlink()
        folder.rmdir()
        folder.parent.rmdir()
    assert record.reach is Reach.DELIVERED
    assert record.received[0].encrypted is encrypted
    assert record.received[0].content.endswith(b"Subject: s\r\n\r\n.dot\r\n")


TRACE = b"Received: from client\r\n\tby relay; now\r\n"


def perfect(plan_network: str = NETWORK) -> tuple[dict[str, list[SessionRecord]], Submission]:
    sent = {one.name: compose_message(one, NOW) for one in DESTINATIONS}
    sessions: dict[str, list[SessionRecord]] = {RETURN_HOST.name: []}
    for one in DESTINATIONS:
        for host in one.hosts:
            record = SessionRecord(("127.0.0.1", 1), ended=True)
            last = one.endings[-1]
            if host.shown_name == last.relay:
                encrypted = last.session is not Session.CLEAR
                if one.reach >= Reach.ENVELOPE:
                    record.commands = [Command("MAIL FROM:<x>", encrypted)]
                if one.reach >= Reach.CONTENT:
                    wire = (TRACE + sent[one.name]).replace(b"\r\n.", b"\r\n..")
                    record.received = [Received("x", ("y",), wire, encrypted, one.reach is Reach.DELIVERED)]
            sessions[host.name] = [record]
        if one.bounces:
            text = f"Final-Recipient: rfc822; {one.recipient}\r\nStatus: 5.0.0\r\n".encode()
            report = Received("", (RETURN_ADDRESS,), text, True, True)
            sessions[RETURN_HOST.name].append(SessionRecord(("127.0.0.1", 1), received=[report]))
    return sessions, Submission(sent, {})


def differences(name: str, sessions: dict[str, list[SessionRecord]], submission: Submission) -> str:
    rows = {row.destination.name: row for row in score(make_plan(NETWORK), sessions, submission)}
    return "; ".join(rows[name].differences)


def test_a_perfect_run_is_green() -> None:
    sessions, submission = perfect()
    assert [row.differences for row in score(make_plan(NETWORK), sessions, submission) if not row.as_expected] == []


def test_what_the_hosts_saw_counts() -> None:
    sessions, submission = perfect()
    (clear,) = sessions["mx.self-signed.lab.test"][0].received
    sessions["mx.self-signed.lab.test"][0].received = [
        Received(clear.sender, clear.recipients, clear.wire, False, True)
    ]
    assert "content went in clear" in differences("self-signed", sessions, submission)
    sessions["mx.mismatch.lab.test"][0].received = [Received("x", ("y",), b"\r\n", True, True)]
    assert "expected nothing; got delivered" in differences("mismatch", sessions, submission)
    sessions["mx.agility.lab.test"] = []
    assert "mx.agility.lab.test was never called" in differences("agility", sessions, submission)
    sessions[RETURN_HOST.name] = []
    assert "no report came back" in differences("no-such-user", sessions, submission)
    refused = Submission(submission.sent, {"good": "451 no"})
    assert "not taken: 451 no" in differences("good", sessions, refused)
    good = sessions["mx.good.lab.test"][0]
    good.received = [Received("x", ("y",), b"another message\r\n", True, True)]
    assert "content differs" in differences("good", sessions, submission)
