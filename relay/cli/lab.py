"""``dane-relay lab``: the relay with an Internet of its own in the same process; one message to each destination, and a table."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import click
import uvloop
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relay.app import CannotStart, open_relay
from relay.cli.lab_attack import attack, heal
from relay.cli.lab_real import lay_out_once, receivers, run_real, selftest
from relay.config.errors import ConfigErrors
from relay.config.load import read
from relay.control.lock import LockFailed
from relay.control.server import ControlFailed
from relay.desk.http import DeskFailed
from relay.lab.attacks import LOOK_SECONDS, Attacks, Board
from relay.lab.client import Submission, submit
from relay.lab.scoreboard import Evidence, Row, complete, score
from relay.lab.world import LabError, World, open_world
from relay.queue.store import StoreUnavailable
from relay.smtpd.server import CannotServe

DEFAULT_LISTEN = "127.0.0.1:2525"
DEFAULT_HTTP = "127.0.0.1:8025"
CONFIGURATION = "relay.toml"
ANY_PORT = "127.0.0.1:0"
ROUND_SECONDS = 90.0
SETTLE_SECONDS = 0.05  # the table is looked at again only so often, however fast lines come
WIDTH_WITHOUT_TERMINAL = 170


@dataclass(slots=True)
class LogBook:
    """The log lines of a run, kept and passed on as they come.

    :param show: called with each line.
    """

    show: Callable[[str], None]
    lines: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self, line: str) -> None:
        """Keep one line, show it, and wake who waits for news."""
        self.lines.append(line)
        self.show(line)
        self.changed.set()


@dataclass(frozen=True, slots=True)
class Laboratory:
    """A relay and the world it lives in, both running."""

    world: World
    book: LogBook
    smtp: tuple[str, int]
    pages: tuple[str, ...]

    async def play(self, deadline: float = ROUND_SECONDS) -> tuple[tuple[Row, ...], Submission]:
        """Send one message to each destination, wait for what must come of it, and score.

        :param deadline: seconds after which what has not happened counts as not happening.
        """
        destinations = self.world.destinations
        submission = await asyncio.to_thread(submit, self.smtp, destinations, datetime.now(UTC))
        until = time.monotonic() + deadline
        while not complete(destinations, evidence := self._evidence(submission)) and time.monotonic() < until:
            self.book.changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    await self.book.changed.wait()
            await asyncio.sleep(SETTLE_SECONDS)
        return score(destinations, evidence), submission

    def _evidence(self, submission: Submission) -> Evidence:
        return Evidence(
            log=tuple(self.book.lines),
            sessions=self.world.sessions(),
            queries=self.world.queries(),
            reports=self.world.reports(),
            sent=submission.sent,
            placement=self.world.placement,
        )


@asynccontextmanager
async def open_laboratory(*, listen: str, http: str, show: Callable[[str], None]) -> AsyncIterator[Laboratory]:
    """Start the world, then the relay in it; stop both at the end.

    :param listen: address and port of the relay's SMTP service, port 0 for any.
    :param http: the same for its pages.
    :param show: called with each log line as it comes.
    :raises LabError: if the world cannot be set up.
    :raises ConfigErrors: if an address is none; what ``open_relay`` raises passes through.
    """
    async with open_world(now=datetime.now(UTC)) as world:
        text = _configuration(world, listen, http)
        (world.directory / CONFIGURATION).write_text(text)  # for commands that ask about this relay
        config = read(
            text,
            name="the lab's configuration",
            base=world.directory,
            environ={},  # the lab is the same wherever it runs
            hostname="relay.lab.test",
        )
        book = LogBook(show)
        async with open_relay(config, write_line=book.write) as relay:
            pages = tuple(f"http://{host}:{port}/" for host, port in relay.http_addresses)
            following = asyncio.create_task(_follow(world), name="follow attacks")
            try:
                yield Laboratory(world, book, relay.smtp_addresses[0], pages)
            finally:
                following.cancel()


async def _follow(world: World) -> None:
    """Play the attacks that are wanted, as soon as they are."""
    board = Board(world.directory)
    now: Attacks = {}
    while True:
        wanted = board.wanted()
        if wanted != now:
            world.play(wanted)
            board.follow(wanted)
            now = wanted
        await asyncio.sleep(LOOK_SECONDS)


def _configuration(world: World, listen: str, http: str) -> str:
    """The relay's configuration: defaults, but for where the world is and how long to wait for it."""
    (world.directory / "state").mkdir(mode=0o700)
    host, port = world.nameserver
    return f"""
[relay]
myhostname = "relay.lab.test"
state_dir = "state"
[smtpd]
listen = ["{listen}"]
[smtp]
port = {world.smtp_port}
tls_CAfile = "{world.ca_file}"
tls_policy_maps = ["texthash:{world.policy_file}"]
connect_timeout = "10s"
helo_timeout = "4s"
starttls_timeout = "10s"
[dns]
mode = "trust-ad"
nameservers = ["{host}:{port}"]
timeout = "3s"
[queue]
minimal_backoff_time = "4s"
maximal_backoff_time = "5m"
[http]
listen = ["{http}"]
"""


