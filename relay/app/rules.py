"""What a reload replaces, all at once: policy maps, defaults, transport maps and routes, trust anchors, TLS contexts."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial

from relay.config.config import Config, policy_defaults
from relay.config.credentials import load_credential_maps
from relay.config.maps import (
    load_clientcert_maps,
    load_login_maps,
    load_policy_maps,
    load_sender_maps,
    load_transport_maps,
)
from relay.config.users import load_users
from relay.delivery.delivery import Policies
from relay.delivery.remembered import MAX_REMEMBERED
from relay.delivery.route import Router
from relay.mail.names import NextHop
from relay.maps.table import MapProblem
from relay.policy.exceptions import endings, find, misplaced
from relay.policy.policy import Defaults, Entry, TlsPolicy
from relay.policy.ratchet import Ratchet
from relay.policy.table import PolicyTables
from relay.policy.withheld import withheld_lines
from relay.routing.relayhosts import SenderTables
from relay.routing.transport import TransportTables
from relay.sasl.passwords import CredentialTables
from relay.sasl.users import Users
from relay.smtpd.clientcerts import NO_CERTIFICATES, KnownCertificates
from relay.smtpd.ownership import NO_OWNERS, Owners
from relay.smtpd.server_tls import ServerContext
from relay.tls.chain import ChainChecker
from relay.tls.handshake import ClientContexts


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The administrator's rules at one time; never changed, only replaced.

    :param misplaced: lines of the policy maps that may have no end.
    :param owners: who may use which sender address.
    :param certificates: whose client certificate lets them relay.
    :param front_tls: how clients encrypt; None where they cannot, or no mail is taken.
    :param users: who may log in at the front door; None where nobody may.
    """

    policies: Policies
    router: Router
    check_chain: ChainChecker
    context_for: Callable[[TlsPolicy], ssl.SSLContext]
    tables: PolicyTables
    misplaced: tuple[MapProblem, ...]
    transports: TransportTables
    senders: SenderTables
    credentials: CredentialTables
    users: Users | None = None
    owners: Owners = NO_OWNERS
    certificates: KnownCertificates = NO_CERTIFICATES
    front_tls: ServerContext | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with lines of the maps, each with file and line."""
        maps = (self.tables, self.transports, self.senders, self.credentials, self.owners, self.certificates)
        problems = (problem for each in maps for problem in each.problems)
        odd = (*self.misplaced, *withheld_lines(self.tables, self.credentials))
        return tuple(map(str, (*problems, *odd)))

    def endings(self, now: datetime) -> tuple[str, ...]:
        """Lines of the policy maps that have ended or soon will: what to warn of today."""
        return tuple(map(str, endings(self.tables, self.policies.defaults, now)))


def read_rules(config: Config) -> Rules:
    """Read everything that the configuration names and a reload may change.

    :raises ConfigErrors: if a map or the users cannot be read; malformed lines in one are no error, they defer their mail.
    :raises CaStoreError: if the CA certificates cannot be read.
    :raises ClientCertificateError: if the client certificate and its key cannot be used.
    """
    smtp = config.smtp
    tables = load_policy_maps(smtp.tls_policy_maps, config.base)
    transports = load_transport_maps(smtp.transport_maps, config.base, port=smtp.port)
    credentials = load_credential_maps(
        smtp.sasl_password_maps, smtp.sasl_token_maps, config.base, by_sender=smtp.sender_dependent_authentication
    )
    contexts = ClientContexts(cert_file=smtp.tls_cert_file, key_file=smtp.tls_key_file)
    contexts.check()
    senders = load_sender_maps(smtp.sender_dependent_relayhost_maps, config.base, port=smtp.port)
    defaults = policy_defaults(config)
    return Rules(
        policies=Policies(
            lookup=lru_cache(MAX_REMEMBERED)(partial(_find, tables, defaults)),
            defaults=defaults,
            credentials=credentials,
            ratchet=Ratchet(smtp.tls_ratchet),
            edition=object(),
            written_for_fallback=frozenset(
                line.rule.place for hop in config.fallback_relays for line in tables.written_for(hop)
            ),
        ),
        router=Router(
            relay_hosts=config.relay_hosts,
            port=smtp.port,
            transports=transports,
            senders=senders,
            fallback=config.fallback_relays,
        ),
        check_chain=ChainChecker.load(cafile=smtp.tls_CAfile, capath=smtp.tls_CApath, tafiles=tables.tafiles),
        context_for=contexts.client_context,
        tables=tables,
        misplaced=tuple(misplaced(tables, defaults)),
        transports=transports,
        senders=senders,
        credentials=credentials,
        users=load_users(config.smtpd.users_file),
        owners=Owners(load_login_maps(config.smtpd.sender_login_maps, config.base)),
        certificates=KnownCertificates(load_clientcert_maps(config.smtpd.relay_clientcerts, config.base)),
    )


def _find(tables: PolicyTables, defaults: Defaults, next_hop: NextHop) -> Entry:
    return find(tables, next_hop, defaults)
