"""``dane-relay policy``: look through policy maps, and see what changes between two of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from relay.app import system_hostname
from relay.cli.ledger import audit_command, ratchet_command
from relay.cli.place import find_place
from relay.cli.queue_asking import ask, errors_for_people
from relay.config.config import Config, policy_defaults
from relay.config.credentials import load_credential_maps
from relay.config.errors import ConfigErrors
from relay.config.load import load, read
from relay.config.maps import load_policy_maps, map_path
from relay.control.client import entries
from relay.control.protocol import QueueList
from relay.mail.names import BadName, NextHop
from relay.outcome.wording import one_line
from relay.policy.diff import Applied, Change, diff
from relay.policy.lint import LintedMap, Remark, Surroundings, lint
from relay.policy.table import PolicyTables
from relay.sasl.passwords import CredentialTables

_CONFIG = click.option(
    "-c",
    "--config",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The relay's configuration; without it the defaults hold.",
)
_JSON = click.option("--json", "as_objects", is_flag=True, help="One JSON object a line.")


@click.group("policy")
def command() -> None:
    """Look through policy maps before the relay reads them, and at what audited levels would do."""


@command.command("lint")
@click.argument("maps", nargs=-1, required=True, metavar="FILE...")
@_CONFIG
@_JSON
@click.pass_context
def lint_command(ctx: click.Context, maps: Sequence[str], path: Path | None, *, as_objects: bool) -> None:
    """Name every line that does not do what it seems to, and what could be better.

    FILEs are tried in this order, as in smtp.tls_policy_maps. Exit status 1 if there is an error; advice is none.
    """
    config = _configuration(path)
    tables = _read_maps(maps)
    around = Surroundings(
        defaults=policy_defaults(config),
        now=datetime.now(UTC),
        # What maps of routes name is not looked at: then no key counts as unreachable.
        routes_known=path is not None
        and not (config.smtp.transport_maps or config.smtp.sender_dependent_relayhost_maps),
        relay_hosts=config.relay_hosts,
        fallback=config.fallback_relays,
        anchors={name: _octets(Path(name)) for name in tables.tafiles},
        credentials=_credentials(config),
    )
    texts = (_text(map_path(spec, Path.cwd())) for spec in maps)
    remarks = lint([LintedMap(table, text) for table, text in zip(tables.tables, texts, strict=True)], around)
    for remark in remarks:
        click.echo(json.dumps(_remark_object(remark)) if as_objects else one_line(str(remark)))
    errors = sum(remark.is_error for remark in remarks)
    if not as_objects:
        entries = sum(len(table.source) for table in tables.tables)
        click.echo(f"{_count(entries, 'entry', 'entries')}: {_count(errors, 'error')}, {len(remarks) - errors} advice.")
    if errors:
        ctx.exit(1)


def _credentials(config: Config) -> CredentialTables:
    smtp = config.smtp
    try:
        return load_credential_maps(smtp.sasl_password_maps, smtp.sasl_token_maps, config.base, by_sender=False)
    except ConfigErrors as errors:
        raise click.ClickException(str(errors)) from None


@command.command("diff")
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.option(
    "--against",
    type=click.Choice(["queue"]),
    help="Look also at every destination that mail is queued for now; needs -c.",
)
@_CONFIG
@_JSON
@click.pass_context
def diff_command(
    ctx: click.Context, old: str, new: str, against: str | None, path: Path | None, *, as_objects: bool
) -> None:
    """Say for which destinations the policy changes from OLD to NEW, and where it becomes weaker.

    Exit status 1 if anything becomes weaker or malformed.
    """
    if against and path is None:
        raise click.UsageError("--against queue needs -c FILE, to know whose queue")
    config = _configuration(path)
    queued = tuple(_queued(path)) if against else ()
    before, after = _read_maps([old]), _read_maps([new])
    for table in (*before.tables, *after.tables):
        if len(table.source) and not table.source.keys():
            about = "names no destinations; only those of the other map and of the queue (--against queue) are compared"
            click.echo(one_line(f"{table.name}: {about}"), err=True)
    changes = diff(before, after, policy_defaults(config), queued, now=datetime.now(UTC))
    for change in changes:
        if as_objects:
            click.echo(json.dumps(_change_object(change)))
            continue
        for line in _change_lines(change):
            click.echo(one_line(line))
    weaker = sum(bool(change.weaker) for change in changes)
    malformed = sum(change.becomes_malformed for change in changes)
    if not as_objects:
        click.echo(
            f"{_count(len(changes), 'destination')}: {weaker} weaker, {malformed} malformed."
            if changes
            else "Nothing changes."
        )
    if weaker or malformed:
        ctx.exit(1)


def _configuration(path: Path | None) -> Config:
    try:
        if path is not None:
            return load(path, os.environ, hostname=system_hostname())
        return read("", name="the defaults", base=Path.cwd(), environ=os.environ, hostname=system_hostname())
    except ConfigErrors as errors:
        raise click.ClickException(str(errors)) from None


def _read_maps(specs: Sequence[str]) -> PolicyTables:
    try:
        return load_policy_maps(specs, Path.cwd())
    except ConfigErrors as errors:
        raise click.ClickException(str(errors)) from None


def _text(path: Path | None) -> str:
    return _octets(path).decode(errors="surrogateescape") if path else ""


def _octets(path: Path) -> bytes:
    """The file's content; none where it cannot be read, which reading the map has told already."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _queued(config: Path | None) -> Iterator[NextHop]:
    """The next-hops of every waiting delivery, each as often as it occurs."""
    with errors_for_people():
        for entry in entries(ask(find_place(config, None), QueueList())):
            recipients = entry.get("recipients")
            for recipient in recipients if isinstance(recipients, list) else ():
                # Next-hops that are tried in turn are one destination (relay.delivery.route).
                for text in str(recipient.get("destination", "")).split(", "):
                    try:
                        yield NextHop.parse(text, default_port=25)
                    except BadName:
                        continue  # a route that ends the mail has no next-hop, and no TLS policy


