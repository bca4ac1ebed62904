"""``dane-relay explain``: what would become of mail to a destination now, and why."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click
import uvloop

from relay.app import system_hostname
from relay.app.options import delivery_options
from relay.app.resolving import CannotResolve, open_resolving
from relay.app.rules import read_rules
from relay.cli.ledger import ask, errors_for_people
from relay.cli.place import TEMPORARY
from relay.config.config import Config
from relay.config.errors import ConfigErrors
from relay.config.load import load, read
from relay.delivery.delivery import Policies
from relay.dns.anchor import FILE_NAME
from relay.explain.explainer import Explainer, Rules, parse_destination
from relay.explain.objects import story_object
from relay.explain.story import Story, WouldFail
from relay.explain.text import story_lines
from relay.ledger.commands import RATCHET, best_of
from relay.log.events import Event
from relay.mail.envelope import Address
from relay.mail.names import BadName, Domain
from relay.policy.ratchet import UNSEEN, Ratchet
from relay.tls.authorities import CaStoreError
from relay.tls.own_certificate import ClientCertificateError


@click.command("explain")
@click.argument("destinations", nargs=-1, required=True, metavar="DOMAIN...")
@click.option(
    "-c",
    "--config",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The relay's configuration; without it the defaults hold.",
)
@click.option("--sender", metavar="ADDRESS", help="Who the mail is from, where routes or credentials go by the sender.")
@click.option("--live", is_flag=True, help="Open sessions and judge them, as a delivery would; they end before MAIL.")
@click.option("--json", "as_objects", is_flag=True, help="One JSON object a line and destination.")
def command(
    destinations: Sequence[str], path: Path | None, sender: str | None, *, live: bool, as_objects: bool
) -> None:
    """Say what would become of mail to a DOMAIN (or address) now, and why.

    Walks through a delivery: the line of the policy map, MX hosts, addresses and TLSA records with their DNSSEC status, the
    level for each host, with --live the session and its verdict, and the log line and report that would come of it.

    Exit status: 0 if mail could go as the policy demands (or its route discards it), 1 if it would be deferred or bounced,
    75 if it would only be deferred because look-ups failed.
    """
    addresses = [_destination(text) for text in destinations]
    if sender is not None and "@" not in sender:
        raise click.UsageError(f"--sender {sender}: expected a mail address")
    try:
        stories = uvloop.run(
            _explain(addresses, configuration(path), live=live, sender=_destination(sender) if sender else None)
        )
    except (CaStoreError, CannotResolve, ClientCertificateError, ConfigErrors) as error:
        raise click.ClickException(str(error)) from None
    for number, story in enumerate(stories):
        if as_objects:
            click.echo(json.dumps(story_object(story)))
            continue
        if number:
            click.echo()
        for line in story_lines(story):
            click.echo(line)
    sys.exit(exit_status(stories))


def exit_status(stories: Sequence[Story]) -> int:
    """That of the worst: 1 before 75 before 0."""
    failures = [story.ending for story in stories if isinstance(story.ending, WouldFail)]
    if not all(each.lookups_only for each in failures):
        return 1
    return TEMPORARY if failures else 0


def _destination(text: str) -> Address:
    try:
        return parse_destination(text)
    except BadName as error:
        raise click.UsageError(f"{error}; expected a domain, [address] or mail address") from None


def configuration(path: Path | None) -> Config:
    """The configuration of ``-c``, or the defaults.

    :raises ConfigErrors: with all that is wrong with it.
    """
    if path is not None:
        return load(path, os.environ, hostname=system_hostname())
    return read("", name="the defaults", base=Path.cwd(), environ=os.environ, hostname=system_hostname())


async def _explain(
    addresses: Sequence[Address], config: Config, *, live: bool, sender: Address | None
) -> Sequence[Story]:
    async with open_explainer(config) as explainer:
        return [await explainer.explain(address, live=live, sender=sender) for address in addresses]


@asynccontextmanager
async def open_explainer(
    config: Config, adjust: Callable[[Rules], Rules] = lambda rules: rules
) -> AsyncIterator[Explainer]:
    """Walks under a configuration, with whatever is to be different from a delivery."""
    rules = read_rules(config)
    with tempfile.TemporaryDirectory(prefix="dane-relay-explain-") as directory:
        async with open_resolving(_looking_on(config, Path(directory)), _ignore) as resolving:
            yield Explainer(
                rules=adjust(
                    Rules(
                        policies=_with_ratchet(config, rules.policies),
                        router=rules.router,
                        options=delivery_options(config),
                        context_for=rules.context_for,
                        check_chain=rules.check_chain,
                        hostname=Domain.parse(config.relay.myhostname),
                        tls_feature_status=config.smtp.log_tls_feature_status,
                    )
                ),
                resolver=resolving.resolver,
                validation=resolving.probe.current,
                clock=lambda: datetime.now(UTC),
                monotonic=time.monotonic,
            )


def _with_ratchet(config: Config, policies: Policies) -> Policies:
    """What the ratchet holds, from the running relay or, without one, from its file."""
    if policies.ratchet is Ratchet.OFF:
        return policies
    with errors_for_people():
        marks = {str(one["destination"]): best_of(one) for one in ask(config.relay.state_dir, RATCHET, "")}
    return replace(policies, best=lambda destination: marks.get(destination, UNSEEN))


def _looking_on(config: Config, directory: Path) -> Config:
    """The configuration with a state directory of its own: whoever asks neither writes to the relay's nor needs to.

    The trust anchor that the relay follows comes along, where it can be read.
    """
    kept = config.relay.state_dir / FILE_NAME
    if os.access(kept, os.R_OK):
        shutil.copyfile(kept, directory / FILE_NAME)
    return replace(config, relay=config.relay.model_copy(update={"state_dir": directory}))


def _ignore(event: Event) -> None:
    del event  # the story tells what a log would
