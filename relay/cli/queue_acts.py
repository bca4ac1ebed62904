"""``dane-relay queue flush|hold|release|requeue|delete|bounce``: what is done to queued mail."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from relay.cli.place import Place, find_place, place_options
from relay.cli.queue_asking import ask, checked_filter, errors_for_people
from relay.control.protocol import (
    MAX_REASON,
    Done,
    HoldRuleAdd,
    HoldRuleRemove,
    HoldRules,
    Item,
    QueueAct,
    Underway,
)
from relay.outcome.wording import one_line
from relay.policy.override import OVERRIDABLE
from relay.queue.administration import Verb
from relay.queue.filter import fits_arrivals, ids_of
from relay.queue.filter_text import EVERYTHING, parse_filter

Function = TypeVar("Function", bound=Callable[..., Any])

_DONE: Mapping[Verb, str] = {
    Verb.FLUSH: "to be tried now",
    Verb.HOLD: "placed on hold",
    Verb.RELEASE: "released from hold",
    Verb.REQUEUE: "requeued",
    Verb.DELETE: "deleted",
    Verb.BOUNCE: "returned to sender",
}


def _options(function: Function) -> Function:
    """What every act takes."""
    function = click.argument("where", nargs=-1, metavar="FILTER...")(function)
    function = click.option("--json", "as_objects", is_flag=True, help="The result as one JSON object.")(function)
    function = click.option("--dry-run", is_flag=True, help="Only count what the filter means.")(function)
    return place_options(function)


def _reason_option(function: Function) -> Function:
    return click.option("--reason", default="", metavar="TEXT", help="Why; it is logged.", callback=_one_line)(function)


def _one_line(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    del ctx, parameter
    if len(value) > MAX_REASON or not value.isprintable():
        raise click.BadParameter(f"expected one line of at most {MAX_REASON} characters")
    return value


@click.command("flush")
@_options
def flush(
    *, config: Path | None, state_dir: Path | None, where: tuple[str, ...], dry_run: bool, as_objects: bool
) -> None:
    """Try mail now; without a filter, everything. What is held stays so."""
    text = checked_filter(where or (EVERYTHING,))
    _run(find_place(config, state_dir), QueueAct(verb="flush", where=text, dry_run=dry_run), as_objects)


@click.command("hold")
@_options
@_reason_option
@click.option("--future", is_flag=True, help="Hold mail that comes in from now on and fits, not what is queued.")
@click.option("--rules", is_flag=True, help="List the rules that --future made.")
@click.option("--remove", type=click.IntRange(min=0), metavar="NUMBER", help="End a rule; what it held stays held.")
def hold(
    *,
    config: Path | None,
    state_dir: Path | None,
    where: tuple[str, ...],
    reason: str,
    future: bool,
    rules: bool,
    remove: int | None,
    dry_run: bool,
    as_objects: bool,
) -> None:
    """Keep mail from being delivered until it is released; it does not expire meanwhile."""
    if future + rules + (remove is not None) > 1 or (where and (rules or remove is not None)):
        raise click.UsageError("say one of FILTER, --future FILTER, --rules and --remove NUMBER")
    if dry_run and (future or rules or remove is not None):
        raise click.UsageError("--dry-run is about queued mail")
    place = find_place(config, state_dir)
    if rules:
        _list_rules(place, as_objects)
    elif remove is not None:
        _remove_rule(place, remove)
    elif future:
        _add_rule(place, checked_filter(where), reason, as_objects)
    else:
        _run(place, QueueAct(verb="hold", where=checked_filter(where), reason=reason, dry_run=dry_run), as_objects)


@click.command("release")
@_options
def release(
    *, config: Path | None, state_dir: Path | None, where: tuple[str, ...], dry_run: bool, as_objects: bool
) -> None:
    """Let held mail be delivered, now."""
    text = checked_filter(where)
    _run(find_place(config, state_dir), QueueAct(verb="release", where=text, dry_run=dry_run), as_objects)


@click.command("requeue")
@_options
@_reason_option
@click.option(
    "--tls-level",
    type=click.Choice(OVERRIDABLE),
    help="The TLS level of this mail alone, instead of what maps and defaults say; needs --reason, and is logged.",
)
def requeue(
    *,
    config: Path | None,
    state_dir: Path | None,
    where: tuple[str, ...],
    reason: str,
    tls_level: str | None,
    dry_run: bool,
    as_objects: bool,
) -> None:
    """Route mail anew and try it now, held or not; without --tls-level, by what maps and defaults say."""
    if tls_level and not reason.strip():
        raise click.UsageError("--tls-level needs --reason: say why this mail does not go by the rules")
    text = checked_filter(where)
    place = find_place(config, state_dir)
    act = QueueAct(verb="requeue", where=text, reason=reason, tls_level=tls_level or "", dry_run=dry_run)
    _run(place, act, as_objects, needs_routes=True)


@click.command("delete")
@_options
@_reason_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(
    *,
    config: Path | None,
    state_dir: Path | None,
    where: tuple[str, ...],
    reason: str,
    yes: bool,
    dry_run: bool,
    as_objects: bool,
) -> None:
    """Delete mail. Nobody is told, and it cannot be undone."""
    place, text = find_place(config, state_dir), checked_filter(where)
    if not dry_run and not yes:
        _confirm(place, QueueAct(verb="delete", where=text, dry_run=True), "is deleted, and no sender is told")
    _run(place, QueueAct(verb="delete", where=text, reason=reason, dry_run=dry_run), as_objects)


@click.command("bounce")
@_options
@_reason_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def bounce(
    *,
    config: Path | None,
    state_dir: Path | None,
    where: tuple[str, ...],
    reason: str,
    yes: bool,
    dry_run: bool,
    as_objects: bool,
) -> None:
    """Give up on mail and return it to its senders, with the reason. It cannot be undone."""
    place, text = find_place(config, state_dir), checked_filter(where)
    if not dry_run and not yes:
        _confirm(place, QueueAct(verb="bounce", where=text, dry_run=True), "is given up and returned to its senders")
    act = QueueAct(verb="bounce", where=text, reason=reason, dry_run=dry_run)
    _run(place, act, as_objects, needs_routes=True)


COMMANDS = (flush, hold, release, requeue, delete, bounce)


def _run(place: Place, act: QueueAct, as_objects: bool, *, needs_routes: bool = False) -> None:
    """Do it, show how far it is, and say what came of it."""
    result = _outcome(place, act, needs_routes=needs_routes and not act.dry_run)
    if as_objects:
        click.echo(json.dumps({"command": act.verb, "dry_run": act.dry_run, **result}))
    else:
        _say(Verb(act.verb), result, dry_run=act.dry_run)
    named = ids_of(parse_filter(act.where)) is not None
    if named and not result.get("messages") and not result.get("busy"):
        click.echo("None of these messages is in the queue, or none is in a state to be changed.", err=True)
        click.get_current_context().exit(1)


def _say(verb: Verb, result: Mapping[str, object], *, dry_run: bool) -> None:
    recipients, messages, busy = (_number(result, key) for key in ("recipients", "messages", "busy"))
    would = "would be" if dry_run else "is" if recipients == 1 else "are"
    click.echo(f"{_count(recipients, 'recipient')} of {_count(messages, 'message')} {would} {_DONE[verb]}.")
    if busy:
        click.echo(
            f"{_count(busy, 'recipient')} {'is' if busy == 1 else 'are'} being delivered right now and"
            f" {'was' if busy == 1 else 'were'} left alone; give the command again later."
        )


def _confirm(place: Place, dry_run: QueueAct, what: str) -> None:
    if not _somebody_is_there():
        raise click.UsageError("this cannot be undone: say --yes to do it, or --dry-run to see how much it means")
    result = _outcome(place, dry_run)
    recipients, messages = _number(result, "recipients"), _number(result, "messages")
    click.confirm(
        f"Mail to {_count(recipients, 'recipient')} of {_count(messages, 'message')} {what}. Go on?",
        abort=True,
        err=True,
    )


def _somebody_is_there() -> bool:
    return sys.stdin.isatty()


def _outcome(place: Place, act: QueueAct, *, needs_routes: bool = False) -> dict[str, object]:
    result: dict[str, object] = {}
    with errors_for_people():
        for answer in ask(place, act, needs_configuration=needs_routes):
            match answer:
                case Underway(value=value) if sys.stderr.isatty():
                    click.echo(f"\r{value.get('looked', 0)} messages looked at ", nl=False, err=True)
                case Done(value=value):
                    result = dict(value)
                case _:
                    pass
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
    return result


def _list_rules(place: Place, as_objects: bool) -> None:
    with errors_for_people():
        rules = [answer.value for answer in ask(place, HoldRules()) if isinstance(answer, Item)]
    for rule in rules:
        if as_objects:
            click.echo(json.dumps(rule))
            continue
        why = f": {rule.get('reason')}" if rule.get("reason") else ""
        click.echo(
            one_line(f"{rule.get('number')}  {rule.get('filter')}  (by {rule.get('by')} at {rule.get('at')}{why})")
        )
    if not rules and not as_objects:
        click.echo("Mail that comes in is not held.")


def _add_rule(place: Place, text: str, reason: str, as_objects: bool) -> None:
    if not fits_arrivals(parse_filter(text)):
        raise click.UsageError("of mail that comes in, only domain, rcpt, sender, destination and size are known")
    with errors_for_people():
        (rule,) = (answer.value for answer in ask(place, HoldRuleAdd(text, reason)) if isinstance(answer, Done))
    number = rule.get("number")
    click.echo(
        json.dumps(rule) if as_objects else f"Rule {number}: what comes in and fits is held; --remove {number} ends it."
    )


def _remove_rule(place: Place, number: int) -> None:
    with errors_for_people():
        (result,) = (answer.value for answer in ask(place, HoldRuleRemove(number)) if isinstance(answer, Done))
    if result.get("removed") is not True:
        raise click.ClickException(f"there is no rule {number}; --rules lists them")
    click.echo(f"Rule {number} is ended; what it held stays held.")


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _number(result: Mapping[str, object], key: str) -> int:
    value = result.get(key, 0)
    return value if isinstance(value, int) else 0
