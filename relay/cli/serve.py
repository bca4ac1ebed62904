"""``dane-relay serve``: the relay in the foreground, until SIGTERM, SIGINT or ``dane-relay stop``; a second one hurries."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import click
import uvloop

from relay.app import CannotStart, Relay, open_relay, system_hostname
from relay.app.allocator import give_large_blocks_back
from relay.app.notify import Notifier
from relay.app.posts import EMPTY, READY, Parent, Post, left_over
from relay.app.sharing import NoRules, until_empty
from relay.app.signals import Signals
from relay.app.supervisor import open_workers
from relay.config.config import Config
from relay.config.errors import ConfigErrors
from relay.config.load import load
from relay.control.lock import LockFailed
from relay.control.merging import ShardFailed
from relay.control.server import ControlFailed
from relay.desk.http import DeskFailed
from relay.log.sink import LogFailed
from relay.queue.store import StoreUnavailable
from relay.smtpd.server import CannotServe
from relay.tls.authorities import CaStoreError
from relay.tls.own_certificate import ClientCertificateError

CONFIGURATION_WRONG = 1
CANNOT_START = 1


@click.command("serve")
@click.option(
    "-c", "--config", "path", required=True, type=click.Path(path_type=Path), help="The configuration, relay.toml."
)
@click.option("--post", hidden=True, help="What a parent tells a worker that it starts.")
def command(path: Path, post: str | None) -> None:
    """Run the relay."""

    signals = Signals()  # before the configuration is read: a SIGHUP from here on is not forgotten
    try:
        if post is not None:
            give_large_blocks_back()
            _serve_as_worker(path, Post.read(post))
            return
        config = load(path, os.environ, hostname=system_hostname())
        give_large_blocks_back()
        if config.relay.workers > 1 or left_over(config):
            asyncio.run(_supervise(config, path, signals))
        else:
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
        NoRules,
        ShardFailed,
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
        signals.answered_by(stop=relay.stop, reload=_reload_of(relay))
        _settle_in()
        await relay.stopping.wait()


def _reload_of(relay: Relay) -> Callable[[], None]:
    """A reload that nobody waits for."""
    reloads: set[asyncio.Task[object]] = set()

    def reload() -> None:
        task: asyncio.Task[object] = asyncio.ensure_future(relay.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    return reload


async def _supervise(config: Config, path: Path, signals: Signals) -> None:
    signals.listen()
    notifier = Notifier.from_environment(os.environ, os.getpid())
    async with open_workers(config, source=path, notifier=notifier) as workers:

        def reload() -> None:
            with notifier.reloading():
                workers.reload()

        signals.answered_by(stop=workers.stop, reload=reload)
        await workers.stopping.wait()


def _serve_as_worker(path: Path, post: Post) -> None:
    # Who signals everything that belongs to the service means the parent, which tells us.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    def read() -> Config:
        return post.applied(load(path, os.environ, hostname=system_hostname()))

    with suppress(asyncio.CancelledError):  # ended while it started
        uvloop.run(_work(read, path, post))


async def _work(read: Callable[[], Config], path: Path, post: Post) -> None:
    parent = Parent(post)
    starting = asyncio.current_task()
    if starting is not None:
        parent.answered_by(stop=starting.cancel, reload=lambda: None)  # it has not read the rules yet, or just now
    async with open_relay(read(), reread=read, source=path, post=post) as relay:
        parent.answered_by(stop=relay.stop, reload=_reload_of(relay))
        parent.tell(READY)
        _settle_in()
        if not post.drains:
            await relay.stopping.wait()
            return
        empty = asyncio.ensure_future(until_empty(relay.store))
        stopping = asyncio.ensure_future(relay.stopping.wait())
        await asyncio.wait((empty, stopping), return_when=asyncio.FIRST_COMPLETED)
        if empty.done() and empty.result():
            parent.tell(EMPTY)
        for task in (empty, stopping):
            task.cancel()
