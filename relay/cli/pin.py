"""``dane-relay pin``: fingerprints for the policy map: taken from live hosts, compared with them, rolled over."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from relay.app.resolving import CannotResolve
from relay.cli.explain import configuration, open_explainer
from relay.cli.place import TEMPORARY
from relay.config.config import Config
from relay.config.errors import ConfigErrors
from relay.delivery.route import Router
from relay.explain.explainer import Rules
from relay.explain.seen import Shown, shown
from relay.mail.envelope import Address
from relay.mail.names import BadName, NextHop
from relay.maps.notation import MapSpec
from relay.outcome.wording import one_line
from relay.policy.level import Level
from relay.policy.notation import parse_fingerprint
from relay.policy.pins import CannotPin, PinnedLine, find_pinned, line_of, pinned_lines, with_pins, written
from relay.policy.policy import MapEntry, Rule, TlsParameters
from relay.policy.table import PolicyTable, parse_table
from relay.tls.authorities import CaStoreError
from relay.tls.own_certificate import ClientCertificateError
from relay.tls.peer import CertFacts

_NOTICE = timedelta(days=14)
_CONFIG = click.option(
    "-c", "--config", "path", metavar="FILE", type=click.Path(path_type=Path), help="The relay's configuration."
)
_CERTIFICATE = click.option(
    "--certificate", is_flag=True, help="Pin the certificate, not its public key; each renewal changes it."
)


@click.group("pin")
def command() -> None:
    """Fingerprints for the policy map: of public keys, which outlive their certificates.

    Sessions are those of a delivery at level fingerprint and end before MAIL.
    """


@command.command("capture")
@click.argument("hosts", nargs=-1, required=True, metavar="HOST[:PORT]...")
@_CONFIG
@_CERTIFICATE
@click.option("--into", "target", type=click.Path(path_type=Path), metavar="MAP", help="Append the lines to this map.")
@click.pass_context
def capture(
    ctx: click.Context, hosts: Sequence[str], path: Path | None, target: Path | None, *, certificate: bool
) -> None:
    """Print a map line with what every address of HOST shows now. HOST is a next-hop: a domain (its MX hosts) or [host].

    What is shown now is not proved by anything: compare it with what the operator says. Exit status 1 if an address
    showed nothing.
    """
    with errors_for_people():
        config = configuration(path)
        hops = [_next_hop(host, config) for host in hosts]
        seen = uvloop.run(look(config, hops, {}))
        complete = True
        for hop in hops:
            found = seen[hop]
            pins = tuple(dict.fromkeys(_pin(config, each.leaf[0], certificate) for each in found if each.leaf))
            for line in _captured(found):
                click.echo(line)
            complete = complete and bool(pins) and all(each.leaf for each in found)
            if pins:
                click.echo(line_of(hop.key, pins))
                if target is not None:
                    _append(target, _captured(found), hop.key, pins)
    if not complete:
        ctx.exit(1)


@command.command("verify")
@click.argument("maps", nargs=-1, required=True, metavar="MAP...")
@_CONFIG
@click.pass_context
def verify(ctx: click.Context, maps: Sequence[str], path: Path | None) -> None:
    """Compare every line at level fingerprint with its hosts. Exit status 1 if a host shows none of its line's pins."""
    with errors_for_people():
        config = configuration(path)
        lines = [line for spec in maps for line in pinned_lines(_read(_map_path(spec))[1])]
        hops = {line.key: NextHop.parse(line.key, default_port=config.smtp.port) for line in lines if _has_host(line)}
        parameters = {hops[line.key]: line.entry.parameters for line in lines if line.key in hops}
        seen = uvloop.run(look(config, list(hops.values()), parameters))
        good = True
        for line in lines:
            click.echo(f"{line.entry.rule.place}: {line.key}")
            if line.key not in hops:
                click.echo("  not compared: the key names no host")
                continue
            good = _compared(config, line, seen[hops[line.key]]) and good
    if not good:
        ctx.exit(1)


