"""``dane-relay finger``: a session with every host and address of a domain, as the relay would have it, without mail."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import uvloop

from relay.app.resolving import CannotResolve
from relay.cli.explain import configuration, open_explainer
from relay.cli.place import TEMPORARY
from relay.config.config import Config
from relay.config.errors import ConfigErrors
from relay.explain.explainer import Rules, parse_destination
from relay.explain.objects import story_object
from relay.explain.seen import Shown, shown
from relay.explain.story import Story
from relay.explain.text import story_lines
from relay.mail.envelope import Address
from relay.mail.names import BadName
from relay.outcome.wording import one_line
from relay.tls.authorities import CaStoreError
from relay.tls.own_certificate import ClientCertificateError


@click.command("finger")
@click.argument("domains", nargs=-1, required=True, metavar="DOMAIN...")
@click.option(
    "-c", "--config", "path", metavar="FILE", type=click.Path(path_type=Path), help="The relay's configuration."
)
@click.option("-v", "--verbose", is_flag=True, help="The whole story, as `explain --live` tells it, of every address.")
@click.option("--json", "as_objects", is_flag=True, help="One JSON object a line and domain, as of `explain --json`.")
def command(domains: Sequence[str], path: Path | None, *, verbose: bool, as_objects: bool) -> None:
    """Connect to every MX host and address of a DOMAIN as the relay would, judge the session and stop before MAIL.

    Exit status: 0 only if every one of them meets the policy, 75 if nothing but failed look-ups stands in the way of the
    others, else 1.
    """
    try:
        addresses = [parse_destination(text) for text in domains]
    except BadName as error:
        raise click.UsageError(f"{error}; expected a domain, [address] or mail address") from None
    try:
        stories = uvloop.run(_finger(addresses, configuration(path)))
    except (CaStoreError, CannotResolve, ClientCertificateError, ConfigErrors) as error:
        raise click.ClickException(str(error)) from None
    for story in stories:
        found = shown(story)
        if as_objects:
            click.echo(json.dumps({**story_object(story), "met": _all_met(found)}))
            continue
        for line in story_lines(story) if verbose else _lines(story, found):
            click.echo(line)
    everything = [one for story in stories for one in shown(story)]
    failures = [one for one in everything if not one.met]
    if not everything or not all(one.temporary for one in failures):
        sys.exit(1)
    sys.exit(TEMPORARY if failures else 0)


def _all_met(found: Sequence[Shown]) -> bool:
    return bool(found) and all(one.met for one in found)


def _lines(story: Story, found: Sequence[Shown]) -> list[str]:
    met = sum(one.met for one in found)
    lines = [
        f"{story.recipient.domain}: {met} of {len(found)} {'address' if len(found) == 1 else 'addresses'} meet the policy"
    ]
    for one in found:
        level = f" {one.level}" if one.level else ""
        word = f" {one.word}" if one.word else ""
        lines.append(one_line(f"  {'met' if one.met else 'NOT'} {one.where}{level}{word}: {one.text}"))
    return lines


async def _finger(addresses: Sequence[Address], config: Config) -> Sequence[Story]:
    def without_limits(rules: Rules) -> Rules:
        return replace(rules, options=replace(rules.options, mx_address_limit=0, mx_session_limit=0))

    async with open_explainer(config, without_limits) as explainer:
        return [await explainer.explain(address, live=True, everywhere=True) for address in addresses]
