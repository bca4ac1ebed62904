"""``dane-relay lab --real`` and ``lab selftest``: the lab's destinations run by servers that we did not write."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relay.lab.client import Submission
from relay.lab.real import namespace
from relay.lab.real.layout import PLAN_FILE, Laid, lay_out, read_layout
from relay.lab.real.plan import Server
from relay.lab.real.receivers import playing
from relay.lab.real.running import CannotRun, Programs, find_programs, process, running, until_listening
from relay.lab.real.selftest import Seen, play

NETWORK = "127.80.0."
# What the packages' own scripts would make, where they were unpacked only.
ACCOUNTS = {"postfix": 64101, "postdrop": 64102, "Debian-exim": 64103, "opensmtpd": 64104, "opensmtpq": 64105}
SUBMISSION_PORT = 2525
PATIENCE_SECONDS = 60.0
QUIET_SECONDS = 3.0
WIDTH_WITHOUT_TERMINAL = 170


def run_real(*, once: bool, unpacked: Path | None, directory: Path | None) -> int:
    """Run the lab with real servers, first of all in a network of its own.

    :raises click.ClickException: if it cannot be run here.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="dane-relay-lab-") as temporary:
            Path(temporary).chmod(0o755)  # the servers' accounts must be able to enter
            place = directory or Path(temporary) / "lab"
            if not namespace.inside():
                again = [sys.executable, "-m", "relay", *sys.argv[1:], "--directory", str(place)]
                return namespace.run_inside(again, _pid_file(place))
            namespace.bring_up_loopback()
            roots = sorted(one for one in unpacked.iterdir() if one.is_dir()) if unpacked is not None else []
            namespace.lay_over(roots, Path(temporary) / "system")
            for name, number in ACCOUNTS.items():
                namespace.add_account(name, number)
            return asyncio.run(_run(place, find_programs(), once=once))
    except (CannotRun, namespace.NoNamespace, OSError) as error:
        raise click.ClickException(str(error)) from None


def _pid_file(directory: Path) -> Path:
    """Names a process in the lab's namespaces, for nsenter(1)."""
    return directory.with_name(f"{directory.name}.pid")


async def _run(directory: Path, programs: Programs, *, once: bool) -> int:
    console = _console()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    laid = lay_out(directory, NETWORK, now=datetime.now(UTC), absent=programs.absent)
    namespace.see_resolver(laid.plan.resolver)
    for server in programs.absent:
        console.print(Text(f"{server.value} is not here: the lab plays its hosts itself"))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(laid, programs))
        serve: list[str | Path] = [sys.executable, "-m", "relay", "serve", "-c", laid.relay_configuration]
        await stack.enter_async_context(process("relay", serve, laid))
        relay = (laid.plan.relay, SUBMISSION_PORT)
        await until_listening(*relay, laid.directory / "log" / "relay.log")
        rows, submission = await asyncio.to_thread(
            play, laid, relay, now=datetime.now(UTC), patience=PATIENCE_SECONDS, quiet=QUIET_SECONDS
        )
        show(console, laid, rows, submission)
        if not once:
            enter = f"nsenter --target $(cat {_pid_file(directory)}) --net --mount"
            console.print(
                Text(
                    f"The lab keeps running in {directory}; Ctrl-C ends. The relay takes mail at {relay[0]}:{relay[1]}.\n"
                    f"Go in:     {enter} sh\n"
                    f"Test one:  {enter} dane-relay lab selftest --smtp HOST:PORT --lab {directory}\n"
                    f"Harm one:  dane-relay lab attack strip full-key --lab {directory}"
                )
            )
            await stop.wait()
        return 0 if all(row.as_expected for row in rows) else 1


