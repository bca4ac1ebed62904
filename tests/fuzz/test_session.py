"""A session is sent octets in pieces, some of them good: always a valid reply or a close, no traceback, nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, seed, settings
from hypothesis import strategies as st

from relay.lab.ca import Authority, CertificateKind
from relay.log.events import Crashed
from relay.sasl import users as users_module
from relay.smtpd.authentication import Lockout
from relay.smtpd.content import BareLineEnds
from relay.smtpd.proxy import Passed
from relay.smtpd.session import Session
from tests.fuzz.auth_dialogues import RIGHT, SECRETS, Dialogue, Door, dialogues
from tests.unit.sasl.users_of_tests import CHEAP, users
from tests.unit.smtpd.front_end import FrontEnd, RecordingStore, front_end, options
from tests.unit.smtpd.proxy_headers import CLIENT, GOOD

LONG_SECONDS = float(os.environ.get("RELAY_FUZZ_SECONDS", "600"))
_REPLIES = re.compile(rb"(?:[2-5]\d\d-[^\r\n]*\r\n)*[2-5]\d\d [^\r\n]*\r\n")
_QUEUED = re.compile(rb"^250 2\.0\.0 Ok: (?:\d+ bytes )?queued as (\S+)\r$", re.MULTILINE)
_PATIENCE = 30.0

COMMANDS = [
    b"EHLO client.example\r\n",
    b"HELO client\r\n",
    b"STARTTLS\r\n",
    b"MAIL FROM:<a@example.org>\r\n",
    b"MAIL FROM:<> BODY=8BITMIME SMTPUTF8 SIZE=100 RET=HDRS ENVID=x+20y\r\n",
    b"MAIL FROM:<a@example.org> REQUIRETLS\r\n",
    b"RCPT TO:<b@example.net>\r\n",
    b"RCPT TO:<b@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b@example.net\r\n",
    b'RCPT TO:<@x.example:"a b"@[192.0.2.1]>\r\n',
    b"RCPT TO:<postmaster>\r\n",
    b"DATA\r\n",
    b"BDAT 0 LAST\r\n",
    b"BDAT 4\r\n",
    b"BDAT 70000\r\n",
    b"BDAT 5 LAST\r\n",
    b"BDAT\r\n",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"VRFY x\r\n",
    b"AUTH PLAIN AGEAYg==\r\n",
    b"AUTH LOGIN\r\n",
    b"QUIT\r\n",
    b"GET / HTTP/1.1\r\n",
    b"Subject: x\r\n",
    b"\r\n.\r\n",
    b".\r\n",
    b"\n.\n",
    b"\r",
    b"\n",
    b"\0",
    b"Received: x\r\n" * 60,
    b"x" * 3000,
    b"\xff\xfe",
]
# Of a strict server a client must await the answer to EHLO.
TRANSACTION = b"EHLO x\r\n", b"MAIL FROM:<a@example.org>\r\n", b"RCPT TO:<b@example.net>\r\n"
chunk = st.tuples(st.integers(0, 30), st.sampled_from([b"", b"", b" LAST"])).map(
    lambda told: b"BDAT %d%b\r\n" % told + b"x\r\n" * (told[0] // 3) + b"y" * (told[0] % 3)
)
piece = st.one_of(st.sampled_from(COMMANDS), chunk, st.binary(max_size=40))
script = st.lists(piece, max_size=14).flatmap(
    lambda pieces: st.sampled_from(
        [
            pieces,
            [*TRANSACTION, *pieces],
            [*TRANSACTION, b"DATA\r\n", *pieces],
            [*TRANSACTION, b"BDAT 0\r\n", *pieces],
            [*TRANSACTION, *(one for one in pieces if one.startswith(b"BDAT")), b"RSET\r\n", *pieces],
        ]
    )
)
cutting = st.lists(st.integers(0, 4000), max_size=8)


@dataclass(frozen=True)
class Introduced:
    """What a proxy says first, and whether all of it is surely a header."""

    octets: bytes
    good: bool


DIRECT = Introduced(b"", good=True)
good_headers = st.sampled_from([header for header, _ in GOOD])
changed_headers = st.tuples(good_headers, st.integers(0, 60), st.binary(max_size=2), st.integers(0, 2)).map(
    lambda drawn: drawn[0][: drawn[1]] + drawn[2] + drawn[0][drawn[1] + drawn[3] :]
)
headers = st.one_of(
    good_headers.map(lambda octets: Introduced(octets, good=True)),
    st.one_of(changed_headers, st.binary(max_size=20), good_headers.map(lambda octets: octets[:-1])).map(
        lambda octets: Introduced(octets, good=False)
    ),
)


class Bench:
    """A server in a loop that lives as long as the test.

    :param proxied: whether all connections come from a proxy; then only the client CLIENT may relay.
    """

    def __init__(self, directory: Path, strict: bool, *, proxied: bool = False) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.store = RecordingStore()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE
        pem = str(Authority(directory, datetime.now(UTC)).issue(CertificateKind.SELF_SIGNED, "relay.example").pem_file)
        behind = {"proxy_networks": (ip_network("127.0.0.0/8"),), "mynetworks": (ip_network(CLIENT.address),)}
        self._options = options(
            **(behind if proxied else {}),
            tls_cert_file=pem,
            timeout=5.0,
            message_size_limit=100_000,
            client_connection_count_limit=0,
            forbid_unauth_pipelining=strict,
            forbid_bare_newline=BareLineEnds.REJECT if strict else BareLineEnds.NORMALIZE,
        )
        self.front: FrontEnd

    def __enter__(self) -> Bench:
        running = front_end(self._options, store=self.store, users=users(), lockout=Lockout(limit=0))
        self.front = self._runner.run(self._stack.enter_async_context(running))
        return self

    def __exit__(self, *reason: object) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def run(self, pieces: Sequence[bytes], cuts: Sequence[int]) -> None:
        """One session, and everything that must hold after it."""
        self._runner.run(self._session(pieces, cuts))

    def introduce(self, header: Introduced, pieces: Sequence[bytes], cuts: Sequence[int]) -> None:
        """One session through a proxy that says this, and everything that must hold after it."""
        self._runner.run(self._session(pieces, cuts, header))
        named = str(CLIENT.address).encode() in header.octets or CLIENT.address.packed in header.octets
        assert named or not self.store.messages, f"mail of a client who may not relay, behind {header}"

    def log_in(self, dialogue: Dialogue, pieces: Sequence[bytes], cuts: Sequence[int]) -> None:
        """One session that begins with AUTH, and everything that must hold after it."""
        self._runner.run(self._auth_session(dialogue, pieces, cuts))

    async def _auth_session(self, dialogue: Dialogue, pieces: Sequence[bytes], cuts: Sequence[int]) -> None:
        self._clean()
        tasks = len(asyncio.all_tasks())
        said = b"".join(pieces)
        borders = [0, *sorted(min(cut, len(said)) for cut in cuts), len(said)]
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await self._knock(dialogue.door)
            try:
                right, replies = await _speak(dialogue, reader, writer, cuts)
                for begin, end in pairwise(borders):
                    writer.write(said[begin:end])
                    await asyncio.sleep(0)
                reading = asyncio.create_task(reader.read())
                for _ in range(20):  # TLS cannot be ended in one direction: what comes later is lost
                    await asyncio.sleep(0)
                writer.close()
                try:
                    heard = b"".join(replies) + await reading
                except (ConnectionError, ssl.SSLError):  # it went on talking when we had ended TLS
                    heard = b"".join(replies)
                while self.front.server.sessions:
                    await asyncio.sleep(0)
            finally:
                writer.transport.abort()
        for _ in range(3):
            await asyncio.sleep(0)
        taken = any(reply.startswith(b"235 ") for reply in replies)
        assert not taken or (dialogue.right and dialogue.door is not Door.CLEAR), replies
        assert taken or not right, replies
        told = [event for event in self.front.events if any(secret in repr(event).encode() for secret in SECRETS)]
        assert not told, f"a secret in the log: {told}"
        self._judge(heard, 0, whole=False)
        self._tidy(tasks)

    async def _knock(self, door: Door) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A session past EHLO, in TLS where the door is so."""
        address = self.front.server.addresses[door is Door.WRAPPED]
        context = self._tls if door is Door.WRAPPED else None
        reader, writer = await asyncio.open_connection(*address, ssl=context)
        await _reply(reader)
        if door is Door.STARTTLS:
            for line in (TRANSACTION[0], b"STARTTLS\r\n"):
                writer.write(line)
                await _reply(reader)
            await writer.start_tls(self._tls)
        writer.write(TRANSACTION[0])
        assert (b"AUTH PLAIN LOGIN SCRAM-SHA-256" in await _reply(reader)) == (door is not Door.CLEAR)
        return reader, writer

    def _tidy(self, tasks: int) -> None:
        assert len(asyncio.all_tasks()) <= tasks, "a task was left behind"

    def _clean(self) -> None:
        """Forget the last session, which may have failed: what it left is not the next one's, as when an example is shrunk."""
        self.front.events.clear()
        self.store.messages.clear()
        self.store.puts.clear()

    async def _session(self, pieces: Sequence[bytes], cuts: Sequence[int], header: Introduced = DIRECT) -> None:
        self._clean()
        before = len(self.store.messages)
        tasks = len(asyncio.all_tasks())
        said = b"".join(pieces)
        borders = [0, *sorted(min(cut, len(said)) for cut in cuts), len(said)]
        reader, writer = await asyncio.open_connection(*self.front.address)
        try:
            async with asyncio.timeout(_PATIENCE):
                octets = header.octets
                for begin, end in pairwise([0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]):
                    writer.write(octets[begin:end])
                    await asyncio.sleep(0)
                if said.startswith(TRANSACTION[0]) and header.good:
                    await reader.readuntil(b"\r\n")  # the greeting
                    writer.write(TRANSACTION[0])
                    while not (await reader.readuntil(b"\r\n")).startswith(b"250 "):
                        pass
                    borders = [max(border, len(TRANSACTION[0])) for border in borders]
                reading = asyncio.create_task(reader.read())
                for begin, end in pairwise(borders):
                    writer.write(said[begin:end])
                    await asyncio.sleep(0)
                if writer.can_write_eof() and not writer.is_closing():
                    try:
                        writer.write_eof()
                    except OSError:
                        pass
                try:
                    heard = await reading
                except ConnectionError:  # cut off with something of ours unread; what it said before is lost
                    heard = b""
                while self.front.server.sessions:
                    await asyncio.sleep(0)
        finally:
            writer.close()
        for _ in range(3):
            await asyncio.sleep(0)
        self._judge(heard, before)
        self._tidy(tasks)

    def _judge(self, heard: bytes, before: int, *, whole: bool = True) -> None:
        crashes = [event.traceback for event in self.front.events if isinstance(event, Crashed)]
        assert not crashes, crashes[0]
        rest = heard.partition(b"220 2.0.0 Ready to start TLS\r\n")
        clear = rest[0] + rest[1]
        place = 0
        while place < len(clear):
            reply = _REPLIES.match(clear, place)
            assert reply is not None, clear[place : place + 200]
            assert all(len(line) <= 510 for line in reply[0].split(b"\r\n"))
            place = reply.end()
        promised = set(_QUEUED.findall(clear))
        kept = {queue_id.encode() for queue_id in self.store.messages}
        assert promised <= kept, "250 for a message that is not in the store"
        assert not whole or not heard or promised == kept or len(kept - promised) <= 1
        assert self.front.server.content_memory == 0


