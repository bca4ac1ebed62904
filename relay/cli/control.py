"""``dane-relay stop`` and ``dane-relay reload``: what is said to a running relay besides its queue."""

from __future__ import annotations

import time
from pathlib import Path

import click

from relay.cli.place import TemporaryFailure, find_place, place_options
from relay.control.client import CallFailed, NoRelay, call
from relay.control.lock import LockFailed, is_held
from relay.control.protocol import Reload, Request, Stop
from relay.outcome.wording import one_line

_PAUSE = 0.05


@click.command("stop")
@place_options
@click.option(
    "--wait",
    "patience",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait until the relay has ended; 0 not to wait.",
)
def stop(config: Path | None, state_dir: Path | None, patience: float) -> None:
    """End the running relay: it takes no more mail, finishes what is under way and exits."""
    place = find_place(config, state_dir)
    pid = _call(place.state_dir, Stop()).get("pid", "?")
    if patience == 0:
        click.echo(f"The relay (process {pid}) is stopping.")
        return
    until = time.monotonic() + patience
    while _running(place.state_dir):
        if time.monotonic() > until:
            raise TemporaryFailure(f"the relay (process {pid}) is still finishing after {patience:g} seconds")
        time.sleep(_PAUSE)
    click.echo(f"The relay (process {pid}) has stopped.")


@click.command("reload")
@place_options
@click.pass_context
def reload(ctx: click.Context, config: Path | None, state_dir: Path | None) -> None:
    """Have the running relay read its policy maps and certificates again; exit status 1 if it keeps the old ones."""
    result = _call(find_place(config, state_dir).state_dir, Reload())
    messages = result.get("messages")
    for message in messages if isinstance(messages, list) else ():
        click.echo(one_line(str(message)), err=True)
    if result.get("accepted") is not True:
        click.echo("The new files are refused; the relay goes on with the old ones.", err=True)
        ctx.exit(1)
    click.echo("The relay has read its files again.")


def _call(state_dir: Path, request: Request) -> dict[str, object]:
    try:
        return call(state_dir, request)
    except (NoRelay, CallFailed) as error:
        raise click.ClickException(str(error)) from None


def _running(state_dir: Path) -> bool:
    try:
        return is_held(state_dir)
    except LockFailed as error:
        raise click.ClickException(str(error)) from None
