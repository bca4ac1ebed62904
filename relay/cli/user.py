"""``dane-relay user``: who may log in at the front door."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from pathlib import Path

import click

from relay.cli.place import find_place
from relay.config.errors import ConfigErrors
from relay.config.users import change_users, load_users
from relay.sasl.secret import Secret
from relay.sasl.users import MAX_PASSWORD, SALT_OCTETS, SECRET_OCTETS, BadUser, check_name, new_user, with_user
from relay.sasl.users import without_user as text_without_user

_CONFIG = click.option(
    "-c", "--config", required=True, metavar="FILE", type=click.Path(path_type=Path), help="The relay's configuration."
)


@click.group("user")
def command() -> None:
    """Look at and change `smtpd.users_file`. The running relay takes a change by itself, within seconds."""


@command.command("add")
@click.argument("name")
@_CONFIG
def add(name: str, config: Path) -> None:
    """Add a user, or change the password of one.

    The password is asked for on a terminal; otherwise it is the first line of the standard input.
    """
    path = _file(config)
    try:
        check_name(name)
        salts = (secrets.token_bytes(SALT_OCTETS), secrets.token_bytes(SALT_OCTETS))
        user = new_user(name, _password(), salts)
    except BadUser as error:
        raise click.ClickException(str(error)) from None
    _change(path, lambda text: with_user(text, user, secrets.token_bytes(SECRET_OCTETS)))
    click.echo(f"{path}: {name} may log in")


@command.command("remove")
@click.argument("name")
@_CONFIG
def remove(name: str, config: Path) -> None:
    """Remove a user; sessions that have logged in already go on to their end."""
    path = _file(config)
    if name not in _names(path):
        raise click.ClickException(f"{path}: there is no user {name}")
    _change(path, lambda text: text_without_user(text, name))
    click.echo(f"{path}: {name} may no longer log in")


@command.command("list")
@_CONFIG
def show(config: Path) -> None:
    """The names of all users, in the order of the file."""
    for name in _names(_file(config)):
        click.echo(name)


def _file(config: Path) -> Path:
    named = find_place(config, None).config.smtpd.users_file
    if not named:
        raise click.ClickException(f"{config}: smtpd.users_file is not set; name the file there first")
    return Path(named)


def _names(path: Path) -> tuple[str, ...]:
    try:
        users = load_users(str(path))
    except ConfigErrors as errors:
        raise click.ClickException(str(errors)) from None
    return tuple(users.by_name) if users else ()


def _password() -> Secret:
    if sys.stdin.isatty():
        return Secret(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    line = sys.stdin.readline(MAX_PASSWORD + 2)
    return Secret(line.removesuffix("\n").removesuffix("\r"))


def _change(path: Path, change: Callable[[str], str]) -> None:
    try:
        change_users(path, change)
    except OSError as error:
        raise click.ClickException(f"{path}: cannot be changed: {error.strerror}") from None
