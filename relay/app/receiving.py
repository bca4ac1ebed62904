"""The front end as the configuration wants it: its intake, its sessions, its sockets."""

from __future__ import annotations

import functools
import resource
from collections.abc import Callable, Collection
from datetime import datetime

from relay.app.options import is_local, smtpd_options
from relay.config.config import Config
from relay.lanes import Lanes
from relay.log.events import Observer, Program, Warned
from relay.mail.envelope import Address, Client, QueueId, Sender
from relay.queue.store import NOBODY, QueueStore, Taker
from relay.sasl.users import Users
from relay.smtpd.access import LocalRewrite, LocalUsers, is_written_here
from relay.smtpd.authentication import Authenticator, Lockout
from relay.smtpd.clientcerts import KnownCertificates
from relay.smtpd.conversation import Service
from relay.smtpd.elsewhere import ALONE, Elsewhere
from relay.smtpd.intake import Intake, IntakeOptions
from relay.smtpd.listeners import Listeners
from relay.smtpd.local import LocalSockets
from relay.smtpd.naming import NameOf, name_without_dns
from relay.smtpd.options import SmtpdOptions
from relay.smtpd.ownership import Owners
from relay.smtpd.server import SmtpServer
from relay.smtpd.server_tls import ServerContext
from relay.smtpd.session import Session
from relay.smtpd.softening import softly
from relay.smtpd.transcript import NO_TRANSCRIPTS, Transcripts

# Client addresses of which it is remembered whether they are this machine's.
_REMEMBERED = 1024
# Files beside the connections of clients: the queue, deliveries, DNS, the log.
_OTHER_FILES = 600


def front_end(
    config: Config,
    store: QueueStore,
    *,
    destination_of: Callable[[Address, Sender], str],
    clock: Callable[[], datetime],
    new_id: Callable[[], QueueId],
    observe: Observer,
    lanes: Lanes,
    accepted: Callable[[Collection[str]], None],
    taker: Taker = NOBODY,
    transcripts: Transcripts = NO_TRANSCRIPTS,
    users: Callable[[], Users | None] = lambda: None,
    owners: Callable[[], Owners] = Owners,
    name_of: NameOf = name_without_dns,
    certificates: Callable[[], KnownCertificates] = KnownCertificates,
    tls: Callable[[], ServerContext | None] = lambda: None,
    inherited: Listeners | None = None,
    elsewhere: Elsewhere = ALONE,
) -> SmtpServer:
    """A server that is not started yet, which puts what it takes into the store.

    :param lanes: where large contents take turns, with those that are delivered.
    :param transcripts: of which sessions the postmaster is to hear.
    :param users: who may log in now, ``owners`` who of them may use which sender address, ``certificates`` with which
        certificates clients may relay, ``tls`` how they encrypt, and ``name_of`` what they are called.
    :param inherited: the sockets, where a parent opened them.
    :param elsewhere: what other workers count of their clients.
    """
    options = smtpd_options(config)
    make_room(options.connection_limit, observe)
    observe = softly(observe) if options.soft_bounce else observe
    intake = Intake(
        store,
        options=intake_options(config),
        destination_of=destination_of,
        clock=clock,
        new_id=new_id,
        observe=observe,
        accepted=accepted,
        taker=taker,
        adds_missing=adds_missing(config),
    )
    local_users = LocalUsers(frozenset(config.smtpd.unix_relay_users))
    service = Service(
        options=options,
        accept=intake.accept,
        refusal=intake.refusal,
        transcripts=transcripts,
        observe=observe,
        name_of=name_of,
        lanes=lanes,
        permits=lambda client: local_users.permit(client) or certificates().permit(client),
        authenticator=Authenticator(users, observe=observe, owners=owners, lockout=lockout(config)),
    )
    session = functools.partial(Session, service=service, tls=tls)
    return _server(config, session, options, inherited=inherited, elsewhere=elsewhere, observe=observe)


def _server(
    config: Config,
    session: Callable[..., Session],
    options: SmtpdOptions,
    *,
    inherited: Listeners | None,
    elsewhere: Elsewhere,
    observe: Observer,
) -> SmtpServer:
    return SmtpServer(
        config.smtpd.listen,
        session,
        options,
        submissions=config.smtpd.submissions_listen,
        local=LocalSockets(config.smtpd.unix_listen, config.smtpd.unix_listen_mode),
        submissions_factory=functools.partial(session, wrapped=True),
        inherited=inherited,
        elsewhere=elsewhere,
        observe=observe,
    )


def lockout(config: Config) -> Lockout:
    """Who may not try to log in for a while."""
    return Lockout(config.smtpd.auth_failure_limit, config.smtpd.auth_lockout_time)


def make_room(connections: int, observe: Observer) -> None:
    """Have the system allow as many open files as connections can need, as far as it lets us; say so if it does not."""
    wanted = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft in (wanted, resource.RLIM_INFINITY) or soft > wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        text = (
            f"[smtpd] connection_limit = {connections} needs {wanted} open files, and the system allows {hard}; "
            "raise it (LimitNOFILE= of the service, ulimit -n), or lower connection_limit"
        )
        observe(Warned(Program.MASTER, text))


def intake_options(config: Config) -> IntakeOptions:
    """``[smtpd]`` for what becomes of a content."""
    smtpd = config.smtpd
    return IntakeOptions(
        hostname=config.relay.myhostname,
        message_size_limit=smtpd.message_size_limit,
        hopcount_limit=smtpd.hopcount_limit,
        header_size_limit=smtpd.header_size_limit,
        drop_headers=frozenset(name.encode("ascii") for name in smtpd.message_drop_headers),
    )


def adds_missing(config: Config) -> Callable[[Client], bool]:
    """Whether a client's mail is completed with the Message-Id and Date that it lacks."""
    smtpd = config.smtpd
    clauses = frozenset(LocalRewrite(word) for word in smtpd.local_header_rewrite_clients)
    is_own = functools.lru_cache(_REMEMBERED)(is_local)

    def adds(client: Client) -> bool:
        return smtpd.always_add_missing_headers or is_written_here(
            client, clauses, mynetworks=smtpd.mynetworks, is_own=is_own
        )

    return adds
