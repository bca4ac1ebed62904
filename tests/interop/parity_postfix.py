"""What Debian's Postfix does with the cases of tests/parity: one delivery each, its decision read from ``smtp -v``."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from relay.lab.ca import Authority
from relay.lab.logbook import SessionLine, StatusLine, read_log
from tests.interop.nameservers import Endpoint
from tests.interop.postfix import Listener, postfix
from tests.interop.side_by_side_case import Case as Destination
from tests.interop.side_by_side_case import Host
from tests.interop.side_by_side_world import SENDER_DOMAIN, World
from tests.loopback import free_port
from tests.parity.case import Case, Group, Result
from tests.parity.result import digests, expanded, told, without_addresses
from tests.watched_process import PATIENCE

_QUEUED = re.compile(rb"2\.0\.0 Ok: queued as (\S+)")
_CLIENT = re.compile(r"postfix/smtp\[(\d+)\]: (.*)")
_LEVEL = re.compile(r"effective TLS level: (\S+)")
_CONTENT = b"Subject: parity\r\nDate: Mon, 1 Jun 2026 12:00:00 +0000\r\nMessage-ID: <1@client.test>\r\n\r\nA word.\r\n"


def destinations(cases: Iterable[Case]) -> tuple[Destination, ...]:
    """The cases as the world of the side-by-side comparison knows them."""
    return tuple(map(_destination, cases))


def _destination(case: Case) -> Destination:
    stands = case.posture.value
    host = Host(
        name=case.host,
        script=stands.script,
        certificate=stands.certificate,
        issued_for=stands.issued_for.format(domain=case.domain, host=case.host),
        tlsa=stands.tlsa,
    )
    below = (f"{case.destination}. IN MX 10 {case.host}.",) if case.below else ()
    return Destination(name=case.name, what=stands.words, hosts=(host,), records=below)


def deliver(world: World, groups: Sequence[Group]) -> Mapping[str, Result]:
    """Send to all of them, each group through a Postfix of its own; gives the results by the cases' names."""
    folder = world.directory / "other-authority"
    folder.mkdir()
    other_ca = Authority(folder, datetime.now(UTC)).ca_file
    with ThreadPoolExecutor(len(groups)) as pool:
        played = pool.map(lambda group: _play(world, group, other_ca), groups)
        return {name: result for found in played for name, result in found.items()}


def _play(world: World, group: Group, other_ca: Path) -> dict[str, Result]:
    directory = world.directory / f"parity-{group.name}"
    directory.mkdir()
    places = {
        case.name: {
            "domain": case.domain,
            "host": case.host,
            "port": str(world.ports["port"]),
            "ca": str(world.ca_file),
            "other_ca": str(other_ca),
            **digests(world.credentials[case.host].leaf),
        }
        for case in group.cases
    }
    maps, transport = expanded(group, places, directory)
    address = world.clients["Postfix"]
    settings = {
        "mynetworks": "127.0.0.0/8",
        "in_flow_delay": "0",
        "smtp_bind_address": address,
        "smtp_tcp_port": str(world.ports["port"]),
        "smtp_dns_support_level": "dnssec",
        "smtp_tls_security_level": group.level,
        "smtp_tls_policy_maps": ", ".join(maps),
        "smtp_tls_CAfile": str(world.ca_file),
        "smtp_tls_loglevel": "1",
        "transport_maps": f"texthash:{transport}",
    }
    entrance = Endpoint(address, free_port(address))
    with postfix(
        [Listener("entrance", entrance)],
        directory,
        settings=settings,
        resolver=world.resolver.address,
        verbose_client=True,
    ) as running:
        queue_ids = _hand_in(entrance, group.cases)
        for queue_id in queue_ids.values():
            running.process.wait_for(rf": {queue_id}: to=<.* status=")
        clients = _clients(running.process.lines())
    return {case.name: _result(clients[queue_ids[case.name]], group.level) for case in group.cases}


def _hand_in(entrance: Endpoint, cases: Iterable[Case]) -> dict[str, str]:
    with smtplib.SMTP(entrance.address, entrance.port, local_hostname="client.test", timeout=PATIENCE) as client:
        client.ehlo()
        found = {}
        for case in cases:
            code, text = client.mail(f"Postfix@{SENDER_DOMAIN}")
            assert code == 250, text
            code, text = client.rcpt(f"user@{case.destination}")
            assert code == 250, text
            code, text = client.data(_CONTENT)
            queued = _QUEUED.fullmatch(text)
            assert queued is not None, (code, text)
            found[case.name] = queued[1].decode()
        return found


@dataclass(slots=True)
class _Said:
    """What one smtp(8) process logged for one delivery, but for what only ``-v`` makes it say."""

    level: str = ""
    warnings: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    line: StatusLine | None = None


def _clients(lines: Iterable[str]) -> dict[str, _Said]:
    """By queue ID; a process has one delivery at a time, which ends with its status line."""
    busy: dict[str, _Said] = {}
    done: dict[str, _Said] = {}
    for line in lines:
        found = _CLIENT.search(line)
        if found is None:
            continue
        said = busy.setdefault(found[1], _Said())
        if level := _LEVEL.fullmatch(found[2]):
            said.level = level[1]
        elif found[2].startswith("warning: "):
            said.warnings.append(found[2].removeprefix("warning: "))
        for one in read_log([line]):
            if isinstance(one, SessionLine):
                said.words.append(one.word)
            else:
                said.line = one
                done[one.queue_id] = busy.pop(found[1])
    return done


def _result(said: _Said, level: str) -> Result:
    assert said.line is not None
    return Result(
        # Postfix says so only where it is another than the global one; without one it calls no host.
        level=said.level or ("unknown" if said.line.relay == "none" else level),
        status=said.line.status,
        dsn=said.line.dsn,
        session=" ".join(said.words),
        reason="" if said.line.status == "sent" else without_addresses(said.line.reason),
        warnings=told(said.warnings),
    )