@command.command("rotate")
@click.argument("target", metavar="MAP")
@click.argument("key")
@_CONFIG
@_CERTIFICATE
@click.option("--new", "news", multiple=True, metavar="DIGEST|FILE", help="The new pin; else what the hosts show now.")
@click.option("--finish", is_flag=True, help="Second step: drop the pins that no host shows any more.")
@click.option("--dry-run", is_flag=True, help="Say what would be written.")
def rotate(
    target: str, key: str, path: Path | None, news: Sequence[str], *, certificate: bool, finish: bool, dry_run: bool
) -> None:
    """Roll a pin over: first the new one beside the old; when every host shows it, --finish drops the old."""
    with errors_for_people():
        config = configuration(path)
        file = _map_path(target)
        text, table = _read(file)
        line = find_pinned(table, key)
        if news and finish:
            raise click.UsageError("--new is for the first step, --finish for the second")
        if news:
            pins = tuple(dict.fromkeys((*line.pins, *(_given(config, new, certificate) for new in news))))
        else:
            if not _has_host(line):
                raise CannotPin(f"{line.entry.rule.place}: {line.key} names no host: give the new pin with --new")
            hop = NextHop.parse(line.key, default_port=config.smtp.port)
            seen = uvloop.run(look(config, [hop], {hop: line.entry.parameters}))[hop]
            pins = _finished(config, line, seen) if finish else _widened(config, line, seen, certificate)
        _told(line, pins)
        if pins != line.pins and not dry_run:
            _write(file, with_pins(text, table.name, line, pins))
            click.echo(f"{file} is written; `dane-relay reload` puts it in force.")


async def look(
    config: Config, hops: Sequence[NextHop], parameters: dict[NextHop, TlsParameters]
) -> dict[NextHop, tuple[Shown, ...]]:
    """What every address of every next-hop shows in a session as level fingerprint has it.

    :param parameters: of the lines that there are: a server name, protocols.
    """
    found: dict[NextHop, tuple[Shown, ...]] = {}
    for hop in hops:

        def adjust(rules: Rules, hop: NextHop = hop) -> Rules:
            entry = MapEntry(
                level=Level.FINGERPRINT,
                rule=Rule("pin"),
                # Nobody shows this: the session ends with its handshake.
                fingerprints=("0" * 64,),
                parameters=parameters.get(hop, TlsParameters()),
            )
            policies = replace(rules.policies, lookup=lambda _hop: entry)
            options = replace(rules.options, mx_address_limit=0, mx_session_limit=0)
            return replace(
                rules, policies=policies, options=options, router=Router(relay_hosts=(hop,), port=config.smtp.port)
            )

        async with open_explainer(config, adjust) as explainer:
            asked = Address(f"postmaster@{hop.host}", hop.host)
            found[hop] = shown(await explainer.explain(asked, live=True, everywhere=True))
    return found


@dataclass(frozen=True, slots=True)
class _Digests:
    key: str
    certificate: str


def _digests(config: Config, leaf: CertFacts) -> _Digests:
    def digest(octets: bytes) -> str:
        return hashlib.new(config.smtp.tls_fingerprint_digest, octets, usedforsecurity=False).hexdigest()

    return _Digests(digest(leaf.spki) if leaf.spki else "", digest(leaf.der))


def _pin(config: Config, leaf: CertFacts, certificate: bool) -> str:
    digests = _digests(config, leaf)
    return digests.certificate if certificate or not digests.key else digests.key


def _captured(found: Sequence[Shown]) -> Iterator[str]:
    today = datetime.now(UTC).date()
    for each in found:
        if each.leaf:
            leaf = each.leaf[0]
            yield one_line(
                f"# captured {today} from {each.where}: {leaf.subject or 'no subject'}, valid until {leaf.not_after:%Y-%m-%d}"
            )
        else:
            yield one_line(f"# {each.where} showed nothing: {each.text}")
    if any(each.leaf for each in found):
        yield "# Nothing proved who that was: compare the digest with what the operator of the host says."


def _compared(config: Config, line: PinnedLine, found: Sequence[Shown]) -> bool:
    good, used = True, set[str]()
    for each in found:
        if not each.leaf:
            good = False
            click.echo(one_line(f"  {each.where}: showed nothing: {each.text}"))
            continue
        digests = _digests(config, each.leaf[0])
        hits = [(digests.key, "public key"), (digests.certificate, "certificate")]
        match = next(((pin, what) for pin, what in hits if pin in line.pins), None)
        if match is None:
            good = False
            shows = (
                f"public key {written(digests.key)}" if digests.key else f"certificate {written(digests.certificate)}"
            )
            click.echo(one_line(f"  {each.where}: DOES NOT MATCH: shows {shows} of {each.leaf[0].subject}"))
            continue
        used.add(match[0])
        click.echo(one_line(f"  {each.where}: matches {written(match[0])} ({match[1]})"))
        end = each.leaf[0].not_after
        if match[1] == "certificate" and end - datetime.now(UTC) < _NOTICE:
            click.echo(f"    that certificate ends on {end:%Y-%m-%d}: pin its public key, or the next one")
    for pin in line.pins:
        if pin not in used:
            click.echo(f"  no host shows {written(pin)}")
    return good


