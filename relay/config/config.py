"""``Config``: the sections together, and where each value came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from relay.config.bounce import BounceSection
from relay.config.section import Section, kind_of
from relay.config.sections import (
    SQLITE,
    DnsSection,
    HttpSection,
    LogSection,
    MtaStsSection,
    QueueSection,
    RelaySection,
    TlsrptSection,
)
from relay.config.smtp import SmtpSection
from relay.config.smtpd import SmtpdSection
from relay.mail.names import NextHop
from relay.policy.level import Level
from relay.policy.policy import Defaults, Rule

SECTIONS: Mapping[str, type[Section]] = {
    "relay": RelaySection,
    "smtpd": SmtpdSection,
    "smtp": SmtpSection,
    "dns": DnsSection,
    "queue": QueueSection,
    "bounce": BounceSection,
    "mta_sts": MtaStsSection,
    "tlsrpt": TlsrptSection,
    "log": LogSection,
    "http": HttpSection,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole, valid configuration.

    :param base: the directory that relative paths start from: that of the file.
    :param places: where each option that was set was set, by section and key.
    """

    relay: RelaySection
    smtpd: SmtpdSection
    smtp: SmtpSection
    dns: DnsSection
    queue: QueueSection
    bounce: BounceSection
    mta_sts: MtaStsSection
    tlsrpt: TlsrptSection
    log: LogSection
    http: HttpSection
    base: Path
    places: Mapping[tuple[str, str], str]

    def place(self, section: str, key: str) -> str:
        """Where an option got its value: ``FILE:LINE``, the environment variable, or ``default SECTION.KEY``."""
        return self.places.get((section, key), f"default {section}.{key}")

    @property
    def queue_file(self) -> Path:
        """The SQLite file of ``queue.url``."""
        return self.relay.state_dir / self.queue.url.removeprefix(SQLITE)

    @property
    def relay_hosts(self) -> tuple[NextHop, ...]:
        """``smtp.relayhost`` as next-hops, with ``smtp.port`` where they name no port."""
        return tuple(NextHop.parse(text, default_port=self.smtp.port) for text in self.smtp.relayhost)

    @property
    def fallback_relays(self) -> tuple[NextHop, ...]:
        """``smtp.fallback_relay`` as next-hops, as ``relay_hosts``."""
        return tuple(NextHop.parse(text, default_port=self.smtp.port) for text in self.smtp.fallback_relay)

    @property
    def helo_name(self) -> str:
        """``smtp.helo_name``, or ``relay.myhostname`` where it is empty."""
        return self.smtp.helo_name or self.relay.myhostname


def policy_defaults(config: Config) -> Defaults:
    """What ``decide`` goes by where no policy map has an entry."""
    smtp = config.smtp
    level = kind_of(SmtpSection.model_fields["tls_security_level"]).write(smtp.tls_security_level)
    return Defaults(
        level=smtp.tls_security_level,
        level_rule=Rule(config.place("smtp", "tls_security_level"), f"smtp.tls_security_level = {level}"),
        verify_match=smtp.tls_verify_cert_match,
        secure_match=smtp.tls_secure_cert_match,
        insecure_mx=smtp.tls_dane_insecure_mx_policy,
        protocols=smtp.tls_protocols,
        mandatory_protocols=smtp.tls_mandatory_protocols,
        ciphers=smtp.tls_ciphers,
        mandatory_ciphers=smtp.tls_mandatory_ciphers,
        fingerprint_digest=smtp.tls_fingerprint_digest,
        degrade_without_validation=config.dns.on_no_validation == "degrade",
        audit=Level.parse(smtp.tls_audit_level) if smtp.tls_audit_level else Level.NONE,
        audit_rule=Rule(config.place("smtp", "tls_audit_level"), f'smtp.tls_audit_level = "{smtp.tls_audit_level}"'),
    )
