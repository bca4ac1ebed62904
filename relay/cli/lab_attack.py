"""``dane-relay lab attack`` and ``lab heal``: harm a destination of a running lab, and make it well again."""

from __future__ import annotations

import time
from pathlib import Path

import click

from relay.lab.attacks import Attack, Attacks, Board
from relay.lab.real.layout import PLAN_FILE, read_layout
from relay.lab.real.plan import Server
from relay.lab.scenarios import DESTINATIONS

PATIENCE_SECONDS = 10.0
_LAB = click.option(
    "--lab",
    "directory",
    required=True,
    envvar="LAB_DIRECTORY",
    type=click.Path(path_type=Path, exists=True),
    help="The running lab's directory; it says so at start.",
)
_MEANINGS = "; ".join(f"{attack.value}: {attack.meaning}" for attack in Attack)


@click.command("attack", help=f"Harm a destination of a running lab. {_MEANINGS}.")
@click.argument("kind", type=click.Choice([attack.value for attack in Attack]))
@click.argument("destination")
@_LAB
def attack(kind: str, destination: str, directory: Path) -> None:
    """Harm a destination of a running lab."""
    wanted = Attack(kind)
    name = _name(destination)
    _refuse_real(directory, name, wanted)
    board = Board(directory)
    _have(board, {**board.wanted(), name: wanted})
    click.echo(f"{name}.lab.test is under attack: {wanted.meaning}. dane-relay lab heal {name} ends it.")


@click.command("heal")
@click.argument("destination")
@_LAB
def heal(destination: str, directory: Path) -> None:
    """Make a destination of a running lab well again."""
    name, board = _name(destination), Board(directory)
    wanted = board.wanted()
    if name not in wanted:
        raise click.ClickException(f"{name}.lab.test is not under attack")
    _have(board, {one: attack for one, attack in wanted.items() if one != name})
    click.echo(f"{name}.lab.test is well again; what waits goes out at its next attempt.")


def _name(destination: str) -> str:
    name = destination.rpartition("@")[2].removesuffix(".lab.test")
    if name not in {one.name for one in DESTINATIONS}:
        raise click.ClickException(f"{destination} is no destination of the lab; dane-relay lab --once lists them")
    return name


def _refuse_real(directory: Path, name: str, wanted: Attack) -> None:
    """Hosts run by real servers do not change at our word; their zones do."""
    if wanted is Attack.BOGUS or not (directory / PLAN_FILE).exists():
        return
    plan = read_layout(directory).plan
    (one,) = (one for one in DESTINATIONS if one.name == name)
    real = {host.name: plan.servers[host.name] for host in one.hosts if plan.servers[host.name] is not Server.SCRIPTED}
    for host, server in real.items():
        raise click.ClickException(
            f"{host} is run by {server.value}, which the lab cannot make misbehave; bogus can be had there, and the others"
            " at a destination that the lab plays itself, such as full-key"
        )


def _have(board: Board, attacks: Attacks) -> None:
    """Say what is wanted, and wait until it is so."""
    try:
        board.want(attacks)
    except OSError as error:
        raise click.ClickException(f"{board.directory}: {error.strerror}") from None
    until = time.monotonic() + PATIENCE_SECONDS
    while board.done() != attacks:
        if time.monotonic() > until:
            raise click.ClickException(f"nobody plays the lab in {board.directory}: is it still running?")
        time.sleep(0.05)  # a file tells nobody when it changes