def show(console: Console, laid: Laid, rows: Sequence[Seen], submission: Submission) -> None:
    """Print the scoreboard."""
    for name, reply in submission.refused.items():
        console.print(Text(f"The message for {name} was not taken: {reply}"))
    made = Table(title="The scoreboard: what the mail hosts saw", title_justify="left", show_lines=False)
    for heading in ("scenario", "RFC section", "run by", "expected", "got"):
        made.add_column(heading, overflow="fold")
    for row in rows:
        one = row.destination
        got = Text(row.got, style="green" if row.as_expected else "bold red")
        for difference in row.differences:
            got.append(f"\n{difference}", style="red")
        made.add_row(
            Text(f"{one.name}: {one.shows}"), Text(_rule(row)), Text(_run_by(laid, row)), Text(row.expected), got
        )
    console.print(made)
    red = [row.destination.name for row in rows if not row.as_expected]
    verdict = f"{len(red)} of {len(rows)} NOT as expected: {', '.join(red)}" if red else f"All {len(rows)} as expected."
    console.print(Text(verdict))


def _rule(row: Seen) -> str:
    proves = ", ".join(f"R{number}" for number in row.destination.proves)
    return f"{row.destination.rule} ({proves})" if proves else row.destination.rule


def _run_by(laid: Laid, row: Seen) -> str:
    servers = {laid.plan.servers[host.name] for host in row.destination.hosts}
    return ", ".join(sorted("the lab" if server is Server.SCRIPTED else server.value for server in servers)) or "-"


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)


@click.command("selftest")
@click.option(
    "--smtp", required=True, metavar="HOST:PORT", help="The mail server to test; it must use the lab's resolver."
)
@click.option(
    "--lab",
    "directory",
    required=True,
    type=click.Path(path_type=Path, exists=True),
    help="The running lab's directory.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--patience", default=PATIENCE_SECONDS, show_default=True, help="Seconds to wait for what must happen.")
@click.option("--quiet", default=QUIET_SECONDS, show_default=True, help="Seconds to look on for what must not happen.")
def selftest(smtp: str, directory: Path, *, as_json: bool, patience: float, quiet: float) -> None:
    """Play all scenarios against any mail server that uses the lab's resolver."""
    host, _, port = smtp.rpartition(":")
    if not host or not port.isdigit():
        raise click.UsageError(f"--smtp {smtp}: expected HOST:PORT")
    try:
        laid = read_layout(directory)
        rows, submission = play(laid, (host, int(port)), now=datetime.now(UTC), patience=patience, quiet=quiet)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{smtp}, lab in {directory}: {error}") from None
    if as_json:
        click.echo(json.dumps(_as_json(rows, submission), indent=2))
    else:
        show(_console(), laid, rows, submission)
    sys.exit(0 if all(row.as_expected for row in rows) else 1)


def _as_json(rows: Sequence[Seen], submission: Submission) -> dict[str, object]:
    return {
        "expected": sum(row.as_expected for row in rows),
        "of": len(rows),
        "not_taken": dict(submission.refused),
        "scenarios": [
            {
                "name": row.destination.name,
                "shows": row.destination.shows,
                "rule": row.destination.rule,
                "requirements": [f"R{number}" for number in row.destination.proves],
                "expected": row.expected,
                "got": row.got,
                "differences": list(row.differences),
            }
            for row in rows
        ],
    }


@click.command("lay-out", hidden=True)
@click.option("--directory", required=True, type=click.Path(path_type=Path))
@click.option("--network", required=True, metavar="A.B.C.", help="The first three numbers of every address.")
def lay_out_once(directory: Path, network: str) -> None:
    """Write a lab with real servers to a directory, unless there is one already."""
    try:
        if (directory / PLAN_FILE).exists():
            click.echo(f"{directory} has a lab")
            return
        laid = lay_out(directory, network, now=datetime.now(UTC))
    except OSError as error:
        raise click.ClickException(f"{directory}: {error}") from None
    click.echo(f"{len(laid.plan.hosts)} mail hosts laid out in {directory}")


@click.command("receivers", hidden=True)
@click.option("--lab", "directory", required=True, type=click.Path(path_type=Path, exists=True))
def receivers(directory: Path) -> None:
    """Play the scripted hosts of a laid-out lab until a signal comes."""

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with playing(read_layout(directory)) as count:
            click.echo(f"{count} scripted hosts are listening")
            await stop.wait()

    try:
        asyncio.run(run())
    except OSError as error:
        raise click.ClickException(f"lab in {directory}: {error}") from None
