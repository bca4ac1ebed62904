"""One message to each destination through Postfix and through our relay, and what became of it: logs and receivers say."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields

from relay.lab.logbook import SessionLine, StatusLine, read_log
from relay.lab.record import SessionRecord
from tests.interop.nameservers import Endpoint
from tests.interop.postfix import Listener, postfix
from tests.interop.side_by_side_case import PROFILES, Case, Profile
from tests.interop.side_by_side_world import SENDER_DOMAIN, World
from tests.loopback import free_port
from tests.relay_process import RelayProcess, Settings
from tests.watched_process import PATIENCE, WatchedProcess

_QUEUED = re.compile(rb"2\.0\.0 Ok: queued as (\S+)")
_CONTENT = (
    b"Subject: side by side\r\nDate: Mon, 1 Jun 2026 12:00:00 +0000\r\nMessage-ID: <1@client.test>\r\n\r\nA word.\r\n"
)

PANIC = "panic"


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one message.

    :param status: ``sent``, ``deferred`` or ``bounced``; ``panic`` if the client died of it.
    :param sessions: the log's word for each TLS session, in order.
    :param reached: how far each host was reached, in the words of the document.
    :param relay: the name of the host in the status line, or ``none``.
    :param reason: the text of the status line, up to our own ``: expected …``.
    """

    status: str
    dsn: str
    sessions: tuple[str, ...]
    reached: tuple[str, ...]
    relay: str
    reason: str

    def differences(self, other: Fate) -> frozenset[str]:
        """The names of the fields that are not the same."""
        return frozenset(one.name for one in fields(Fate) if getattr(self, one.name) != getattr(other, one.name))


@dataclass(frozen=True, slots=True)
class Pair:
    """Both fates of one destination."""

    postfix: Fate
    ours: Fate


def compare(world: World, cases: Sequence[Case]) -> Mapping[str, Pair]:
    """Send to all of them, those of each profile at once; gives the pairs by the cases' names."""

    def play(profile: Profile) -> dict[str, Pair]:
        mine = [case for case in cases if case.profile == profile]
        with _postfix(profile, mine, world) as theirs, _relay(profile, mine, world) as ours:
            runs = [_Run(contender, mine, world) for contender in (theirs, ours)]
            for run in runs:
                run.wait()
            world.receivers.wait_until_quiet([host.name for case in mine for host in case.hosts])
            return {case.name: Pair(*(run.fate(case) for run in runs)) for case in mine}

    with ThreadPoolExecutor(len(PROFILES)) as pool:
        return {name: pair for played in pool.map(play, PROFILES) for name, pair in played.items()}


@dataclass(frozen=True, slots=True)
class _Contender:
    """A sender, running.

    :param name: as in ``World.clients``.
    """

    name: str
    entrance: Endpoint
    process: WatchedProcess


class _Run:
    """One message from one contender to each of some destinations, handed in at once."""

    def __init__(self, contender: _Contender, cases: Sequence[Case], world: World) -> None:
        self._contender = contender
        self._world = world
        entrance = contender.entrance
        with smtplib.SMTP(entrance.address, entrance.port, local_hostname="client.test", timeout=PATIENCE) as client:
            client.ehlo()
            self._queue_ids = {case.name: self._hand_in(client, world.recipient(case)) for case in cases}

    def _hand_in(self, client: smtplib.SMTP, recipient: str) -> str:
        code, text = client.mail(f"{self._contender.name}@{SENDER_DOMAIN}")
        assert code == 250, text
        code, text = client.rcpt(recipient)
        assert code == 250, text
        code, text = client.data(_CONTENT)
        queued = _QUEUED.fullmatch(text)
        assert queued is not None, (code, text)
        return queued[1].decode()

    def wait(self) -> None:
        """Wait until each message has its status line, or its client has died."""
        for queue_id in self._queue_ids.values():
            self._contender.process.wait_for(rf": {queue_id}: to=<.* status=|: panic: ")

    def fate(self, case: Case) -> Fate:
        """What became of one of them, after ``wait``."""
        log = tuple(read_log(self._contender.process.lines()))
        queue_id = self._queue_ids[case.name]
        lines = [one for one in log if isinstance(one, StatusLine) and one.queue_id == queue_id]
        addresses = {self._world.addresses[host.name] for host in case.hosts}
        words = (one.word for one in log if isinstance(one, SessionLine) and one.address in addresses)
        client = self._world.clients[self._contender.name]
        reached = (_reached(self._world.receivers.sessions(host.name, client)) for host in case.hosts)
        if not lines:
            return Fate(PANIC, "", tuple(words), tuple(reached), "", "")
        (line,) = lines
        reason = line.reason.partition(": expected ")[0]
        return Fate(line.status, line.dsn, tuple(words), tuple(reached), line.relay, reason)