async def _speak(
    dialogue: Dialogue, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cuts: Sequence[int]
) -> tuple[bool, list[bytes]]:
    """Say a dialogue, each line in pieces; whether it was right and as meant, and the replies."""
    right, reply, replies = dialogue.right and dialogue.door is not Door.CLEAR, b"", list[bytes]()
    for number in range(len(dialogue.lines)):
        line, as_meant = dialogue.said(number, reply)
        line, right = line + b"\r\n", right and as_meant
        for begin, end in pairwise([0, *sorted(min(cut, len(line)) for cut in cuts), len(line)]):
            writer.write(line[begin:end])
            await asyncio.sleep(0)
        reply = await _reply(reader)
        if not reply:
            break
        replies.append(reply)
    return right, replies


async def _reply(reader: asyncio.StreamReader) -> bytes:
    """One reply, all its lines; empty when the server has gone."""
    lines = list[bytes]()
    try:
        while not lines or lines[-1][3:4] == b"-":
            lines.append(await reader.readuntil(b"\r\n"))
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    return b"".join(lines)


@pytest.fixture(params=[True, False], ids=["strict", "lenient"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(users_module, "Cost", lambda: CHEAP)  # of users who do not exist
    with Bench(tmp_path, request.param) as running:
        yield running
    gc.collect()
    assert sum(isinstance(each, Session) for each in gc.get_objects()) <= 5, "sessions were left behind"


def attempts(count: int, *, database: bool) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=database,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
    )


def test_whatever_is_sent_is_answered_or_cut_off(bench: Bench) -> None:
    @attempts(400, database=True)
    @given(script, cutting)
    @example([*TRANSACTION, b"BDAT 70000\r\n", b"x" * 70_000, b"BDAT 5 LAST\r\n", b"hello", b"QUIT\r\n"], [])
    @example([*TRANSACTION, b"BDAT 70000\r\n", b"x" * 69_999], [])
    @example([*TRANSACTION, b"DATA\r\n", b"x" * 3000, b"\r\n.\r\n", b"QUIT\r\n"], [60])
    @example([b"EHLO x\r\n", b"STARTTLS\r\n", b"\x16\x03\x01" + b"\0" * 200], [20])
    def run(pieces: list[bytes], cuts: list[int]) -> None:
        bench.run(pieces, cuts)

    run()


def test_whatever_is_said_to_auth_is_answered_or_cut_off_and_only_who_is_right_is_in(bench: Bench) -> None:
    for dialogue in RIGHT:
        bench.log_in(dialogue, [*TRANSACTION[1:], b"DATA\r\n", b"x\r\n.\r\n"], [5, 7])

    @attempts(300, database=True)
    @given(dialogues, script, cutting)
    def run(dialogue: Dialogue, pieces: list[bytes], cuts: list[int]) -> None:
        bench.log_in(dialogue, pieces, cuts)

    run()


def test_whatever_a_proxy_says_only_the_client_it_names_may_relay(tmp_path: Path) -> None:
    whole = [*TRANSACTION, b"DATA\r\n", b"x\r\n.\r\n", b"QUIT\r\n"]
    with Bench(tmp_path, strict=False, proxied=True) as bench:
        for octets, passed in GOOD:
            bench.introduce(Introduced(octets, good=True), whole, [5, 7])
            named = isinstance(passed, Passed) and passed.address == CLIENT.address
            assert len(bench.store.messages) == named, octets

        @attempts(300, database=True)
        @given(headers, script, cutting)
        def run(header: Introduced, pieces: list[bytes], cuts: list[int]) -> None:
            bench.introduce(header, pieces, cuts)

        run()


@pytest.mark.long
def test_for_ten_minutes(bench: Bench) -> None:
    deadline = time.monotonic() + LONG_SECONDS / 2
    sessions = logins = 0
    number = 0
    while time.monotonic() < deadline:
        number += 1

        @seed(number)
        @attempts(300, database=False)
        @given(script, cutting)
        def run(pieces: list[bytes], cuts: list[int]) -> None:
            nonlocal sessions
            sessions += 1
            bench.run(pieces, cuts)

        @seed(number)
        @attempts(300, database=False)
        @given(dialogues, script, cutting)
        def log_in(dialogue: Dialogue, pieces: list[bytes], cuts: list[int]) -> None:
            nonlocal logins
            logins += 1
            bench.log_in(dialogue, pieces, cuts)

        run()
        log_in()
    print(f"{sessions} sessions and {logins} that begin with AUTH, none of them wrong")  # noqa: T201 - pytest -s