def _remark_object(remark: Remark) -> dict[str, object]:
    file, _, line = remark.place.rpartition(":")
    return {
        "file": file,
        "line": int(line),
        "severity": "error" if remark.is_error else "advice",
        "check": remark.check.value,
        "text": remark.text,
    }


def _change_object(change: Change) -> dict[str, object]:
    return {
        "destination": change.destination,
        "changes": list(change.aspects),
        "weaker": list(change.weaker),
        "malformed": change.becomes_malformed,
        "queued": change.queued,
        "before": _applied_object(change.before),
        "after": _applied_object(change.after),
    }


def _applied_object(applied: Applied) -> dict[str, object]:
    return asdict(applied) | {"rule": applied.rule.place}


def _change_lines(change: Change) -> Iterator[str]:
    before, after = change.before, change.after
    level = before.level if before.level == after.level else f"{before.level} -> {after.level}"
    mark = " WEAKER" if change.weaker else ""
    mark += " MALFORMED" if change.becomes_malformed else ""
    queued = f" ({_count(change.queued, 'queued delivery', 'queued deliveries')})" if change.queued else ""
    yield f"{change.destination}: {level}{mark}{queued}"
    yield f"  rule  {before.rule} -> {after.rule}"
    for aspect in change.aspects:
        if aspect not in {"level", "rule"}:
            yield f"  {aspect}  {_shown(before, aspect)} -> {_shown(after, aspect)}"
    for reason in change.weaker:
        yield f"  weaker  {reason}"


def _shown(applied: Applied, aspect: str) -> str:
    value = getattr(applied, aspect)
    return (" ".join(value) if isinstance(value, tuple) else value) or "(none)"


def _count(number: int, one: str, more: str = "") -> str:
    return f"{number} {one if number == 1 else more or f'{one}s'}"


command.add_command(audit_command)
command.add_command(ratchet_command)