def _reached(sessions: Sequence[SessionRecord]) -> str:
    """The furthest that the sessions with one host got."""
    messages = [message for session in sessions for message in session.received]
    commands = [command for session in sessions for command in session.commands if command.verb == "MAIL"]
    if messages:
        what = "message" if any(message.accepted for message in messages) else "message refused"
        return f"{what} {_manner(message.encrypted for message in messages)}"
    if commands:
        return f"MAIL {_manner(command.encrypted for command in commands)}"
    return "no MAIL" if sessions else "not called"


def _manner(encrypted: Iterable[bool]) -> str:
    return "in TLS" if all(encrypted) else "in clear"


@contextmanager
def _postfix(profile: Profile, cases: Sequence[Case], world: World) -> Iterator[_Contender]:
    directory = world.directory / f"postfix-{profile.name}"
    directory.mkdir()
    policy = directory / "tls_policy"
    policy.write_text(_policy(cases))
    settings = {
        "mynetworks": "127.0.0.0/8",
        "in_flow_delay": "0",
        "smtp_bind_address": world.clients["Postfix"],
        "smtp_tcp_port": str(world.ports["port"]),
        "smtp_dns_support_level": "dnssec",
        "smtp_tls_security_level": profile.level,
        "smtp_tls_policy_maps": f"texthash:{policy}",
        "smtp_tls_CAfile": str(world.ca_file),
        "smtp_tls_loglevel": "1",
        "relayhost": ", ".join(_relayhost(profile, world)),
        **{f"smtp_{name}": value for name, value in profile.options.items()},
    }
    address = world.clients["Postfix"]
    entrance = Endpoint(address, free_port(address))
    listener = Listener("entrance", entrance)
    with postfix([listener], directory, settings=settings, resolver=world.resolver.address) as running:
        yield _Contender("Postfix", entrance, running.process)


@contextmanager
def _relay(profile: Profile, cases: Sequence[Case], world: World) -> Iterator[_Contender]:
    directory = world.directory / f"relay-{profile.name}"
    directory.mkdir()
    settings: Settings = {
        "smtp": {
            "bind_address": world.clients["relay"],
            "port": world.ports["port"],
            "tls_security_level": profile.level,
            "tls_policy_maps": ["tls_policy"],
            "tls_CAfile": str(world.ca_file),
            "relayhost": _relayhost(profile, world),
            **profile.options,
        },
        "dns": {"mode": "trust-ad", "nameservers": [str(world.resolver)]},
    }
    with RelayProcess(directory, settings, {"tls_policy": _policy(cases)}) as running:
        yield _Contender("relay", Endpoint(running.address, running.port), running.process)


def _policy(cases: Sequence[Case]) -> str:
    """The policy map, which both read."""
    return "".join(f"{case.domain} {case.policy}\n" for case in cases if case.policy)


def _relayhost(profile: Profile, world: World) -> list[str]:
    return [next_hop.format(**world.ports) for next_hop in profile.relayhost]
