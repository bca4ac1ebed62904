"""The relay as its users run it: a configuration file, ``python -m relay serve``, a log, signals."""

from __future__ import annotations

import json
import re
import smtplib
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.loopback import free_port, wait_until_listening
from tests.watched_process import WatchedProcess

Setting = str | int | bool | list[str]
Settings = Mapping[str, Mapping[str, Setting]]

_QUEUED = re.compile(rb"250 2\.0\.0 Ok: queued as (\S+)")


class RelayProcess:
    """One relay with a directory of its own; may be started, killed and started again on the same queue.

    :param directory: gets ``relay.toml``, the state and the log.
    :param settings: sections and keys of the configuration that differ from what a test relay needs.
    :param files: what is written beside ``relay.toml``, such as policy maps.
    :param environment: what the relay finds in its environment besides.
    """

    def __init__(
        self,
        directory: Path,
        settings: Settings,
        files: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.address = "127.0.0.1"
        self.port = free_port()
        self.log = directory / "relay.log"
        self.configuration = directory / "relay.toml"
        self._environment = dict(environment or {})
        self._running: WatchedProcess | None = None
        for name, text in (files or {}).items():
            (directory / name).write_text(text)
        sections: dict[str, dict[str, Setting]] = {
            "relay": {"myhostname": "relay.test", "state_dir": "state"},
            "smtpd": {
                "listen": [f"{self.address}:{self.port}"],
                "mynetworks": ["127.0.0.0/8"],
                "local_header_rewrite_clients": "",  # what a test sends is what it finds
            },
            "http": {"listen": ""},
            # Not "auto", which may ask the DNS root itself: nothing that a test starts asks beyond loopback.
            "dns": {"mode": "trust-ad"},
        }
        for section, options in settings.items():
            sections.setdefault(section, {}).update(options)
        self.configuration.write_text(_toml(sections))

    @property
    def process(self) -> WatchedProcess:
        """The child that runs now."""
        assert self._running is not None, "the relay was not started"
        return self._running

    def start(self) -> None:
        """Start it and wait until it greets."""
        assert self._running is None, "the relay runs already"
        (self.directory / "state").mkdir(exist_ok=True)
        self._running = WatchedProcess(
            [sys.executable, "-m", "relay", "serve", "-c", self.configuration],
            log=self.log,
            environment={"PYTHONUNBUFFERED": "1", **self._environment},
        )
        try:
            wait_until_listening(self.address, self.port, still=self._running.running)
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{error}; the relay said:\n{self.log.read_text()}") from error

    def stop(self) -> int:
        """Ask it to end, as a service manager does; returns its exit status."""
        status = self.process.stop()
        self._running = None
        return status

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self._running = None

    def send(self, content: bytes, *, sender: str, recipients: list[str], body: str = "") -> str:
        """Hand it one message exactly as given (CRLF line ends), and return the queue ID of its 250.

        smtplib transmits the octets as they are but for transparency dots, and raises if a recipient is refused.
        """
        with smtplib.SMTP(self.address, self.port, local_hostname="client.test", timeout=60) as client:
            client.ehlo()
            code, text = client.mail(sender, [f"BODY={body}"] if body else [])
            assert code == 250, text
            for recipient in recipients:
                code, text = client.rcpt(recipient)
                assert code == 250, text
            code, text = client.docmd("DATA")
            assert code == 354, text
            assert client.sock is not None
            client.sock.sendall(_transparent(content) + b".\r\n")
            code, text = client.getreply()
        found = _QUEUED.fullmatch(b"%d %s" % (code, text))
        assert found is not None, (code, text)
        return found[1].decode()

    def connect(self) -> socket.socket:
        """A bare connection to it."""
        return socket.create_connection((self.address, self.port), timeout=60)

    def lines_of(self, queue_id: str) -> tuple[str, ...]:
        """What it has logged under one queue ID."""
        return tuple(line for line in self.process.lines() if f": {queue_id}: " in line)

    def wait_for_status(self, queue_id: str, recipient: str = "") -> str:
        """Wait for the status line of a message (and recipient) and return it."""
        found = self.process.wait_for(rf".*: {queue_id}: to=<{re.escape(recipient) or '[^>]*'}>.* status=.*")
        return found[0]

    def __enter__(self) -> RelayProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running is not None:
            self.stop()


def _transparent(content: bytes) -> bytes:
    """Dots doubled at the beginning of lines (RFC 5321 section 4.5.2)."""
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]


def _toml(sections: Mapping[str, Mapping[str, Setting]]) -> str:
    """Sections as TOML; JSON writes strings, numbers, truth values and lists of strings as TOML does."""
    return "".join(
        f"[{section}]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items())
        for section, options in sections.items()
    )
