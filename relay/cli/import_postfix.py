"""``dane-relay import-postfix``: a Postfix configuration becomes relay.toml, and what has no counterpart is named."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from relay.app import system_hostname
from relay.importing.afterwards import look_at_files
from relay.importing.translate import translate

_NOT_FINE = 1


@click.command("import-postfix")
@click.argument("main", metavar="MAIN.CF", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Where to write; standard output without it.",
)
@click.option(
    "--master",
    metavar="MASTER.CF",
    type=click.Path(path_type=Path),
    help="The services; without it the master.cf beside MAIN.CF, if there is one.",
)
def command(main: Path, output: Path | None, master: Path | None) -> None:
    """Write relay.toml from a Postfix configuration: MAIN.CF, and the master.cf beside it.

    Maps are named where they are, not copied. Every parameter that has no counterpart is named with its line, on standard
    error and as a comment in the file. Exit status 1 if something must be looked at before the file does what Postfix did.
    """
    text, hostname = _read(main), system_hostname()
    beside = master or main.with_name("master.cf")
    services = _read(beside) if master or beside.exists() else ""
    draft = translate(text, services, name=str(main), base=main.parent.absolute(), hostname=hostname)
    look_at_files(draft, hostname=hostname)
    document = draft.document(str(main))
    if output is None:
        click.echo(document, nl=False)
    else:
        try:
            with output.open("x") as file:
                file.write(document)
        except OSError as error:
            raise click.ClickException(f"{output}: cannot be written: {error.strerror}") from None
    for remark in draft.remarks:
        click.echo(str(remark), err=True)
    if any(remark.is_error for remark in draft.remarks):
        sys.exit(_NOT_FINE)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="surrogateescape")
    except OSError as error:
        raise click.ClickException(f"{path}: cannot be read: {error.strerror}") from None
