"""``dane-relay serve``: the relay in the foreground, until SIGTERM, SIGINT or ``dane-relay stop``; a second one hurries."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path

import click
import uvloop

from relay.app import CannotStart, open_relay, system_hostname
from relay.app.allocator import give_large_blocks_back
from relay.app.notify import Notifier
from relay.app.signals import Signals
from relay.config.config import Config
from relay.config.errors import ConfigErrors
from relay.config.load import load
from relay.control.lock import LockFailed
from relay.control.server import ControlFailed
from relay.desk.http import DeskFailed
from relay.log.sink import LogFailed
from relay.queue.store import StoreUnavailable
from relay.smtpd.server import CannotServe
from relay.tls.authorities import CaStoreError
from relay.tls.own_certificate import ClientCertificateError

# Seconds after which a thread that waits for the interpreter is given it: the queue's writer does so after each statement, and
# with Python's own 5 ms a commit beside a busy event loop takes several times as long as it needs.
_SWITCH_INTERVAL = 0.001

CONFIGURATION_WRONG = 1
CANNOT_START = 1


@click.command("serve")
@click.option(
    "-c", "--config", "path", required=True, type=click.Path(path_type=Path), help="The configuration, relay.toml."
)
def command(path: Path) -> None:
    """Run the relay."""

    signals = Signals()  # before the configuration is read: a SIGHUP from here on is not forgotten
    try:
        config = load(path, os.environ, hostname=system_hostname())
        give_large_blocks_back()
        uvloop.run(_serve(config, path, signals))
    except ConfigErrors as errors:
        for error in errors.errors:
            click.echo(error, err=True)
        sys.exit(CONFIGURATION_WRONG)
    except (
        CaStoreError,
        ClientCertificateError,
        CannotServe,
        CannotStart,
        ControlFailed,
        DeskFailed,
        LockFailed,
        LogFailed,
        StoreUnavailable,
    ) as error:
        click.echo(f"dane-relay: cannot start: {error}", err=True)
        sys.exit(CANNOT_START)


def _settle_in() -> None:
    """What is in memory now stays: the garbage collector need not look it over, all of it, again and again.

    A look at everything stops the relay for a tenth of a second when thousands of clients are connected; most of that is the
    program itself. And looks are fewer: what a connection makes is mostly gone by then, without any help.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


async def _serve(config: Config, path: Path, signals: Signals) -> None:
    signals.listen()

    def reread() -> Config:
        return load(path, os.environ, hostname=system_hostname())

    notifier = Notifier.from_environment(os.environ, os.getpid())
    async with open_relay(config, reread=reread, notifier=notifier, source=path) as relay:
        reloads: set[asyncio.Task[object]] = set()

        def reload() -> None:
            task: asyncio.Task[object] = asyncio.ensure_future(relay.reload())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        signals.answered_by(stop=relay.stop, reload=reload)
        sys.setswitchinterval(_SWITCH_INTERVAL)
        _settle_in()
        await relay.stopping.wait()