def _widened(config: Config, line: PinnedLine, seen: Sequence[Shown], certificate: bool) -> tuple[str, ...]:
    shows = [each.leaf[0] for each in seen if each.leaf]
    if not shows:
        raise CannotPin(f"{line.key}: no host showed a certificate: {seen[0].text if seen else 'it has no host'}")
    missing = [
        _pin(config, leaf, certificate)
        for leaf in shows
        if not {_digests(config, leaf).key, _digests(config, leaf).certificate} & set(line.pins)
    ]
    return tuple(dict.fromkeys((*line.pins, *missing)))


def _finished(config: Config, line: PinnedLine, seen: Sequence[Shown]) -> tuple[str, ...]:
    used: set[str] = set()
    for each in seen:
        if not each.leaf:
            raise CannotPin(f"{each.where}: showed nothing, so no pin is dropped: {each.text}")
        digests = _digests(config, each.leaf[0])
        hits = {digests.key, digests.certificate} & set(line.pins)
        if not hits:
            raise CannotPin(f"{each.where}: shows none of the pins of {line.entry.rule.place}: `pin verify` says what")
        used |= hits
    return tuple(pin for pin in line.pins if pin in used)


def _told(line: PinnedLine, pins: Sequence[str]) -> None:
    click.echo(f"{line.entry.rule.place}: {line.key}")
    for pin in dict.fromkeys((*line.pins, *pins)):
        state = "stays" if pin in line.pins and pin in pins else "is added" if pin in pins else "is dropped"
        click.echo(f"  {written(pin)} {state}")
    if tuple(pins) == line.pins:
        click.echo("Nothing changes.")


def _given(config: Config, text: str, certificate: bool) -> str:
    """A digest, or a PEM file with a certificate or public key."""
    file = Path(text)
    if not file.is_file():
        try:
            return parse_fingerprint(text)
        except ValueError as error:
            raise CannotPin(f"--new: neither a digest nor a file: {error}") from None
    pem = file.read_bytes()
    try:
        if b"-----BEGIN CERTIFICATE-----" in pem:
            loaded = x509.load_pem_x509_certificate(pem)
            key = loaded.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            octets = loaded.public_bytes(Encoding.DER) if certificate else key
        else:
            octets = load_pem_public_key(pem).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except ValueError as error:
        raise CannotPin(f"--new: {file}: neither a certificate nor a public key in PEM: {error}") from None
    return hashlib.new(config.smtp.tls_fingerprint_digest, octets, usedforsecurity=False).hexdigest()


def _has_host(line: PinnedLine) -> bool:
    return not line.key.startswith(".")


def _next_hop(text: str, config: Config) -> NextHop:
    try:
        return NextHop.parse(text, default_port=config.smtp.port)
    except BadName as error:
        raise click.UsageError(f"{error}; expected a domain, [host] or [address], with :port") from None


def _map_path(spec: str) -> Path:
    return Path(MapSpec.parse(spec).argument)


def _read(file: Path) -> tuple[str, PolicyTable]:
    try:
        text = file.read_bytes().decode(errors="surrogateescape")
    except OSError as error:
        raise CannotPin(f"{file}: cannot be read: {error.strerror}") from None
    return text, parse_table(text, str(file))


def _append(file: Path, comments: Iterator[str], key: str, pins: Sequence[str]) -> None:
    text, table = _read(file) if file.exists() else ("", parse_table("", str(file)))
    if key in table.entries:
        raise CannotPin(
            f"{table.entries[key].rule.place}: the map has a line for {key} already: `pin rotate` changes it"
        )
    gap = "" if not text or text.endswith("\n") else "\n"
    _write(file, text + gap + "".join(f"{line}\n" for line in comments) + f"{line_of(key, pins)}\n")


def _write(file: Path, text: str) -> None:
    """Replace a file at once, its mode kept: a reload never sees half of it."""
    try:
        mode = file.stat().st_mode & 0o7777 if file.exists() else 0o644
        handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.resolve().parent)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(text.encode(errors="surrogateescape"))
                out.flush()
                os.fsync(out.fileno())
            os.chmod(name, mode)
            os.replace(name, file.resolve())
        except OSError:
            os.unlink(name)
            raise
    except OSError as error:
        raise CannotPin(f"{file}: cannot be written: {error.strerror}") from None


@contextmanager
def errors_for_people() -> Iterator[None]:
    """What goes wrong as messages of the command; a resolver that cannot be had is temporary."""
    try:
        yield
    except CannotResolve as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(TEMPORARY) from None
    except (CannotPin, CaStoreError, ClientCertificateError, ConfigErrors) as error:
        raise click.ClickException(str(error)) from None
