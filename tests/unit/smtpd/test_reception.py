"""BDAT, the memory budget, and talk out of turn, on a loopback socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_network

import pytest
import uvloop

from relay.lanes import LARGE_OCTETS, Lanes
from relay.log.events import Accepted, ClientDisconnected, ClientLost, Crashed, Noted, Rejected, Warned
from relay.mail.envelope import Message
from relay.queue.store import NOBODY, NewMessage, Taker
from relay.smtpd.budget import CONTENT_OCTETS
from relay.smtpd.content import BareLineEnds
from tests.unit.smtpd.front_end import BROKEN, FULL, HOSTNAME, Client, FrontEnd, RecordingStore, front_end, options

HERE = (ip_network("127.0.0.0/8"),)
SYNCHRONIZATION = b"554 5.5.0 Error: SMTP protocol synchronization\r\n"


@pytest.fixture
async def relay() -> AsyncIterator[FrontEnd]:
    async with front_end() as running:
        yield running


class SlowStore(RecordingStore):
    """Takes one block, and the rest only after ``step``."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0
        self.step = asyncio.Event()

    async def put(self, message: NewMessage, body: AsyncIterator[bytes], taker: Taker = NOBODY) -> Message:
        async def slowly() -> AsyncIterator[bytes]:
            async for block in body:
                self.read += len(block)
                await self.step.wait()
                yield block

        return await super().put(message, slowly(), taker)


async def begin(client: Client) -> None:
    assert (await client.say("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>")).startswith("250")


async def test_a_message_in_chunks(relay: FrontEnd) -> None:
    async with relay.client() as client:
        assert await client.chunks(b"Subject: x\r", b"\n\r\n.\r\nh", b"ello\n", b"") == [
            "250 2.0.0 Ok: 11 bytes",
            "250 2.0.0 Ok: 7 bytes",
            "250 2.0.0 Ok: 5 bytes",
            "250 2.0.0 Ok: 23 bytes queued as 4Q1",
        ]
        assert await client.chunks(b"one\r\n.\r\nNOOP\r\n") == ["250 2.0.0 Ok: 14 bytes queued as 4Q2"]
        assert (await client.message(b"by DATA\r\n")).endswith("4Q3")
        assert await client.chunks(b"") == ["250 2.0.0 Ok: 0 bytes queued as 4Q4"]
        assert await client.say("QUIT") == "221 2.0.0 Bye"
    assert relay.store.contents == [
        b"Subject: x\r\n\r\n.\r\nhello\r\n",
        b"one\r\n.\r\nNOOP\r\n",
        b"by DATA\r\n",
        b"",
    ]
    gone = await relay.seen(ClientDisconnected)
    assert gone.commands["bdat"] == (6, 6)
    assert gone.notes == ("bare_lf",)


@pytest.mark.parametrize("piece", [1, 3, 1000, 100_000])
async def test_how_the_network_cuts_chunks_changes_nothing(relay: FrontEnd, piece: int) -> None:
    content = b"Subject: x\r\n\r\n" + b"y" * 5000 + b"\r\n"
    first, second = content[:3000], content[3000:]
    async with relay.client() as client:
        said = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nBDAT 3000\r\n" + first
        said += b"BDAT %d LAST\r\n" % len(second) + second + b"QUIT\r\n"
        for start in range(0, len(said), piece):
            client.writer.write(said[start : start + piece])
            await client.writer.drain()
        codes = [line[:3] for line in (await client.rest()).decode().splitlines()]
    assert codes == ["250", "250", "250", "250", "221"]
    assert relay.store.contents == [content]


async def test_what_may_not_stand_between_chunks(relay: FrontEnd) -> None:
    async with relay.client() as client:
        await begin(client)
        client.writer.write(b"BDAT 3\r\nab\n")
        assert (await client.reply()).startswith("250")
        assert await client.say("RCPT TO:<c@example.net>") == "503 5.5.1 Error: RCPT after BDAT"
        assert await client.say("DATA") == "503 5.5.1 Error: DATA after BDAT"
        assert (await client.say("MAIL FROM:<c@example.org>")).startswith("503")
        assert await client.say("NOOP") == "250 2.0.0 Ok"
        client.writer.write(b"BDAT 0 LAST\r\n")
        assert (await client.reply()).endswith("queued as 4Q1")
    assert relay.store.contents == [b"ab\r\n"]


