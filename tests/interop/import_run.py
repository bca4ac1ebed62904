"""One message to each destination of a setup: by Postfix with the original files, by our relay with the imported ones."""

from __future__ import annotations

import re
import smtplib
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from relay.lab.ca import CertificateKind, fingerprint
from relay.lab.logbook import SessionLine, StatusLine, read_log
from relay.lab.record import SessionRecord
from tests.interop.import_setup import Destination, Setup, filled
from tests.interop.nameservers import Endpoint
from tests.interop.postfix import Listener, Postfix, postfix
from tests.interop.side_by_side_world import World
from tests.loopback import free_port
from tests.relay_process import RelayProcess
from tests.watched_process import PATIENCE, WatchedProcess

_QUEUED = re.compile(rb"2\.0\.0 Ok: queued as (\S+)")
_CONTENT = b"Subject: moved\r\nDate: Mon, 1 Jun 2026 12:00:00 +0000\r\nMessage-ID: <1@client.test>\r\n\r\nA word.\r\n"
_REFUSED = {4: "deferred", 5: "bounced"}


@dataclass(frozen=True, slots=True)
class End:
    """How one message ended.

    :param dsn_class: 2, 4 or 5.
    :param words: what the log says of TLS sessions with the destination's hosts.
    :param carried: how those hosts got the message, if they did: ``in TLS`` or ``in clear``.
    :param relay: the host of the status line, or ``none``.
    """

    status: str
    dsn_class: int
    words: frozenset[str]
    carried: frozenset[str]
    relay: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Both ends of one destination, and what was said of ours."""

    postfix: End
    ours: End
    reason: str


@dataclass(frozen=True, slots=True)
class Played:
    """A setup that was played.

    :param remarks: what the import said, without the directory.
    :param exit_code: that of the import.
    :param presented: messages that smarthosts took of each contender, which they do of our certificate only.
    :param logged_in: the hosts of the lab at which each contender logged in, over TLS each time.
    """

    pairs: Mapping[str, Pair]
    remarks: tuple[str, ...]
    exit_code: int
    presented: Mapping[str, int]
    logged_in: Mapping[str, frozenset[str]]


def play(setup: Setup, world: World) -> Played:
    """Send to all of them, through both."""
    directory = world.directory / setup.name
    directory.mkdir()
    certificate = world.authority.issue(CertificateKind.GOOD, f"client.{setup.name}.test")
    client = certificate.pem_file
    etc = directory / "etc"
    etc.mkdir()
    texts = {name: filled(text, world, str(etc), str(client)) for name, text in setup.files.items()}
    texts |= {"main.cf": filled(setup.main, world, str(etc), str(client)), "master.cf": setup.master}
    for name, text in texts.items():
        (etc / name).write_text(text)
    remarks, exit_code = _import(etc)
    with (
        _smarthosts(setup, world, directory, fingerprint(certificate.leaf)) as gates,
        _both(setup, world, directory, texts["main.cf"]) as contenders,
    ):
        runs = [_Run(contender, setup.destinations, world) for contender in contenders]
        for run in runs:
            run.wait()
        world.receivers.wait_until_quiet([host.name for case in setup.cases for host in case.hosts])
        ends = [{each.name: run.end(each) for each in setup.destinations} for run in runs]
        logged_in = {run.name: _logged_in(setup, world, world.clients[run.name]) for run in runs}
        presented = {run.name: _presented(gates, world.clients[run.name]) for run in runs}
    pairs = {
        each.name: Pair(ends[0][each.name][0], ends[1][each.name][0], ends[1][each.name][1])
        for each in setup.destinations
    }
    return Played(pairs, remarks, exit_code, presented, logged_in)


def _import(etc: Path) -> tuple[tuple[str, ...], int]:
    """Run the command; the result is beside the original files."""
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "relay",
        "import-postfix",
        etc / "main.cf",
        "-o",
        etc / "relay.toml",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return tuple(line.removeprefix(f"{etc}/") for line in done.stderr.splitlines()), done.returncode


@dataclass(frozen=True, slots=True)
class _Contender:
    name: str
    entrance: Endpoint
    process: WatchedProcess


@contextmanager
def _both(setup: Setup, world: World, directory: Path, main_cf: str) -> Iterator[tuple[_Contender, _Contender]]:
    address = world.clients["Postfix"]
    entrance = Endpoint(address, free_port(address))
    theirs = directory / "postfix"
    theirs.mkdir()
    needed = {"in_flow_delay": "0", "smtp_bind_address": address}
    with (
        postfix(
            [Listener("entrance", entrance)],
            theirs,
            settings=needed,
            main_cf=main_cf,
            client_options=setup.client_options,
            resolver=world.resolver.address,
        ) as running,
        RelayProcess(_home(directory), _imported(directory / "etc/relay.toml", world)) as ours,
    ):
        yield (
            _Contender("Postfix", entrance, running.process),
            _Contender("relay", Endpoint(ours.address, ours.port), ours.process),
        )


def _home(directory: Path) -> Path:
    home = directory / "relay"
    home.mkdir()
    return home


def _imported(file: Path, world: World) -> Mapping[str, Mapping[str, str | int | bool | list[str]]]:
    """The imported configuration, with the addresses and the resolver of the run."""
    sections = tomllib.loads(file.read_text())
    sections["smtpd"].pop("listen", None)
    sections["smtp"]["bind_address"] = world.clients["relay"]
    sections["dns"] = {"mode": "trust-ad", "nameservers": [str(world.resolver)]}
    return sections


@contextmanager
def _smarthosts(setup: Setup, world: World, directory: Path, client: str) -> Iterator[Postfix | None]:
    """A Postfix that takes mail of nobody but who shows the certificate with this fingerprint."""
    if not setup.smarthosts:
        yield None
        return
    listeners = [
        Listener(
            host.name,
            Endpoint(world.addresses[host.name], int(host.port.format(**world.ports))),
            world.credentials[host.name].pem_file,
            {
                "smtpd_tls_ask_ccert": "yes",
                "smtpd_tls_fingerprint_digest": "sha256",
                "relay_clientcerts": f"inline:{{{{{client} = ours}}}}",
                "smtpd_client_restrictions": "permit_tls_clientcerts, reject",
                "smtpd_relay_restrictions": "permit_tls_clientcerts, reject",
            },
        )
        for host in setup.smarthosts
    ]
    home = directory / "smarthosts"
    home.mkdir()
    domains = [each.case.domain for each in setup.destinations]
    with postfix(listeners, home, virtual_domains=domains) as running:
        yield running


def _presented(gates: Postfix | None, client: str) -> int:
    if gates is None:
        return 0
    taken = re.compile(rf" gate\S*/smtpd\[\d+\]: [0-9A-F]+: client=\S*\[{re.escape(client)}\]")
    return sum(bool(taken.search(line)) for line in gates.process.lines())


def _logged_in(setup: Setup, world: World, client: str) -> frozenset[str]:
    names = {host.name for case in setup.cases for host in case.hosts}
    seen = {
        (name, command.encrypted)
        for name in names
        for session in world.receivers.sessions(name, client)
        for command in session.commands
        if command.verb == "AUTH"
    }
    assert all(encrypted for _, encrypted in seen), seen
    return frozenset(name for name, _ in seen)


class _Run:
    """One message from one contender to each destination, handed in at once."""

    def __init__(self, contender: _Contender, destinations: Sequence[Destination], world: World) -> None:
        self._contender = contender
        self._world = world
        self.name = contender.name
        entrance = contender.entrance
        with smtplib.SMTP(entrance.address, entrance.port, local_hostname="client.test", timeout=PATIENCE) as client:
            client.ehlo()
            self._handed_in = {each.name: self._hand_in(client, each) for each in destinations}

    @staticmethod
    def _hand_in(client: smtplib.SMTP, destination: Destination) -> str | End:
        """The message's queue ID, or its end if the recipient was refused at the door, as Postfix does for ``error:``."""
        code, text = client.mail(destination.sender)
        assert code == 250, text
        code, text = client.rcpt(f"{destination.local_part}@{destination.case.domain}")
        if code != 250:
            client.rset()
            return End(_REFUSED[code // 100], code // 100, frozenset(), frozenset(), "none")
        code, text = client.data(_CONTENT)
        queued = _QUEUED.fullmatch(text)
        assert queued is not None, (code, text)
        return queued[1].decode()

    def wait(self) -> None:
        """Wait until each message has its status line."""
        for handed_in in self._handed_in.values():
            if isinstance(handed_in, str):
                self._contender.process.wait_for(rf": {handed_in}: to=<.* status=|: panic: ")

    def end(self, destination: Destination) -> tuple[End, str]:
        """How one of them ended, after ``wait``, and the text of its status line."""
        queue_id = self._handed_in[destination.name]
        if isinstance(queue_id, End):
            return queue_id, ""
        log = tuple(read_log(self._contender.process.lines()))
        line = next(one for one in log if isinstance(one, StatusLine) and one.queue_id == queue_id)
        hosts = [host.name for host in destination.case.hosts]
        addresses = {self._world.addresses[name] for name in hosts}
        words = frozenset(one.word for one in log if isinstance(one, SessionLine) and one.address in addresses)
        client = self._world.clients[self.name]
        sessions = [one for name in hosts for one in self._world.receivers.sessions(name, client)]
        return End(line.status, int(line.dsn[0]), words, _carried(sessions), line.relay), line.reason


def _carried(sessions: Sequence[SessionRecord]) -> frozenset[str]:
    messages = [message for session in sessions for message in session.received if message.accepted]
    return frozenset("in TLS" if message.encrypted else "in clear" for message in messages)


def play_all(setups: Sequence[Setup], world: World) -> Mapping[str, Played]:
    """All setups side by side; the time is spent in waiting for servers to start."""
    with ThreadPoolExecutor(len(setups)) as pool:
        return dict(
            zip((setup.name for setup in setups), pool.map(lambda setup: play(setup, world), setups), strict=True)
        )
