"""``dane-relay check``: everything that is wrong with a configuration, at once, with file and line."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from pathlib import Path

import click

from relay.config.check import check


@click.command("check")
@click.option(
    "-c",
    "--config",
    "path",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The configuration, as for `serve`.",
)
@click.pass_context
def command(ctx: click.Context, path: Path) -> None:
    """Validate a configuration and all it names: policy maps, certificates and keys, directories.

    Each error is one line on standard error: FILE:LINE, what is wrong and what to do. Exit status 1 if there is any.
    """
    report = check(path, os.environ, hostname=socket.getfqdn(), now=datetime.now(UTC))
    for warning in report.warnings:
        click.echo(f"{warning.place}: warning: {warning.message}", err=True)
    for error in report.errors:
        click.echo(str(error), err=True)
    if report.errors:
        ctx.exit(1)
    for line in report.read:
        click.echo(line)
    click.echo("All is well.")