@click.group("lab", invoke_without_command=True)
@click.option("--once", is_flag=True, help="End after one round; exit status 0 only if all was as expected.")
@click.option(
    "--listen", metavar="ADDRESS:PORT", help=f"Where the relay takes mail [{DEFAULT_LISTEN}; --once: any port]."
)
@click.option("--http", metavar="ADDRESS:PORT", help=f"Where its pages are [{DEFAULT_HTTP}; --once: any port].")
@click.option("--real", is_flag=True, help="Real name and mail servers, in a network namespace; root only.")
@click.option(
    "--unpacked",
    type=click.Path(path_type=Path, exists=True),
    help="With --real: where mail servers were unpacked that are not installed.",
)
@click.option("--directory", type=click.Path(path_type=Path), help="With --real: where the lab is laid out; new.")
@click.pass_context
def command(
    context: click.Context,
    *,
    once: bool,
    listen: str | None,
    http: str | None,
    real: bool,
    unpacked: Path | None,
    directory: Path | None,
) -> None:
    """Play the lab: the relay against good and bad destinations in this process; no network is needed."""
    if context.invoked_subcommand is not None:
        return
    if real:
        sys.exit(run_real(once=once, unpacked=unpacked, directory=directory))
    listen = listen or (ANY_PORT if once else DEFAULT_LISTEN)
    http = http or (ANY_PORT if once else DEFAULT_HTTP)
    console = Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)
    status = 1
    try:
        for option, address in (("--listen", listen), ("--http", http)):
            _require_free(option, address)
        status = uvloop.run(_run(console, once=once, listen=listen, http=http))
    except (
        CannotServe,
        CannotStart,
        ConfigErrors,
        ControlFailed,
        DeskFailed,
        LabError,
        LockFailed,
        StoreUnavailable,
    ) as error:
        raise click.ClickException(str(error)) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("The lab was stopped before its round was over.")
    sys.exit(status)


command.add_command(selftest)
command.add_command(receivers)
command.add_command(attack)
command.add_command(heal)
command.add_command(lay_out_once)


def _require_free(option: str, address: str) -> None:
    """Say which address is taken, before anything is started.

    :raises LabError: if the address cannot be listened on.
    """
    host, _, port = address.rpartition(":")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except (OSError, ValueError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise LabError(f"cannot listen on {address}: {why}; choose another with {option} ADDRESS:PORT") from None


async def _run(console: Console, *, once: bool, listen: str, http: str) -> int:
    if (task := asyncio.current_task()) is not None:
        # SIGINT too: a shell without job control starts what it puts into the background with SIGINT ignored.
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with open_laboratory(listen=listen, http=http, show=_show) as laboratory:
        rows, submission = await laboratory.play()
        for name, reply in submission.refused.items():
            console.print(Text(f"The relay refused the message for {name}: {reply}"))
        console.print(table(rows))
        console.print(Text(summary(rows)))
        status = 0 if all(row.as_expected for row in rows) else 1
        if not once:
            with suppress(asyncio.CancelledError):
                await _keep_serving(console, laboratory)
        return status


def _show(line: str) -> None:
    print(line, flush=True)


async def _keep_serving(console: Console, laboratory: Laboratory) -> None:
    host, port = laboratory.smtp
    good = laboratory.world.destinations[0]
    console.print(
        Text(
            f"The relay keeps serving at {host}:{port}, its pages are at {' '.join(laboratory.pages)}\n"
            f"Try it:  swaks --server {host}:{port} --from you@return.lab.test --to {good.recipient}\n"
            "Any destination of the table will do. Ctrl-C ends.\n"
            f"Harm one:  dane-relay lab attack strip {good.name} --lab {laboratory.world.directory}\n"
            f"Ask why:   dane-relay explain {good.domain} --live -c {laboratory.world.directory / CONFIGURATION}"
        )
    )
    await asyncio.Event().wait()


def table(rows: Sequence[Row]) -> Table:
    """The rows as a table, the differences of each under what was got."""
    made = Table(title="The lab", title_justify="left", show_lines=False)
    for heading in ("destination", "what it is", "policy", "expected", "got"):
        made.add_column(heading, overflow="fold")
    for row in rows:
        one = row.destination
        got = Text(row.got, style="green" if row.as_expected else "bold red")
        for difference in row.differences:
            got.append(f"\n{difference}", style="red")
        made.add_row(Text(one.domain), Text(one.shows), Text(one.policy or "(default: dane)"), Text(row.expected), got)
    return made


def summary(rows: Sequence[Row]) -> str:
    """One line that says whether all is well, and names what is not."""
    red = [row.destination.domain for row in rows if not row.as_expected]
    if not red:
        return f"All {len(rows)} destinations as expected."
    return f"{len(red)} of {len(rows)} destinations NOT as expected: {', '.join(red)}"
