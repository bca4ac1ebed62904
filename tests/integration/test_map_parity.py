"""Policy maps as Postfix reads them: our relay against the committed results of Debian's Postfix (tests/parity).

Each case is a delivery by the running relay, to scripted hosts in a DNS of our own; no server of others takes part here.
tests/interop/test_map_parity.py shows that the results still are what Postfix does.
"""

from __future__ import annotations

import asyncio
import re
import smtplib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from relay.app import open_relay
from relay.config.load import read
from relay.lab.ca import Authority, Credential, tlsa_rdata
from relay.lab.logbook import SessionLine, StatusLine, read_log
from relay.lab.mx import Receiver
from relay.lab.nameserver import NameServer, Trust, Zone
from tests.loopback import LoopbackNetwork, free_port
from tests.parity.case import Case, Group, Result
from tests.parity.differences import DIFFERENCES
from tests.parity.groups import CASES, GROUPS
from tests.parity.result import digests, expanded, read_results, told, without_addresses

FIELDS = tuple(one.name for one in fields(Result))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """What all groups share."""

    port: int
    nameserver: tuple[str, int]
    addresses: Mapping[str, str]
    credentials: Mapping[str, Credential]
    ca_file: Path
    other_ca_file: Path


@asynccontextmanager
async def lab(directory: Path) -> AsyncIterator[Lab]:
    folders = [directory / name for name in ("authority", "other")]
    for folder in folders:
        folder.mkdir()
    authority, other = (Authority(folder, datetime.now(UTC)) for folder in folders)
    networks = (LoopbackNetwork(), LoopbackNetwork())
    numbers = ((network, number) for network in networks for number in range(10, 255))
    addresses = {case.host: network.address(number) for case, (network, number) in zip(CASES, numbers, strict=False)}
    port = free_port(*addresses.values())
    credentials = {
        case.host: authority.issue(
            case.posture.value.certificate, case.posture.value.issued_for.format(domain=case.domain, host=case.host)
        )
        for case in CASES
    }
    async with AsyncExitStack() as stack:
        for case in CASES:
            receiver = Receiver(
                case.host, addresses[case.host], case.posture.value.script, credentials[case.host].pem_file
            )
            await receiver.start(port)
            stack.push_async_callback(receiver.stop)
        records: dict[tuple[str, str], tuple[str, ...]] = {}
        for case in CASES:
            for name in {case.domain, case.destination}:
                records[f"{name}.", "MX"] = (f"10 {case.host}.",)
            records[f"{case.host}.", "A"] = (addresses[case.host],)
            tlsa = tuple(_tlsa(case, authority, credentials[case.host]))
            if tlsa:
                records[f"_{port}._tcp.{case.host}.", "TLSA"] = tlsa
        root = {(".", "NS"): ("ns.test.",), ("ns.test.", "A"): ("127.0.0.1",)}
        dns = NameServer([Zone(".", Trust.SECURE, root), Zone("test.", Trust.SECURE, records)])
        stack.push_async_callback(dns.stop)
        yield Lab(
            port=port,
            nameserver=await dns.start(),
            addresses=addresses,
            credentials=credentials,
            ca_file=authority.ca_file,
            other_ca_file=other.ca_file,
        )


def _tlsa(case: Case, authority: Authority, presented: Credential) -> Iterable[str]:
    for record in case.posture.value.tlsa:
        rdata = tlsa_rdata(
            record.usage, record.selector, record.matching, authority.signer(presented, record.made_from)
        )
        yield f"{rdata[0]} {rdata[1]} {rdata[2]} {rdata[3:].hex()}"


async def play(lab: Lab, group: Group, directory: Path) -> dict[str, Result]:
    """One delivery for each case of a group, by a relay of its own."""
    (directory / "state").mkdir(parents=True, mode=0o700)
    places = {
        case.name: {
            "domain": case.domain,
            "host": case.host,
            "port": str(lab.port),
            "ca": str(lab.ca_file),
            "other_ca": str(lab.other_ca_file),
            **digests(lab.credentials[case.host].leaf),
        }
        for case in group.cases
    }
    maps, transport = expanded(group, places, directory)
    host, port = lab.nameserver
    config = read(
        f"""
[relay]
myhostname = "relay.test"
state_dir = "state"
[smtpd]
listen = ["127.0.0.1:0"]
mynetworks = ["127.0.0.0/8"]
[smtp]
port = {lab.port}
tls_security_level = "{group.level}"
tls_CAfile = "{lab.ca_file}"
tls_policy_maps = [{", ".join(f"'{spec}'" for spec in maps)}]
transport_maps = ["texthash:{transport}"]
[dns]
mode = "trust-ad"
nameservers = ["{host}:{port}"]
[http]
listen = ""
""",
        name=group.name,
        base=directory,
        environ={},
        hostname="relay.test",
    )
    lines: list[str] = []
    grew = asyncio.Event()

    def write(line: str) -> None:
        lines.append(line)
        grew.set()

    async with open_relay(config, write_line=write) as relay:
        await asyncio.to_thread(_hand_in, relay.smtp_addresses[0], group.cases)
        async with asyncio.timeout(120):
            while len(found := _results(lines, group.cases, lab)) < len(group.cases):
                grew.clear()
                await grew.wait()
    return found


def _hand_in(address: tuple[str, int], cases: Sequence[Case]) -> None:
    with smtplib.SMTP(*address, local_hostname="client.test", timeout=60) as client:
        for case in cases:
            client.sendmail("user@sender.test", [f"user@{case.destination}"], b"Subject: parity\r\n\r\nA word.\r\n")


def _results(lines: Sequence[str], cases: Sequence[Case], lab: Lab) -> dict[str, Result]:
    log = tuple(read_log(lines))
    status = {line.recipient: line for line in log if isinstance(line, StatusLine)}
    if len(status) < len(cases):
        return {}
    words = {line.address: line.word for line in log if isinstance(line, SessionLine)}
    warnings: dict[str, list[str]] = {}
    for line in lines:
        if found := re.search(r": warning: (smtp_tls_policy_maps, next-hop destination \"([^\"]*)\".*)", line):
            warnings.setdefault(found[2], []).append(found[1])
    return {
        case.name: _result(
            status[f"user@{case.destination}"],
            words.get(lab.addresses[case.host], ""),
            [text for key, texts in warnings.items() if case.domain in key for text in texts],
        )
        for case in cases
    }


def _result(line: StatusLine, word: str, warnings: Iterable[str]) -> Result:
    return Result(
        level=line.tls.strip("!?").partition(":")[0],
        status=line.status,
        dsn=line.dsn,
        session=word,
        reason="" if line.status == "sent" else without_addresses(line.reason.partition(": expected ")[0]),
        warnings=told(warnings),
    )


async def test_same_or_explained(tmp_path: Path) -> None:
    theirs = read_results()
    assert set(theirs) == {case.name for case in CASES}
    assert len(theirs) >= 200
    ours: dict[str, Result] = {}
    async with lab(tmp_path) as running:
        for group in GROUPS:
            ours |= await play(running, group, tmp_path / group.name)
    wrong = {}
    for case in CASES:
        different = {name for name in FIELDS if getattr(ours[case.name], name) != getattr(theirs[case.name], name)}
        expected = DIFFERENCES[case.name].fields if case.name in DIFFERENCES else frozenset()
        if different != expected:
            wrong[case.name] = (case.lines, case.posture.name, different, theirs[case.name], ours[case.name])
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())
