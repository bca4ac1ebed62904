"""Sessions that carry one message after another: on which terms they do, what ends them, and that no mail pays for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest

from relay.delivery.client import SmtpConnection, connect
from relay.delivery.opening import Session, Wear
from relay.delivery.plan import Extensions
from relay.delivery.pool import KEEP_NONE, MAX_REFUSALS, Limits, Pool, Terms
from relay.dns.answer import Found, RRType
from relay.lab.ca import CertificateKind, tlsa_rdata
from relay.lab.mx import Receiver
from relay.lab.record import SessionRecord
from relay.lab.script import Rcpt, Script, StartTls
from relay.log.events import HostFailed, TlsEstablished
from relay.mail.names import Domain, NextHop
from relay.outcome.result import AttemptResult, Bounced, Deferred, Outcome, RelayHost, Sent
from relay.policy.level import Level
from relay.policy.policy import LiteralName, MapEntry, Rule, TlsPolicy
from relay.sasl.credentials import Credentials, NoCredentials, Owner, Password
from relay.sasl.secret import Secret
from relay.tls.verdict import Plaintext
from tests.unit.delivery.test_attempt import EXAMPLE, Scene
from tests.watched_process import PATIENCE
from tests.zone import a, found, mx_rdata

KEEP = Limits(idle=PATIENCE)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        it = Scene(tmp_path, stack)
        it.pool = Pool(KEEP, clock=lambda: datetime.now(UTC))
        stack.push_async_callback(it.pool.close)
        yield it


def only(result: AttemptResult) -> Outcome:
    (outcome,) = result.outcomes.values()
    return outcome


def verbs(record: SessionRecord) -> list[str]:
    return [command.verb for command in record.commands]


async def ended(host: Receiver, record: SessionRecord) -> None:
    async with asyncio.timeout(PATIENCE):
        while not record.ended:
            host.changed.clear()
            await host.changed.wait()


async def test_the_next_message_goes_over_the_same_session(scene: Scene) -> None:
    host = await scene.host(Script(), tlsa=True)
    outcomes = [only(await scene.attempt()) for _ in range(3)]
    assert [(type(one.result), one.reused, one.tls) for one in outcomes] == [
        (Sent, 0, "dane"),
        (Sent, 1, "dane"),
        (Sent, 2, "dane"),
    ]
    (record,) = host.sessions
    assert verbs(record)[3:] == ["MAIL", "RCPT", "DATA"] * 3, "one session, and nothing between messages"
    assert all(command.encrypted for command in record.commands[2:])
    assert [e.reused for e in scene.events if isinstance(e, TlsEstablished)] == [False, True, True]


async def test_nothing_is_kept_where_that_is_off(scene: Scene) -> None:
    scene.pool = Pool(KEEP_NONE, clock=lambda: datetime.now(UTC))
    host = await scene.host(Script(), tlsa=True)
    for _ in range(2):
        assert only(await scene.attempt()).reused == 0
    for record in host.sessions:
        await ended(host, record)
    assert [verbs(record)[-1] for record in host.sessions] == ["QUIT", "QUIT"]


async def test_records_that_rolled_over_end_reuse(scene: Scene) -> None:
    host = await scene.host(Script(), tlsa=True)
    await scene.attempt()
    owner = f"_{scene.port}._tcp.{host.host}"
    scene.zone[owner, RRType.TLSA] = found(owner, b"\3\1\1" + b"x" * 32)
    refused = only(await scene.attempt())
    assert isinstance(refused.result, Deferred)
    assert refused.tls == "!dane"
    assert len(host.sessions) == 2
    assert "MAIL" not in verbs(host.sessions[1]), "the old session matched, the record in force does not"
    assert len(host.received()) == 1


async def test_a_record_added_beside_the_old_one_is_judged_anew(scene: Scene) -> None:
    host = await scene.host(Script(), tlsa=True)
    await scene.attempt()
    owner = f"_{scene.port}._tcp.{host.host}"
    other = scene.authority.issue(CertificateKind.GOOD, "other.example.test")
    before = scene.zone[owner, RRType.TLSA]
    assert isinstance(before, Found)
    scene.zone[owner, RRType.TLSA] = found(owner, *before.rdata, tlsa_rdata(3, 1, 1, other.leaf))
    assert only(await scene.attempt()).reused == 0
    assert len(host.sessions) == 2


async def test_records_that_went_away_leave_the_default_to_decide(scene: Scene) -> None:
    host = await scene.host(Script(), tlsa=True)
    await scene.attempt()
    del scene.zone[f"_{scene.port}._tcp.{host.host}", RRType.TLSA]
    outcome = only(await scene.attempt())
    assert (outcome.reused, outcome.tls) == (0, "may")


async def test_another_edition_of_the_rules_ends_reuse(scene: Scene) -> None:
    host = await scene.host(Script(), tlsa=True)
    scene.edition = object()
    await scene.attempt()
    scene.edition = object()
    assert only(await scene.attempt()).reused == 0
    assert only(await scene.attempt()).reused == 1
    assert len(host.sessions) == 2


async def test_a_stricter_line_never_meets_a_session_of_a_weaker_one(scene: Scene) -> None:
    host = await scene.host(Script(starttls=StartTls.ABSENT))
    assert only(await scene.attempt(Level.MAY)).tls == "may:none"
    refused = only(await scene.attempt(entry=MapEntry(level=Level.ENCRYPT, rule=Rule("policy:1"))))
    assert isinstance(refused.result, Deferred)
    assert refused.tls == "!encrypt"
    assert only(await scene.attempt(Level.MAY)).reused == 0, "and its session gave way to the other's"
    assert [verbs(record).count("MAIL") for record in host.sessions] == [1, 0, 1]


async def test_a_retry_in_the_clear_is_for_one_message(scene: Scene) -> None:
    host = await scene.host(Script(starttls=StartTls.CUT))
    for _ in range(2):
        assert only(await scene.attempt(Level.MAY, waited=1e6)).tls == "may:none"
    assert [verbs(record).count("STARTTLS") for record in host.sessions] == [1, 0, 1, 0]


async def test_a_session_that_refused_everybody_is_reset_first(scene: Scene) -> None:
    host = await scene.host(Script(rcpt=Rcpt.REJECTED), tlsa=True)
    outcomes = [only(await scene.attempt()) for _ in range(2)]
    assert [(type(one.result), one.reused) for one in outcomes] == [(Bounced, 0), (Bounced, 1)]
    assert verbs(host.sessions[0])[3:] == ["MAIL", "RCPT", "DATA", "RSET", "MAIL", "RCPT", "DATA"]


async def test_a_session_with_many_refusals_ends(scene: Scene) -> None:
    host = await scene.host(Script(rcpt=Rcpt.REJECTED), tlsa=True)
    await scene.attempt(Level.DANE, *(f"user{number}@example.test" for number in range(MAX_REFUSALS)))
    await ended(host, host.sessions[0])
    assert verbs(host.sessions[0])[-1] == "QUIT"


async def test_an_old_session_takes_no_more(scene: Scene) -> None:
    now = [datetime.now(UTC)]
    scene.pool = Pool(Limits(idle=PATIENCE, age=300), clock=lambda: now[0])
    host = await scene.host(Script(), tlsa=True)
    now[0] += timedelta(minutes=1)
    await scene.attempt()
    now[0] += timedelta(minutes=3)
    assert only(await scene.attempt()).reused == 1
    now[0] += timedelta(minutes=2)
    assert only(await scene.attempt()).reused == 0
    assert len(host.sessions) == 2


async def test_a_session_takes_so_many_messages(scene: Scene) -> None:
    scene.pool = Pool(Limits(idle=PATIENCE, messages=2), clock=lambda: datetime.now(UTC))
    host = await scene.host(Script(), tlsa=True)
    assert [only(await scene.attempt()).reused for _ in range(5)] == [0, 1, 0, 1, 0]
    assert len(host.sessions) == 3


@pytest.mark.parametrize("away", [timedelta(days=50_000), timedelta(hours=-1)], ids=["ended", "clock set back"])
async def test_a_certificate_that_ended_meanwhile_ends_reuse(scene: Scene, away: timedelta) -> None:
    now = [datetime.now(UTC)]
    scene.pool = Pool(Limits(idle=PATIENCE, age=0), clock=lambda: now[0] + timedelta(seconds=5))
    await scene.host(Script(), tlsa=True)
    await scene.attempt()
    assert only(await scene.attempt()).reused == 1
    now[0] += away
    assert only(await scene.attempt()).reused == 0


async def test_an_idle_session_ends_with_quit(scene: Scene) -> None:
    scene.pool = Pool(Limits(idle=0.01), clock=lambda: datetime.now(UTC))
    host = await scene.host(Script(), tlsa=True)
    await scene.attempt()
    await ended(host, host.sessions[0])
    assert verbs(host.sessions[0])[-1] == "QUIT"
    assert len(scene.pool) == 0


async def test_the_end_says_quit_in_every_session_and_keeps_no_more(scene: Scene) -> None:
    host = await scene.host(Script(), tlsa=True)
    await asyncio.gather(*(scene.attempt() for _ in range(3)))
    assert scene.pool is not None
    assert len(scene.pool) == 3
    await scene.pool.close()
    assert len(scene.pool) == 0
    await scene.attempt()
    for record in host.sessions:
        await ended(host, record)
    assert [verbs(record)[-1] for record in host.sessions] == ["QUIT"] * 4


async def test_a_host_of_the_best_preference_with_a_session_goes_first(scene: Scene) -> None:
    first, second = await scene.host(Script(), tlsa=True), await scene.host(Script(), tlsa=True)
    names = [host.host for host in (first, second)]
    scene.zone[EXAMPLE.name, RRType.MX] = found(EXAMPLE.name, *(mx_rdata(10, name) for name in reversed(names)))
    await scene.attempt()
    scene.zone[EXAMPLE.name, RRType.MX] = found(EXAMPLE.name, *(mx_rdata(10, name) for name in names))
    assert only(await scene.attempt()).reused == 1
    scene.zone[EXAMPLE.name, RRType.MX] = found(EXAMPLE.name, *(mx_rdata(n * 10, name) for n, name in enumerate(names)))
    outcome = only(await scene.attempt())
    assert (outcome.reused, str(outcome.relay).partition("[")[0]) == (0, names[0]), "preference stands above warmth"


# --- what becomes of mail when a used session fails ------------------------------------------------------------------


class Moody:
    """A host whose sessions fail at the second message, each in its way; the third session on, nothing fails.

    :param mood: verb and what happens there: a reply, or nothing to close the connection.
    """

    def __init__(self, mood: tuple[str, str]) -> None:
        self.mood = mood
        self.sessions = 0
        self.taken = 0
        self.idle_end = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sessions += 1
        self.writers.append(writer)
        first, messages = self.sessions == 1, 0
        writer.write(b"220 moody.test ESMTP\r\n")
        while line := await reader.readline():
            verb = line[:4].decode().strip().upper()
            if first and messages == 1 and verb == self.mood[0]:
                writer.write(self.mood[1].encode())
                break
            if verb == "EHLO":
                writer.write(b"250-moody.test\r\n250 PIPELINING\r\n")
            elif verb == "DATA":
                writer.write(b"354 go on\r\n")
                await reader.readuntil(b"\r\n.\r\n")
                if first and messages == 1 and self.mood[0] == ".":
                    writer.write(self.mood[1].encode())
                    break
                messages += 1
                self.taken += 1
                writer.write(b"250 2.0.0 Ok\r\n")
                if first and self.mood[0] == "idle":
                    writer.write(self.mood[1].encode())
                    break
            else:
                writer.write(b"250 2.0.0 Ok\r\n")
        writer.close()
        self.idle_end.set()

    def cut(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


async def moody(scene: Scene, *mood: str) -> Moody:
    host = Moody((mood[0], mood[1]))
    server = await asyncio.start_server(host.serve, "127.0.0.77", 0)
    scene.stack.callback(server.close)
    scene.stack.callback(host.cut)
    scene.port = server.sockets[0].getsockname()[1]
    name = "mx1.example.test"
    scene.zone[name, RRType.A] = found(name, a("127.0.0.77"))
    scene.zone[EXAMPLE.name, RRType.MX] = found(EXAMPLE.name, mx_rdata(10, name))
    return host


@pytest.mark.parametrize(
    "mood",
    [
        ("idle", ""),
        ("idle", "421 4.4.2 timeout\r\n"),
        ("MAIL", ""),
        ("MAIL", "421 4.7.0 closing\r\n"),
        ("MAIL", "452 4.3.2 enough messages for one session\r\n"),
        ("MAIL", "550 5.7.0 enough\r\n"),
        ("MAIL", "no reply at all\r\n"),
        ("RCPT", ""),
        ("RCPT", "421 4.7.0 closing\r\n"),
        ("DATA", ""),
        ("DATA", "421 4.7.0 closing\r\n"),
        (".", "421 4.7.0 closing\r\n"),
    ],
    ids=lambda mood: " ".join(mood).strip(),
)
async def test_what_fails_in_a_used_session_is_done_in_a_fresh_one(scene: Scene, mood: tuple[str, str]) -> None:
    host = await moody(scene, *mood)
    assert isinstance(only(await scene.attempt(Level.MAY)).result, Sent)
    if mood[0] == "idle":
        await asyncio.wait_for(host.idle_end.wait(), PATIENCE)
    outcome = only(await scene.attempt(Level.MAY))
    assert isinstance(outcome.result, Sent), outcome.result.reason
    assert (outcome.reused, host.sessions, host.taken) == (0, 2, 2)
    assert not [event for event in scene.events if isinstance(event, HostFailed)], "nobody hears of it"
    assert only(await scene.attempt(Level.MAY)).reused == 1


async def test_what_the_host_may_have_taken_is_not_tried_again_at_once(scene: Scene) -> None:
    host = await moody(scene, ".", "")
    await scene.attempt(Level.MAY)
    outcome = only(await scene.attempt(Level.MAY))
    assert isinstance(outcome.result, Deferred)
    assert "message may be sent more than once" in outcome.result.reason
    assert (outcome.reused, host.sessions, host.taken) == (1, 1, 1)


async def test_a_refusal_of_the_message_stands(scene: Scene) -> None:
    host = await moody(scene, ".", "554 5.7.1 no such words\r\n")
    await scene.attempt(Level.MAY)
    outcome = only(await scene.attempt(Level.MAY))
    assert isinstance(outcome.result, Bounced)
    assert (outcome.reused, host.sessions) == (1, 1)


# --- the pool alone --------------------------------------------------------------------------------------------------

HOP = NextHop.of_domain(EXAMPLE, 25)
POLICY = TlsPolicy(level=Level.SECURE, asked=Level.SECURE, rule=Rule("policy:1"), names=(LiteralName(EXAMPLE),))
TERMS = Terms(
    relay=RelayHost("mx.example.test", ip_address("127.0.0.2"), 25),
    next_hop=HOP,
    edition=1,
    policy=POLICY,
    login=NoCredentials(),
)
ANN = Credentials(user="ann", proof=Password(Secret("tiger-striped")), place="passwords:1", owner=Owner.SENDER)
OTHERS = {
    "host": replace(TERMS, relay=replace(TERMS.relay, name="mx2.example.test")),
    "address": replace(TERMS, relay=replace(TERMS.relay, address=ip_address("127.0.0.3"))),
    "port": replace(TERMS, relay=replace(TERMS.relay, port=26)),
    "next-hop": replace(TERMS, next_hop=NextHop.of_domain(Domain("other.test"), 25)),
    "edition": replace(TERMS, edition=2),
    "level": replace(TERMS, policy=replace(POLICY, level=Level.VERIFY)),
    "rule": replace(TERMS, policy=replace(POLICY, rule=Rule("policy:2"))),
    "names": replace(TERMS, policy=replace(POLICY, names=(LiteralName(EXAMPLE, below=True),))),
    "protocols": replace(TERMS, policy=replace(POLICY, protocols=">=TLSv1.3")),
    "login": replace(TERMS, login=ANN),
    "user": replace(TERMS, login=replace(ANN, user="bob")),
    "password": replace(TERMS, login=replace(ANN, proof=Password(Secret("two")))),
}


@dataclass
class Silent:
    """A host that says nothing, and our connections to it."""

    port: int

    async def session(self, **wear: bool) -> Session:
        connection: SmtpConnection = await connect("127.0.0.1", self.port, local_address="", timeout=PATIENCE)
        return Session(
            connection=connection,
            relay=TERMS.relay,
            policy=POLICY,
            verdict=Plaintext(""),
            extensions=Extensions({}),
            tls="",
            opened_at=datetime.now(UTC),
            wear=Wear(messages=1, **wear),
        )


@pytest.fixture
async def silent() -> AsyncIterator[Silent]:
    writers: list[asyncio.StreamWriter] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield Silent(server.sockets[0].getsockname()[1])
    server.close()
    for writer in writers:
        writer.transport.abort()


def a_pool(sessions: int = 200) -> Pool:
    return Pool(replace(KEEP, sessions=sessions), clock=lambda: datetime.now(UTC))


@pytest.mark.parametrize("given", [TERMS, *OTHERS.values()], ids=["same", *OTHERS])
@pytest.mark.parametrize("asked", [TERMS, *OTHERS.values()], ids=["same", *OTHERS])
async def test_only_equal_terms_meet(silent: Silent, given: Terms, asked: Terms) -> None:
    pool, session = a_pool(), await silent.session()
    pool.give(given, session)
    assert (pool.take(asked) is session) == (given is asked)
    await pool.close()


async def test_a_session_is_given_out_once(silent: Silent) -> None:
    pool = a_pool()
    first, second = await silent.session(), await silent.session()
    pool.give(TERMS, first)
    pool.give(TERMS, second)
    assert [pool.take(TERMS) for _ in range(3)] == [second, first, None]
    for session in (first, second):
        session.finish()


async def test_what_waits_is_bounded_and_the_longest_wait_ends_first(silent: Silent) -> None:
    pool, sessions = a_pool(sessions=2), [await silent.session() for _ in range(3)]
    for session in sessions:
        pool.give(TERMS, session)
    assert len(pool) == 2
    assert not sessions[0].connection.is_quiet
    assert [pool.take(TERMS) for _ in range(3)] == [sessions[2], sessions[1], None]
    for session in sessions:
        session.finish()


async def test_a_dial_makes_one_session_of_its_next_hop_give_way(silent: Silent) -> None:
    pool, sessions = a_pool(), [await silent.session() for _ in range(3)]
    for terms, session in zip((TERMS, OTHERS["edition"], OTHERS["next-hop"]), sessions, strict=True):
        pool.give(terms, session)
    pool.make_room(HOP)
    assert [session.connection.is_quiet for session in sessions] == [False, True, True]
    pool.make_room(NextHop.of_domain(Domain("elsewhere.test"), 25))
    assert len(pool) == 2
    await pool.close()


async def test_what_is_unwelcome_is_not_kept(silent: Silent) -> None:
    pool, session = a_pool(), await silent.session(unwelcome=True)
    pool.give(TERMS, session)
    assert len(pool) == 0
    assert not session.connection.is_quiet


async def test_terms_show_no_secret() -> None:
    assert "tiger" not in repr(OTHERS["login"])
    with pytest.raises(TypeError):
        hash(OTHERS["login"])