@pytest.mark.parametrize("end", ["RSET", "EHLO again.example", "QUIT"])
async def test_a_message_of_which_chunks_are_missing_is_forgotten(relay: FrontEnd, end: str) -> None:
    async with relay.client() as client:
        await begin(client)
        client.writer.write(b"BDAT 3\r\nab\n")
        assert (await client.reply()).startswith("250")
        await relay.store.begun.wait()
        assert (await client.say(end))[0] == "2"
        if end != "QUIT":
            assert await client.chunks(b"whole\r\n") == ["250 2.0.0 Ok: 7 bytes queued as 4Q2"]
    assert relay.store.contents == ([b"whole\r\n"] if end != "QUIT" else [])
    assert not any(isinstance(event, Crashed) for event in relay.events)


async def test_chunks_without_recipients_are_read_over(relay: FrontEnd) -> None:
    async with relay.client() as client:
        client.send("MAIL FROM:<a@example.org>", "RCPT TO:<no domain>", "BDAT 9")
        client.writer.write(b"QUIT\r\n.\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
        assert [await client.reply() for _ in range(5)] == [
            "250 2.1.0 Ok",
            "501 5.1.3 Bad recipient address syntax",
            "554 5.5.1 Error: no valid recipients",
            "551 5.0.0 Discarded 6 bytes after earlier error",
            "250 2.0.0 Ok",
        ]
        client.writer.write(b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
        assert await client.reply() == "503 5.5.1 Error: need RCPT command"
        assert await client.reply() == "250 2.0.0 Ok"
        assert (await client.chunks(b"x\r\n"))[0].startswith("250")


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(
    ("failure", "reply"),
    [
        (FULL, "452 4.3.1 Insufficient system storage"),
        (BROKEN, "451 4.3.0 Error: queue file write error"),
        (RuntimeError("secret /var/spool/x"), "451 4.3.0 Error: internal server error"),
    ],
)
async def test_a_failing_store_refuses_once_and_the_rest_is_dropped(
    failure: Exception, reply: str, early: bool
) -> None:
    store = RecordingStore(failure=failure, fail_before_reading=early)
    async with front_end(store=store) as relay, relay.client() as client:
        answers = await client.chunks(*[b"x" * 70_000] * 5)
        refused = answers.index(reply)
        assert answers[:refused] == ["250 2.0.0 Ok: 70000 bytes"] * refused
        assert answers[refused + 1 :] == ["551 5.0.0 Discarded 70000 bytes after earlier error"] * (4 - refused)
        assert early == (refused < 4)
        store.failure = None
        assert (await client.chunks(b"x\r\n"))[0].startswith("250")
        assert relay.store.contents == [b"x\r\n"]


async def test_chunks_beyond_the_size_limit() -> None:
    async with front_end(options(message_size_limit=1000)) as relay, relay.client() as client:
        assert await client.chunks(b"x" * 600, b"x" * 401, b"x" * 10) == [
            "250 2.0.0 Ok: 600 bytes",
            "552 5.3.4 Chunk exceeds message size limit",
            "551 5.0.0 Discarded 10 bytes after earlier error",
        ]
        assert await client.chunks(b"x" * 998 + b"\r\n") == ["250 2.0.0 Ok: 1000 bytes queued as 4Q2"]
        await begin(client)
        client.writer.write(b"BDAT 1501 LAST\r\n")
        assert await client.rest() == b"521 5.3.4 Chunk exceeds message size limit\r\n"
    assert len(relay.store.contents) == 1


async def test_a_bdat_that_cannot_be_read_ends_the_session(relay: FrontEnd) -> None:
    async with relay.client() as client:
        await begin(client)
        client.writer.write(b"BDAT x LAST\r\nMAIL FROM:<evil@example.org>\r\n")
        assert await client.rest() == b"521 5.5.4 Syntax: BDAT count [LAST]\r\n"
    warned = await relay.seen(Warned)
    assert warned.text == "NOQUEUE: malformed BDAT command syntax from localhost[127.0.0.1]: BDAT x LAST"


async def test_a_chunk_that_moves_nothing_is_abuse(relay: FrontEnd) -> None:
    async with relay.client() as client:
        assert await client.chunks(b"", b"x") == [
            "551 5.7.1 Null BDAT request",
            "551 5.0.0 Discarded 1 bytes after earlier error",
        ]


async def test_where_tls_is_required_chunks_in_the_clear_are_read_over() -> None:
    async with front_end(options(tls_required=True)) as relay, relay.client() as client:
        client.writer.write(b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
        assert await client.reply() == "530 5.7.0 Must issue a STARTTLS command first"
        assert await client.reply() == "250 2.0.0 Ok"
        assert not relay.store.messages


async def test_a_session_that_is_aborted_between_chunks_leaves_nothing() -> None:
    async with front_end() as relay:
        async with relay.client() as client:
            await begin(client)
            client.writer.write(b"BDAT 3\r\nab\n")
            assert (await client.reply()).startswith("250")
            await relay.store.begun.wait()
            await relay.server.close(grace=0)
        assert not relay.store.messages
        assert len(asyncio.all_tasks()) == 1


async def test_a_slow_store_holds_a_fast_client_back() -> None:
    store = SlowStore()
    async with front_end(options(message_size_limit=0), store=store) as relay, relay.client() as client:
        await begin(client)
        client.writer.write(b"BDAT 40000000 LAST\r\n" + b"x" * 40_000_000)  # more than the kernel's buffers take
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.writer.drain()
        assert store.read < 70_000
        store.step.set()
        assert (await client.reply()).startswith("250")
        assert store.read > 40_000_000
        assert relay.server.sessions == 1


class CommittingStore(RecordingStore):
    """Takes a while to commit what it has read, and tells how many it had to commit at a time at most."""

    now = most = 0

    async def put(self, message: NewMessage, body: AsyncIterator[bytes], taker: Taker = NOBODY) -> Message:
        stored = await super().put(message, body, taker)
        self.now += 1
        self.most = max(self.most, self.now)
        for _ in range(50):
            await asyncio.sleep(0)
        self.now -= 1
        return stored


# --- the budget -----------------------------------------------------------------------------------------------------


class WatchedLanes(Lanes):
    """Tells what large contents ask for and get."""

    def __init__(self) -> None:
        super().__init__(courtesy=3600)
        self.asked = asyncio.Event()
        self.turns = 0

    async def __aenter__(self) -> None:
        self.asked.set()
        await super().__aenter__()
        self.turns += 1


@pytest.mark.parametrize("chunks", [False, True])
async def test_a_large_content_waits_while_a_small_one_is_committed(chunks: bool) -> None:
    store, lanes = RecordingStore(hold=asyncio.Event()), WatchedLanes()
    assert store.hold is not None

    async def send(client: Client, content: bytes) -> str:
        return (await client.chunks(content))[-1] if chunks else await client.message(content)

    async with front_end(store=store, lanes=lanes) as relay, relay.client() as one, relay.client() as other:
        small = asyncio.create_task(send(one, b"Subject: small\r\n\r\n"))
        await store.begun.wait()
        large = asyncio.create_task(send(other, (b"x" * 76 + b"\r\n") * 5000))
        await lanes.asked.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert lanes.turns == 0
        store.hold.set()
        assert [reply[:3] for reply in await asyncio.gather(small, large)] == ["250", "250"]
        assert lanes.turns > 1


class CountingStore(RecordingStore):
    """Tells how much it has read of contents."""

    read = 0

    async def put(self, message: NewMessage, body: AsyncIterator[bytes], taker: Taker = NOBODY) -> Message:
        async def counted() -> AsyncIterator[bytes]:
            async for block in body:
                self.read += len(block)
                yield block

        return await super().put(message, counted(), taker)


@pytest.mark.parametrize(
    ("declared", "chunks", "most"),
    [("", False, LARGE_OCTETS), (" SIZE=390000", False, 0), ("", True, 0)],
    ids=["a whole block came", "MAIL said so", "BDAT said so"],
)
async def test_a_content_takes_turns_as_soon_as_it_is_known_to_be_large(declared: str, chunks: bool, most: int) -> None:
    store, lanes = CountingStore(), WatchedLanes()
    content = (b"x" * 76 + b"\r\n") * 5000
    async with front_end(store=store, lanes=lanes) as relay, relay.client() as client:
        await client.say(f"MAIL FROM:<a@example.org>{declared}", "RCPT TO:<b@example.net>")
        with lanes.small_first():
            if chunks:
                client.send(b"BDAT %d LAST" % len(content))
            else:
                await client.say("DATA")
            client.writer.write(content if chunks else content + b".\r\n")
            await lanes.asked.wait()
            for _ in range(20):
                await asyncio.sleep(0)
            assert store.read <= most
        assert (await client.reply()).startswith("250")


@pytest.mark.parametrize("chunks", [False, True])
async def test_of_large_contents_that_end_at_once_so_many_are_committed_at_a_time_as_there_are_lanes(
    chunks: bool,
) -> None:
    store = CommittingStore()

    async def send(relay: FrontEnd) -> str:
        async with relay.client() as client:
            content = (b"x" * 76 + b"\r\n") * 1000
            return (await client.chunks(content))[-1] if chunks else await client.message(content)

    async with front_end(store=store, lanes=Lanes(width=2)) as relay:
        replies = await asyncio.gather(*(send(relay) for _ in range(6)))
    assert [reply[:3] for reply in replies] == ["250"] * 6
    assert store.most == 2


async def test_a_small_content_takes_no_turn() -> None:
    lanes = WatchedLanes()
    async with front_end(lanes=lanes) as relay, relay.client() as client:
        assert (await client.message(b"x" * 998 + b"\r\n")).startswith("250")
        assert (await client.chunks(b"x" * 998 + b"\r\n"))[-1].startswith("250")
    assert lanes.turns == 0


@pytest.mark.parametrize("chunks", [True, False])
async def test_contents_beyond_the_budget_are_told_to_come_again(chunks: bool) -> None:
    store = RecordingStore(hold=asyncio.Event())
    assert store.hold is not None
    big = b"x" * 998 + b"\r\n"
    async with front_end(options(content_memory_limit=CONTENT_OCTETS + 100_000), store=store) as relay:
        async with relay.client() as first, relay.client() as second:
            await begin(first)
            await first.say("DATA")
            first.writer.write(big * 1000 + b".\r\n")
            await store.begun.wait()
            while relay.server.content_memory < CONTENT_OCTETS:
                await asyncio.sleep(0)
            if chunks:
                assert (await second.chunks(big * 200))[0] == "452 4.3.1 Insufficient system storage"
            else:
                assert await second.message(big * 200) == "452 4.3.1 Insufficient system storage"
            store.hold.set()
            assert (await first.reply()).startswith("250")
            assert (await second.message(big * 200)).startswith("250")
        assert relay.server.content_memory == 0


# --- out of turn ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [b"EHLO client.example\r\n", b"\x16\x03\x01\x02\x00", b"x"])
async def test_who_speaks_before_the_greeting_is_cut_off(said: bytes) -> None:
    named = asyncio.Event()

    async def slow_name(address: object) -> str:
        await named.wait()
        return "unknown"

    async with front_end(name_of=slow_name) as relay, relay.client(hello="") as client:
        client.writer.write(said)
        await client.writer.drain()
        for _ in range(20):  # turns of the loop, until it is there
            await asyncio.sleep(0)
        named.set()
        assert await client.rest() == SYNCHRONIZATION
        noted = await relay.seen(Noted)
        assert noted.text.startswith("improper command pipelining after CONNECT from unknown[127.0.0.1]: ")
        assert noted.text.isprintable()


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_what_came_with_the_connection_is_seen(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def heard() -> bytes:
        async with front_end() as relay:
            with socket.create_connection(relay.address) as early:  # the system answers, before we do
                early.sendall(b"EHLO client.example\r\n")
                return await asyncio.to_thread(early.makefile("rb").readline)

    with asyncio.Runner(loop_factory=make_loop) as runner:
        assert runner.run(heard()) == SYNCHRONIZATION


@pytest.mark.parametrize("line", ["EHLO x", "HELO x", "DATA", "NOOP", "VRFY x"])
async def test_who_goes_on_after_what_ends_a_group_is_cut_off(relay: FrontEnd, line: str) -> None:
    async with relay.client() as client:
        await begin(client)
        client.send(line, "MAIL FROM:<evil@example.org>")
        assert await client.rest() == SYNCHRONIZATION
    assert not relay.store.messages
    lost = [event for event in relay.events if isinstance(event, ClientLost)]
    assert not lost


async def test_without_ehlo_nothing_may_be_sent_ahead(relay: FrontEnd) -> None:
    async with relay.client(hello="HELO x") as client:
        client.send("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>")
        assert await client.rest() == SYNCHRONIZATION


async def test_it_may_be_let_pass_with_a_note() -> None:
    async with front_end(options(forbid_unauth_pipelining=False)) as relay, relay.client() as client:
        assert await client.say("NOOP", "NOOP") == "250 2.0.0 Ok"
        assert (await relay.seen(Noted)).text.startswith("improper command pipelining after NOOP from")


# --- bare line ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"a\nb\r\n", b"a\rb\r\n", b"a\r\n" * 100_000 + b"\n\r\n", b"\n.\r\n\r\n"])
@pytest.mark.parametrize("chunks", [True, False])
async def test_bare_line_ends_can_be_refused(content: bytes, chunks: bool) -> None:
    refusal = f"550 5.5.2 {HOSTNAME} Error: bare <LF> received"
    async with front_end(options(forbid_bare_newline=BareLineEnds.REJECT)) as relay, relay.client() as client:
        reply = (await client.chunks(content))[0] if chunks else await client.message(content)
        assert reply == refusal
        assert (await relay.seen(Rejected)).where == "END-OF-MESSAGE"
        assert (await client.message(b"a\r\nb\r\n")).startswith("250")
        client.writer.write(b"NOOP\n")
        assert await client.rest() == refusal.encode() + b"\r\n"
    assert relay.store.contents == [b"a\r\nb\r\n"]


async def test_a_client_can_be_trusted_to_stuff_behind_bare_line_ends() -> None:
    async with front_end(options(forbid_bare_newline=BareLineEnds.NO)) as relay, relay.client() as client:
        assert (await client.message(b"a\n.b\n..c\n.\n\r\n")).startswith("250")
        assert (await client.say("QUIT")).startswith("221")
        assert (await relay.seen(ClientDisconnected)).notes == ()
    assert relay.store.contents == [b"a\r\nb\r\n.c\r\n.\r\n\r\n"]


# --- rates ----------------------------------------------------------------------------------------------------------


async def test_messages_and_recipients_of_a_client_are_limited_by_the_minute() -> None:
    settings = options(client_message_rate_limit=2, client_recipient_rate_limit=3)
    async with front_end(settings) as relay:
        async with relay.client() as client:
            assert (await client.message(b"1\r\n")).startswith("250")
        async with relay.client() as client:
            assert (await client.say("MAIL FROM:<a@example.org>")).startswith("250")
            for number in range(2):
                assert (await client.say(f"RCPT TO:<b{number}@example.net>")).startswith("250")
            refused = "450 4.7.1 Error: too many recipients from 127.0.0.1"
            assert await client.say("RCPT TO:<b3@example.net>") == refused
            assert (await client.say("RSET")).startswith("250")
            assert await client.say("MAIL FROM:<a@example.org>") == "450 4.7.1 Error: too much mail from 127.0.0.1"
        async with relay.client(source="127.0.0.2") as other:
            assert (await other.message(b"2\r\n")).startswith("250")
        texts = [event.text for event in relay.events if isinstance(event, Warned)]
        assert texts == [
            "Recipient address rate limit exceeded: 4 from localhost[127.0.0.1] for service smtp",
            "Message delivery request rate limit exceeded: 3 from localhost[127.0.0.1] for service smtp",
        ]
        assert len([event for event in relay.events if isinstance(event, Accepted)]) == 2


async def test_connections_of_a_client_are_limited_by_the_minute() -> None:
    async with front_end(options(client_connection_rate_limit=2)) as relay:
        for _ in range(2):
            async with relay.client():
                pass
        async with relay.client(hello="") as client:
            refusal = f"421 4.7.0 {HOSTNAME} Error: too many connections from 127.0.0.1\r\n"
            assert await client.rest() == refusal.encode()
        assert (await relay.seen(Warned)).text.startswith("Connection rate limit exceeded: ")


async def test_exempt_clients_have_no_limits() -> None:
    settings = options(
        client_connection_rate_limit=1,
        client_message_rate_limit=1,
        client_recipient_rate_limit=1,
        client_connection_count_limit=1,
        client_event_limit_exceptions=HERE,
    )
    async with front_end(settings) as relay, relay.client() as one, relay.client() as two:
        for client in (one, two):
            for _ in range(2):
                assert (await client.message(b"x\r\n")).startswith("250")


# --- our own faults -------------------------------------------------------------------------------------------------

SECRET = "secret /var/spool/x"
INTERNAL = "451 4.3.0 Error: internal server error"


class Faulty(RecordingStore):
    """A store that fails in a way that nobody expects, where ``place`` says."""

    place = ""

    @property
    def refusal(self) -> None:
        if self.place == "refusal":
            raise KeyError(SECRET)

    @refusal.setter
    def refusal(self, value: object) -> None:
        pass

    async def put(self, message: NewMessage, body: AsyncIterator[bytes], taker: Taker = NOBODY) -> Message:
        if self.place == "put":
            raise OSError(28, SECRET)
        if self.place == "late":
            async for _ in body:
                pass
            raise ValueError(SECRET)
        return await super().put(message, body, taker)


@pytest.mark.parametrize("chunks", [True, False])
@pytest.mark.parametrize("place", ["refusal", "put", "late"])
async def test_an_exception_anywhere_is_4xx_without_its_text(place: str, chunks: bool) -> None:
    store = Faulty()
    async with front_end(store=store) as relay, relay.client() as client:
        store.place = place
        heard = [await client.say("MAIL FROM:<a@example.org>"), await client.say("RCPT TO:<b@example.net>")]
        if chunks:
            client.writer.write(b"BDAT 3 LAST\r\nx\r\n")
            heard.append(await client.reply())
        else:
            heard.append(await client.say("DATA"))
            if heard[-1].startswith("354"):
                client.writer.write(b"x\r\n.\r\n")
                heard.append(await client.reply())
        assert INTERNAL in heard
        assert not any("secret" in one or "spool" in one for one in heard)
        crashed = await relay.seen(Crashed)
        assert SECRET in crashed.traceback
        store.place = ""
        await client.say("RSET")
        assert (await client.message(b"x\r\n")).startswith("250")


@pytest.mark.parametrize("chunks", [True, False])
async def test_a_fault_within_a_content_ends_the_session(monkeypatch: pytest.MonkeyPatch, chunks: bool) -> None:
    """What was not read of it must not become commands."""

    async def broken(self: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr("relay.smtpd.incoming.Octets.drain" if chunks else "relay.smtpd.incoming.Content.drain", broken)
    async with front_end() as relay, relay.client() as client:
        await begin(client)
        if chunks:
            client.writer.write(b"BDAT 3 LAST\r\nx\r\nNOOP\r\n")
        else:
            await client.say("DATA")
            client.writer.write(b"x\r\n.\r\nNOOP\r\n")
        assert (await client.rest()).splitlines() == [INTERNAL.encode()]
