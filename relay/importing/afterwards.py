"""What the files that an imported configuration names say that comes out otherwise here: odd lines, and credentials."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from relay.config.config import Config, policy_defaults
from relay.config.errors import ConfigError, ConfigErrors
from relay.config.kinds import toml_list
from relay.config.load import read
from relay.config.maps import load_maps, load_policy_maps, load_sender_maps, load_transport_maps
from relay.importing.draft import Draft, Setting, Sort
from relay.mail.names import BadName, NextHop
from relay.maps.table import Found, MapProblem
from relay.policy.policy import MapEntry, NoEntry
from relay.policy.table import PolicyTables
from relay.routing.transport import TRANSPORTS

_MAPS = ("smtp", "tls_policy_maps")


def look_at_files(draft: Draft, *, hostname: str) -> None:
    """Read what the draft names, as the relay would, and remark on what is wrong or different there.

    :param hostname: as in ``relay.config.load.load``.
    """
    try:
        config = read(draft.document(""), name="relay.toml", base=draft.base, environ={}, hostname=hostname)
        smtp = config.smtp
        policies = load_policy_maps(smtp.tls_policy_maps, config.base)
        transports = load_transport_maps(smtp.transport_maps, config.base, port=smtp.port)
        senders = load_sender_maps(smtp.sender_dependent_relayhost_maps, config.base, port=smtp.port)
        passwords = load_maps(smtp.sasl_password_maps, config.base, what="password")
    except ConfigErrors as errors:
        _remark_on_errors(draft, errors.errors)
        return
    for tables in (policies, transports, senders):
        _remark_on_problems(draft, tables.problems)
    keys = [row.key for each in passwords for row in each.table.rows()]
    if keys:
        maps = (*smtp.transport_maps, *smtp.sender_dependent_relayhost_maps)
        _credentials(draft, config, policies, frozenset(keys), tuple(_hops(config, maps)))


def _remark_on_errors(draft: Draft, errors: Iterable[ConfigError]) -> None:
    for error in errors:
        # Places in our own text mean nothing to a reader of main.cf.
        place = "the imported file" if error.place.startswith("relay.toml") else error.place
        draft.remark(Sort.LOOK, place, error.message)


def _remark_on_problems(draft: Draft, problems: Iterable[MapProblem]) -> None:
    for problem in problems:
        draft.remark(Sort.LOOK if problem.is_error else Sort.DIFFERS, problem.place, problem.text)


def _hops(config: Config, maps: Iterable[str]) -> Iterator[NextHop]:
    """Every next-hop that the configuration names."""
    yield from (*config.relay_hosts, *config.fallback_relays)
    for loaded in load_maps(maps, config.base, what="transport"):
        for row in loaded.table.rows():
            value = row.answer.value if isinstance(row.answer, Found) else ""
            transport, colon, rest = value.partition(":")
            for word in (rest if colon and transport in ("", *TRANSPORTS) else value).replace(",", " ").split():
                try:
                    yield NextHop.parse(word, default_port=config.smtp.port)
                except BadName:
                    continue


def _credentials(
    draft: Draft, config: Config, policies: PolicyTables, keys: frozenset[str], hops: tuple[NextHop, ...]
) -> None:
    """Next-hops where Postfix logs in over a session that proves nothing; here nobody would log in."""
    default = policy_defaults(config)
    lines: dict[str, str] = {}
    # Whoever has credentials of his own takes them to every smarthost.
    by_sender = config.smtp.sender_dependent_authentication and any("@" in key for key in keys)
    for hop in dict.fromkeys(hops):
        if not by_sender and not keys & {hop.key, str(hop.host), f"[{hop.host}]"}:
            continue
        entry = policies.lookup(hop)
        if isinstance(entry, NoEntry) and not default.level.requires_match:
            text = (
                f"{hop}: there are credentials, and Postfix sends them at level {default.level.word}; here the session has to "
                "prove the host first: by DANE, or by a trusted certificate with its name"
            )
            draft.remark(Sort.DIFFERS, default.level_rule.place, text)
        elif isinstance(entry, MapEntry) and not entry.level.requires_match:
            lines[hop.key] = entry.rule.place
            text = (
                f"{hop}: there are credentials, and {entry.level.word} keeps them from leaving here: mail would wait; "
                f"a line of its own in smtp.tls_policy_maps asks for secure instead"
            )
            draft.remark(Sort.DIFFERS, entry.rule.place, text)
    if lines:
        inline = f"inline:{{{', '.join(f'{key}=secure' for key in lines)}}}"
        what = (
            f"{draft.settings[_MAPS].because}, and a line for {', '.join(lines)}, where credentials would be withheld"
        )
        draft.settings[_MAPS] = Setting(toml_list((inline, *config.smtp.tls_policy_maps)), what)
