"""``dane-relay policy audit`` and ``policy ratchet``: what is remembered of destinations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from relay.cli.place import TemporaryFailure, find_place, place_options
from relay.control import client
from relay.control.lock import Held, LockFailed, hold
from relay.control.merging import ledgers
from relay.control.protocol import Item, LedgerAsk
from relay.ledger.commands import AUDITS, FORGET_AUDITS, FORGET_MARK, RATCHET, answer, best_of
from relay.ledger.file import FILE_NAME, LedgerFile, LedgerUnavailable
from relay.ledger.findings import AuditCount, count_object, count_of, totals
from relay.outcome.wording import one_line
from relay.policy.audit import Finding

_NOT_VERIFIED = (Finding.REFUSED, Finding.UNKNOWN, Finding.UNPROVED)


@click.command("audit")
@click.argument("destinations", nargs=-1, metavar="[DESTINATION]...")
@place_options
@click.option("--json", "as_objects", is_flag=True, help="One JSON object a line: a destination and level.")
@click.option("--forget", is_flag=True, help="Begin anew for these destinations, or for all.")
@click.pass_context
def audit_command(
    ctx: click.Context,
    destinations: Sequence[str],
    config: Path | None,
    state_dir: Path | None,
    *,
    as_objects: bool,
    forget: bool,
) -> None:
    """Say what audited levels (audit= on policy lines, smtp.tls_audit_level) would have done, and why.

    Exit status 1 if some sessions would have been held back.
    """
    directory = find_place(config, state_dir).state_dir
    with errors_for_people():
        if forget:
            dropped = [ask(directory, FORGET_AUDITS, each) for each in destinations or ("",)]
            number = sum(int(str(one["forgotten"])) for items in dropped for one in items)
            click.echo(f"{number} {'count' if number == 1 else 'counts'} forgotten.")
            return
        found = [count_of(one) for each in destinations or ("",) for one in ask(directory, AUDITS, each)]
    if as_objects:
        for count in found:
            click.echo(json.dumps(count_object(count)))
    else:
        for line in audit_lines(found):
            click.echo(line)
    if any(count.counts.get(each, 0) for count in found for each in (Finding.REFUSED, Finding.UNKNOWN)):
        ctx.exit(1)


@click.group("ratchet")
def ratchet_command() -> None:
    """The best level that was seen at each destination (smtp.tls_ratchet)."""


@ratchet_command.command("list")
@click.argument("destinations", nargs=-1, metavar="[DESTINATION]...")
@place_options
@click.option("--json", "as_objects", is_flag=True, help="One JSON object a line.")
def ratchet_list(destinations: Sequence[str], config: Path | None, state_dir: Path | None, *, as_objects: bool) -> None:
    """Say what is remembered."""
    directory = find_place(config, state_dir).state_dir
    with errors_for_people():
        found = [one for each in destinations or ("",) for one in ask(directory, RATCHET, each)]
    for one in found:
        if as_objects:
            click.echo(json.dumps(one))
            continue
        best = best_of(one)
        told = f"{one['destination']}: {best.mark.words}, first on {best.since} at {best.host}, last on {best.last}"
        click.echo(one_line(told))
    if not found and not as_objects:
        click.echo("Nothing is remembered.")


@ratchet_command.command("forget")
@click.argument("destinations", nargs=-1, required=True, metavar="DESTINATION...")
@place_options
@click.pass_context
def ratchet_forget(
    ctx: click.Context, destinations: Sequence[str], config: Path | None, state_dir: Path | None
) -> None:
    """Begin anew for a destination that gave up what it had. Exit status 1 if nothing was remembered of one."""
    directory = find_place(config, state_dir).state_dir
    missing = False
    with errors_for_people():
        for destination in destinations:
            answered = ask(directory, FORGET_MARK, destination)
            known = any(int(str(one["forgotten"])) for one in answered)
            missing = missing or not known
            click.echo(one_line(f"{destination}: {'forgotten' if known else 'nothing was remembered'}"))
    if missing:
        ctx.exit(1)


def audit_lines(counts: Sequence[AuditCount]) -> Iterator[str]:
    """The report for people."""
    if not counts:
        yield "No session was audited: write audit=dane on lines of a policy map, or set smtp.tls_audit_level."
        return
    width = max(len(count.destination) for count in counts)
    for count in counts:
        told = f"{count.verified} of {count.sessions} {'session' if count.sessions == 1 else 'sessions'} would verify"
        yield one_line(f"{count.destination:<{width}}  {count.level:<9}  {told}")
        for finding in _NOT_VERIFIED:
            number, why = count.counts.get(finding, 0), count.why.get(finding)
            if number and why is not None:
                last = "" if number == 1 else ", last"
                yield one_line(f"  {number} {finding.value}{last} at {why.host}: {why.text}")
    verified, sessions, whole, destinations = totals(counts)
    yield f"{verified} of {sessions} sessions would verify; at {whole} of {destinations} destinations all would."


def ask(state_dir: Path, command: str, destination: str) -> Sequence[Mapping[str, object]]:
    """Ask the running relay; where none runs, lock its state directory and open the file.

    :raises NoRelay: never; what else goes wrong passes through, for ``errors_for_people``.
    """
    try:
        answers = client.converse(state_dir, LedgerAsk(command, destination))
        return [dict(each.value) for each in answers if isinstance(each, Item)]
    except client.NoRelay:
        pass
    with hold(state_dir):
        # Asking makes no file: it would belong to whoever asked.
        paths = [
            path for path in (state_dir / FILE_NAME, *sorted(state_dir.glob(f"worker-*/{FILE_NAME}"))) if path.exists()
        ]
        found = [_answer(path, command, destination) for path in paths]
    return found[0] if len(found) == 1 else ledgers(command, found) if found else []


def _answer(path: Path, command: str, destination: str) -> Sequence[Mapping[str, object]]:
    file = LedgerFile(path)
    try:
        return answer(file, command, destination)
    finally:
        file.close()


@contextmanager
def errors_for_people() -> Iterator[None]:
    """Errors of the ledger, the lock and the control socket as messages of the command."""
    try:
        yield
    except Held as error:
        raise TemporaryFailure(str(error)) from None
    except (LockFailed, LedgerUnavailable, client.CallFailed) as error:
        raise click.ClickException(str(error)) from None
