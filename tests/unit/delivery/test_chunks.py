"""Content in chunks (RFC 3030): how it is framed, when it goes, and what each reply means for each recipient."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.delivery.framing import Chunks
from relay.delivery.pool import Limits, Pool
from relay.dns.answer import RRType
from relay.mail.envelope import RecipientId
from relay.outcome.result import AttemptResult, Bounced, Deferred, Outcome, Sent
from relay.policy.level import Level
from tests.unit.delivery.test_attempt import EXAMPLE, Scene
from tests.watched_process import PATIENCE
from tests.zone import a, found, mx_rdata

CONTENT = b"Subject: hello\r\n\r\n.hello\r\n"


def unframed(octets: bytes) -> tuple[list[bytes], bool]:
    """Pieces, as a server reads them, and whether the last was announced as such."""
    pieces, last = list[bytes](), False
    while octets:
        assert not last, "octets behind the last chunk"
        command, _, octets = octets.partition(b"\r\n")
        verb, count, *rest = command.split(b" ")
        assert verb == b"BDAT"
        last = rest == [b"LAST"]
        pieces.append(octets[: int(count)])
        assert len(pieces[-1]) == int(count)
        octets = octets[int(count) :]
    return pieces, last


@given(st.lists(st.sampled_from([b"", b"a", b".\r\n", b"\r", b"\n", b"line\r\n", b"BDAT 3 LAST\r\n"])))
def test_every_octet_arrives_and_the_last_chunk_is_announced(pieces: list[bytes]) -> None:
    chunks = Chunks()
    octets = b"".join(chunks.feed(piece) for piece in pieces) + chunks.end()
    content, last = unframed(octets)
    sent = b"".join(pieces)
    assert last
    assert len(content) == chunks.sent
    assert all(content), "a chunk of nothing is asking for trouble"
    assert b"".join(content) in (sent, sent + b"\r\n", sent + b"\n")
    assert b"".join(content).endswith(b"\r\n")


@dataclass
class Host:
    """A host that takes chunks, and fails as it is told.

    :param rcpt: what it says to a recipient, by address.
    :param bdat: what it says to the n-th chunk of all.
    :param hold: whether it says nothing to a transaction before it has seen all of it.
    :param dies: the n-th transaction during which it closes: before any reply, or behind that to MAIL.
    """

    rcpt: dict[str, str] = field(default_factory=dict)
    bdat: dict[int, str] = field(default_factory=dict)
    hold: bool = False
    dies: tuple[int, str] = (0, "")
    sessions: list[list[str]] = field(default_factory=list)
    taken: list[bytes] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    waits: list[int] = field(default_factory=list)
    _chunks: int = 0
    _transactions: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self.sessions.append([])
        writer.write(b"220 chunks.test ESMTP\r\n")
        content, recipients, replies = b"", 0, list[str]()
        while line := await reader.readline():
            verb, *words = line.decode().split()
            self.sessions[-1].append(" ".join([verb, *words[1:]]) if verb == "BDAT" else verb)
            if verb == "EHLO":
                replies.append("250-chunks.test\r\n250-PIPELINING\r\n250 CHUNKING")
            elif verb == "MAIL":
                self._transactions += 1
                content, recipients = b"", 0
                replies.append("250 2.1.0 Ok")
                if self.dies[0] == self._transactions and self.dies[1]:
                    writer.write("\r\n".join((*replies, "")).encode())
                    replies.clear()
            elif verb == "RCPT":
                answer = next((text for who, text in self.rcpt.items() if who in line.decode()), "250 2.1.5 Ok")
                recipients += answer.startswith("250")
                replies.append(answer)
            elif verb == "DATA":
                replies.append("354 go on" if recipients else "554 5.5.1 no valid recipients")
                if recipients:
                    writer.write("\r\n".join((*replies, "")).encode())
                    replies.clear()
                    stuffed = (await reader.readuntil(b"\r\n.\r\n"))[:-3]
                    self.taken.append(stuffed.replace(b"\r\n.", b"\r\n"))
                    replies.append("250 2.0.0 Ok: data")
            elif verb == "BDAT":
                self._chunks += 1
                if answer := self.bdat.get(self._chunks, ""):
                    writer.write("\r\n".join((*replies, answer, "")).encode())
                    break
                content += await reader.readexactly(int(words[0]))
                if not recipients:
                    replies.append("503 5.5.1 no valid recipients")
                elif words[1:]:
                    self.taken.append(content)
                    replies.append("250 2.0.0 Ok: chunks")
                else:
                    replies.append("250 2.0.0 Ok: go on")
                if self.dies[0] == self._transactions and words[1:]:
                    break
            else:
                replies.append("250 2.0.0 Ok")
            if not self.hold or verb in ("EHLO", "BDAT") or (verb == "RCPT" and "BDAT LAST" not in self.sessions[-1]):
                writer.write("\r\n".join((*replies, "")).encode())
                replies.clear()
        writer.close()

    def cut(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        it = Scene(tmp_path, stack)
        it.pool = Pool(Limits(idle=PATIENCE), clock=lambda: datetime.now(UTC))
        stack.push_async_callback(it.pool.close)
        yield it


async def listening(scene: Scene, host: Host) -> Host:
    server = await asyncio.start_server(host.serve, "127.0.0.78", 0)
    scene.stack.callback(server.close)
    scene.stack.callback(host.cut)
    scene.port = server.sockets[0].getsockname()[1]
    name = "mx1.example.test"
    scene.zone[name, RRType.A] = found(name, a("127.0.0.78"))
    scene.zone[EXAMPLE.name, RRType.MX] = found(EXAMPLE.name, mx_rdata(10, name))
    return host


def only(result: AttemptResult) -> Outcome:
    (outcome,) = result.outcomes.values()
    return outcome


def kinds(result: AttemptResult) -> list[type]:
    return [type(outcome.result) for outcome in result.outcomes.values()]


async def test_from_the_second_message_on_it_takes_one_round_trip(scene: Scene) -> None:
    host = await listening(scene, Host(hold=True))
    for _ in range(3):
        assert isinstance(only(await scene.attempt(Level.MAY)).result, Sent)
    assert host.taken == [CONTENT] * 3, "dots as they are"
    assert host.sessions == [["EHLO", *["MAIL", "RCPT", "BDAT LAST"] * 3]]


async def test_no_chunk_is_sent_before_a_recipient_was_taken_the_first_time(scene: Scene) -> None:
    host = await listening(scene, Host(rcpt={"ann": "550 5.1.1 no"}))
    assert kinds(await scene.attempt(Level.MAY)) == [Bounced]
    assert "BDAT LAST" not in host.sessions[0]
    assert kinds(await scene.attempt(Level.MAY, "bob@example.test")) == [Sent]
    assert host.sessions == [["EHLO", "MAIL", "RCPT", "RSET", "MAIL", "RCPT", "BDAT LAST"]]


async def test_chunks_are_not_used_where_that_is_configured(scene: Scene) -> None:
    scene.options = replace(scene.options, discard_ehlo_keywords=frozenset({"CHUNKING"}))
    host = await listening(scene, Host())
    await scene.attempt(Level.MAY)
    assert host.sessions == [["EHLO", "MAIL", "RCPT", "DATA"]]
    assert host.taken == [CONTENT]


async def test_some_recipients_refused_in_one_write(scene: Scene) -> None:
    host = await listening(scene, Host(rcpt={"ann": "550 5.1.1 no", "cid": "450 4.2.0 later"}))
    await scene.attempt(Level.MAY, "bob@example.test")
    result = await scene.attempt(Level.MAY, "ann@example.test", "bob@example.test", "cid@example.test")
    assert {number: type(outcome.result) for number, outcome in result.outcomes.items()} == {
        1: Bounced,
        2: Sent,
        3: Deferred,
    }
    assert "(in reply to RCPT TO command)" in result.outcomes[RecipientId(1)].result.reason
    assert (len(host.sessions), len(host.taken)) == (1, 2)


async def test_all_recipients_refused_in_one_write(scene: Scene) -> None:
    """The content was sent in vain, and the host refuses that too; the session ends, for nobody knows how it counted."""
    host = await listening(scene, Host(rcpt={"ann": "550 5.1.1 no"}))
    await scene.attempt(Level.MAY, "bob@example.test")
    outcome = only(await scene.attempt(Level.MAY))
    assert isinstance(outcome.result, Bounced)
    assert "550 5.1.1 no (in reply to RCPT TO command)" in outcome.result.reason
    assert only(await scene.attempt(Level.MAY, "bob@example.test")).reused == 0
    assert (len(host.sessions), len(host.taken)) == (2, 2)


@pytest.mark.parametrize(("reply", "kind"), [("451 4.3.0 disk", Deferred), ("554 5.7.1 words", Bounced)])
async def test_content_refused(scene: Scene, reply: str, kind: type) -> None:
    host = await listening(scene, Host(bdat={2: reply}))
    await scene.attempt(Level.MAY)
    outcome = only(await scene.attempt(Level.MAY))
    assert isinstance(outcome.result, kind)
    assert f"{reply} (in reply to end of DATA command)" in outcome.result.reason
    assert (len(host.sessions), len(host.taken)) == (1, 1)


@pytest.mark.parametrize("reply", ["500 5.5.2 what?", "502 5.5.1 not implemented"])
async def test_a_host_that_does_not_know_chunks_gets_data(scene: Scene, reply: str) -> None:
    host = await listening(scene, Host(bdat=dict.fromkeys(range(1, 9), reply)))
    assert isinstance(only(await scene.attempt(Level.MAY)).result, Sent)
    assert host.sessions == [["EHLO", "MAIL", "RCPT", "BDAT LAST"], ["EHLO", "MAIL", "RCPT", "DATA"]]
    assert host.taken == [CONTENT]


async def test_a_large_message_goes_in_several_chunks_once_recipients_were_taken(scene: Scene) -> None:
    host, large = await listening(scene, Host()), b"Subject: large\r\n\r\n" + b"x" * 70_000 + b"\r\n.\r\nno end"
    for content in (CONTENT, large):
        assert isinstance(only(await scene.attempt(Level.MAY, octets=content)).result, Sent)
    assert host.taken[1].replace(b"\r\n ", b"") == large + b"\r\n"
    assert len(host.sessions) == 1


async def test_a_refusal_in_the_middle_ends_the_content(scene: Scene) -> None:
    host = await listening(scene, Host(bdat={2: "552 5.3.4 too much"}))

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(1_000):
            yield b"x" * 900 + b"\r\n"
            await asyncio.sleep(0)

    scene.body = pieces
    outcome = only(await scene.attempt(Level.MAY))
    assert isinstance(outcome.result, Bounced)
    assert "552 5.3.4 too much" in outcome.result.reason
    assert not host.taken


async def test_content_that_cannot_be_read_has_no_last_chunk(scene: Scene) -> None:
    host = await listening(scene, Host())

    async def broken() -> AsyncIterator[bytes]:
        yield b"Subject: x\r\n"
        yield b"\r\n"
        raise OSError("disk")

    await scene.attempt(Level.MAY)
    scene.body = broken
    for _ in range(2):  # in one write, and chunk by chunk
        with pytest.raises(OSError, match="disk"):
            await scene.attempt(Level.MAY)
    assert host.taken == [CONTENT]
    assert not any("LAST" in command for session in host.sessions[1:] for command in session)


async def test_a_used_session_that_dies_unheard_costs_nothing(scene: Scene) -> None:
    host = await listening(scene, Host(hold=True, dies=(2, "")))
    await scene.attempt(Level.MAY)
    outcome = only(await scene.attempt(Level.MAY))
    assert (type(outcome.result), outcome.reused, len(host.sessions)) == (Sent, 0, 2)


async def test_behind_the_first_reply_the_message_may_have_been_taken(scene: Scene) -> None:
    host = await listening(scene, Host(hold=True, dies=(2, "behind MAIL")))
    await scene.attempt(Level.MAY)
    outcome = only(await scene.attempt(Level.MAY))
    assert isinstance(outcome.result, Deferred)
    assert "message may be sent more than once" in outcome.result.reason
    assert len(host.sessions) == 1
