"""Everything that can be said about a configuration before the relay starts: options, maps, certificates, directories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from relay.config.certificates import certificate_notes
from relay.config.config import SECTIONS, Config, policy_defaults
from relay.config.credentials import CheckedMap, check_credential_maps
from relay.config.environment import PREFIX
from relay.config.errors import ConfigError, ConfigErrors
from relay.config.files import unwritable_directories
from relay.config.load import Examined, examine
from relay.config.maps import (
    load_clientcert_maps,
    load_login_maps,
    load_policy_maps,
    load_sender_maps,
    load_transport_maps,
)
from relay.config.users import load_users
from relay.dns.anchor import AnchorError, read_anchors
from relay.policy.exceptions import endings, misplaced
from relay.policy.table import PolicyTable, PolicyTables
from relay.policy.withheld import withheld_lines
from relay.sasl.passwords import CredentialTables

_MAPS = ("smtp", "tls_policy_maps")


@dataclass(slots=True)
class Report:
    """What a check found.

    :param errors: what keeps the relay from starting, or from doing what a line says.
    :param warnings: what it can live with.
    :param read: what was read, one line each.
    """

    errors: list[ConfigError] = field(default_factory=list)
    warnings: list[ConfigError] = field(default_factory=list)
    read: list[str] = field(default_factory=list)


def check(path: Path, environ: Mapping[str, str], *, hostname: str, now: datetime) -> Report:
    """Check a configuration and everything that it names; never raises for what it finds.

    :param path: as in ``load``, like ``environ`` and ``hostname``.
    :param now: aware; what validity is judged by.
    """
    try:
        examined = examine(path, environ, hostname=hostname)
    except ConfigErrors as broken:
        return Report(errors=list(broken.errors))
    report = Report(errors=list(examined.errors), read=[_options_read(path, examined.config)])
    _check_maps(report, examined, now)
    _check_routes(report, examined)
    _check_credentials(report, examined)
    _check_users(report, examined)
    _check_certificates(report, examined, now)
    _check_anchor(report, examined)
    _check_directories(report, examined)
    return report


def _options_read(path: Path, config: Config) -> str:
    by_variable = sum(place.startswith(PREFIX) for place in config.places.values())
    total = sum(len(model.model_fields) for model in SECTIONS.values())
    in_file = len(config.places) - by_variable
    return f"{path}: {in_file} of {total} options, {by_variable} by the environment, the rest by default"


def _check_maps(report: Report, examined: Examined, now: datetime) -> None:
    config = examined.config
    together: list[PolicyTable] = []
    for spec in config.smtp.tls_policy_maps:
        try:
            tables = load_policy_maps((spec,), config.base)
        except ConfigErrors as unreadable:
            if _MAPS not in examined.wrong:
                report.errors += unreadable.errors
            continue
        together += tables.tables
        for table in tables.tables:
            report.read.append(f"{table.name}: {len(table.source)} entries")
    tables, defaults = PolicyTables(tuple(together)), policy_defaults(config)
    odd = (*misplaced(tables, defaults), *endings(tables, defaults, now), *withheld_lines(tables, _credentials(config)))
    for problem in (*tables.problems, *odd):
        (report.errors if problem.is_error else report.warnings).append(ConfigError(problem.place, problem.text))


def _credentials(config: Config) -> CredentialTables:
    """Those that can be read; what cannot is told elsewhere."""
    found = (each for each in check_credential_maps(config) if isinstance(each, CheckedMap))
    return CredentialTables(tables=tuple(each.table for each in found))


def _check_routes(report: Report, examined: Examined) -> None:
    """The maps of routes, each by itself, so that one that cannot be read does not hide the others."""
    config, port = examined.config, examined.config.smtp.port
    for key, what, load in (
        ("transport_maps", "transport", load_transport_maps),
        ("sender_dependent_relayhost_maps", "relayhost", load_sender_maps),
    ):
        for spec in getattr(config.smtp, key):
            try:
                tables = load((spec,), config.base, port=port)
            except ConfigErrors as unreadable:
                if ("smtp", key) not in examined.wrong:
                    report.errors += unreadable.errors
                continue
            report.read += [f"{table.name}: {len(table.source)} {what} entries" for table in tables.tables]
            for problem in tables.problems:
                (report.errors if problem.is_error else report.warnings).append(
                    ConfigError(problem.place, problem.text)
                )


def _check_credentials(report: Report, examined: Examined) -> None:
    for found in check_credential_maps(examined.config):
        if not isinstance(found, CheckedMap):
            key, unreadable = found
            report.errors += [] if ("smtp", key) in examined.wrong else unreadable.errors
            continue
        report.read.append(f"{found.table.name}: {len(found.table.entries)} credentials")
        for note in found.notes:
            (report.errors if note.is_error else report.warnings).append(ConfigError(note.place, note.message))


def _check_front_maps(report: Report, examined: Examined) -> None:
    config = examined.config
    for key, what, load in (
        ("sender_login_maps", "sender login entries", load_login_maps),
        ("relay_clientcerts", "client certificates", load_clientcert_maps),
    ):
        for spec in getattr(config.smtpd, key):
            try:
                (table,) = load((spec,), config.base)
            except ConfigErrors as unreadable:
                report.errors += [] if ("smtpd", key) in examined.wrong else unreadable.errors
                continue
            report.read.append(f"{table.name}: {len(table)} {what}")
            for problem in table.problems:
                fault = ConfigError(problem.place, problem.text)
                (report.errors if problem.is_error else report.warnings).append(fault)


def _check_users(report: Report, examined: Examined) -> None:
    _check_front_maps(report, examined)
    name = examined.config.smtpd.users_file
    try:
        users = load_users(name)
    except ConfigErrors as unusable:
        report.errors += unusable.errors
        return
    if users is None:
        return
    report.read.append(f"{name}: {len(users.by_name)} users")
    if Path(name).stat().st_mode & 0o077:
        report.warnings.append(ConfigError(name, "others than its owner can read it; chmod go= it"))


def _check_certificates(report: Report, examined: Examined, now: datetime) -> None:
    config = examined.config
    for note in certificate_notes(config, now):
        fault = _fault(config, note.option, note.message)
        (report.errors if note.is_error else report.warnings).append(fault)
    report.read += [f"{name}: certificate and key" for name in _key_pairs(config)]


def _key_pairs(config: Config) -> Iterator[str]:
    yield from (section.tls_cert_file for section in (config.smtpd, config.smtp) if section.tls_cert_file)


def _check_anchor(report: Report, examined: Examined) -> None:
    option, config = ("dns", "trust_anchor_file"), examined.config
    if not config.dns.trust_anchor_file or option in examined.wrong:
        return
    try:
        anchors = read_anchors(Path(config.dns.trust_anchor_file))
    except AnchorError as error:
        report.errors.append(_fault(config, option, str(error)))
    else:
        report.read.append(f"{anchors.source}: {len(anchors.records)} DNSSEC trust anchors")


def _check_directories(report: Report, examined: Examined) -> None:
    config = examined.config
    # A default that does not fit this machine is told only once everything that somebody wrote is right.
    all_well = not report.errors
    for fault in unwritable_directories(config):
        if fault.option not in examined.wrong and (all_well or fault.option in config.places):
            report.errors.append(_fault(config, fault.option, fault.message))
    report.read.append(f"{config.relay.state_dir}: state directory, queue {config.queue_file}")


def _fault(config: Config, option: tuple[str, str], message: str) -> ConfigError:
    return ConfigError(config.place(*option), f"{'.'.join(option)}: {message}")
