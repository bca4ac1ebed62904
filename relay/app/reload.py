"""New rules for a running relay: asked for (SIGHUP, ``dane-relay reload``) or because a file has changed.

All or nothing: what cannot be read leaves the rules in force as they were, and says so loudly. Attempts that began before
end under the rules that they began with.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from relay import __version__
from relay.app.options import smtpd_options
from relay.app.rules import Rules, read_rules
from relay.app.watch import Look, keep_watching, look_at
from relay.config.config import SECTIONS, Config
from relay.config.errors import ConfigErrors
from relay.config.files import files_of_rules
from relay.control.server import Reloaded
from relay.log.events import Crashed, Noted, Observer, Program, Warned
from relay.smtpd.server import CannotServe
from relay.smtpd.server_tls import server_tls_context
from relay.tls.authorities import CaStoreError
from relay.tls.own_certificate import ClientCertificateError

Reread = Callable[[], Config]

# Options that rules are made of; all others take a new start.
_OF_RULES = (
    ("smtp", "tls_"),
    ("smtp", "sasl_password_maps"),
    ("smtp", "sasl_token_maps"),
    ("smtp", "sender_dependent_authentication"),
    ("smtp", "transport_maps"),
    ("smtp", "relayhost"),
    ("smtp", "sender_dependent_relayhost_maps"),
    ("smtp", "fallback_relay"),
    ("dns", "on_no_validation"),
    ("smtpd", "users_file"),
    ("smtpd", "sender_login_maps"),
    ("smtpd", "relay_clientcerts"),
    ("smtpd", "tls_cert_file"),
    ("smtpd", "tls_key_file"),
    ("smtpd", "tls_ask_ccert"),
)
_OF_SESSIONS = ("tls_note_starttls_offer", "tls_wrappermode", "tls_wrappermode_ports")


class Reloader:
    """Reads rules, one reading at a time.

    :param reread: reads the configuration anew.
    :param source: the configuration's file, where there is one.
    :param take: puts new rules in force.
    """

    def __init__(
        self,
        config: Config,
        reread: Reread,
        source: Path | None,
        *,
        take: Callable[[Rules], Awaitable[None]],
        observe: Observer,
    ) -> None:
        self._config = config
        self._reread = reread
        self._source = (source,) if source is not None else ()
        self._take = take
        self._observe = observe
        self._one_at_a_time = asyncio.Lock()
        self._look: Look = {}

    def first(self) -> Rules:
        """Read the rules for the start.

        :raises ConfigErrors, CaStoreError: as ``read_rules``.
        :raises CannotServe: if the certificate for clients cannot be used.
        """
        look = look_at((*self._source, *files_of_rules(self._config)))
        rules = self._read(self._config)
        self._look = {**look, **look_at(map(Path, rules.tables.tafiles))}
        return rules

    async def reload(self) -> Reloaded:
        """Take new rules if they can be read, else keep the old ones and say why."""
        async with self._one_at_a_time:
            look = look_at(self._look)
            try:
                return await self._reload(look)
            except Exception:  # nobody waits for the end of a reload that a file's change began
                self._observe(Crashed("reload", traceback.format_exc()))
                return self._kept(look, ("internal error; see the log",))

    async def keep_watching(self) -> None:
        """Reload when a file has changed; runs until cancelled, or not at all where nothing says which files."""
        if not self._source:
            return

        async def reread(changed: tuple[Path, ...]) -> None:
            names = ", ".join(str(file) for file in changed[:5]) + (" ..." if len(changed) > 5 else "")
            self._observe(Noted(Program.MASTER, f"changed, so the rules are read anew: {names}"))
            await self.reload()

        await keep_watching(lambda: self._look, reread)

    async def _reload(self, look: Look) -> Reloaded:
        """Read everything; ``look`` was taken before: what changes meanwhile is a change."""
        try:
            config = self._reread()
            look = {**look, **look_at(files_of_rules(config))}
            rules = await asyncio.to_thread(self._read, config)
        except ConfigErrors as errors:
            return self._kept(look, tuple(str(error) for error in errors.errors))
        except (CannotServe, CaStoreError, ClientCertificateError) as error:
            return self._kept(look, (str(error),))
        self._look = {file: look[file] for file in (*self._source, *files_of_rules(config))}
        self._look |= look_at(map(Path, rules.tables.tafiles))
        await self._take(rules)
        pending = tuple(_pending(self._config, config))
        for message in (*rules.problems, *pending):
            self._observe(Warned(Program.MASTER, message))
        self._observe(Noted(Program.MASTER, f"reload -- version {__version__}, policy maps and routes are in force"))
        return Reloaded(accepted=True, messages=(*rules.problems, *pending))

    def _read(self, config: Config) -> Rules:
        """The rules, and TLS for clients where it was offered from the start: its level takes a new start."""
        rules = read_rules(config)
        if not self._config.smtpd.tls_security_level.uses_tls:
            return rules
        smtpd = config.smtpd
        options = replace(smtpd_options(config), tls_cert_file=smtpd.tls_cert_file, tls_key_file=smtpd.tls_key_file)
        return replace(rules, front_tls=server_tls_context(options))

    def _kept(self, look: Look, messages: Iterable[str]) -> Reloaded:
        self._look = look
        messages = tuple(messages)
        for message in messages:
            self._observe(Warned(Program.MASTER, f"reload refused, the old rules stay in force: {message}"))
        return Reloaded(accepted=False, messages=messages)


def _pending(running: Config, new: Config) -> Iterator[str]:
    """The options that differ from what the relay was started with and that no reload can change."""
    for section in SECTIONS:
        before, after = getattr(running, section), getattr(new, section)
        for key in SECTIONS[section].model_fields:
            of_rules = any(section == home and key.startswith(start) for home, start in _OF_RULES)
            if (not of_rules or key in _OF_SESSIONS) and getattr(before, key) != getattr(after, key):
                yield f"{new.place(section, key)}: {section}.{key} has changed: that takes effect at the next start"
