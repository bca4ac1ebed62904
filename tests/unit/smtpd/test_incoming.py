from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from relay.smtpd.alarms import Alarms
from relay.smtpd.incoming import BLOCK_OCTETS, MAX_LINE_OCTETS, ClientGone, Incoming, Odd
from relay.smtpd.watch import Watch


def incoming(*blocks: bytes, timeout: float = 20.0, eof: bool = False) -> Incoming:
    client = Incoming(Watch(Alarms()), timeout=timeout)
    for block in blocks:
        client.feed(block)
    if eof:
        client.end()
    return client


async def test_lines_end_with_lf_or_crlf() -> None:
    client = incoming(b"EHLO x\r\nNOOP\n\r\nA\rB\r\n", eof=True)
    assert [await client.line() for _ in range(4)] == [b"EHLO x", b"NOOP", b"", b"A\rB"]
    with pytest.raises(ClientGone, match="lost connection"):
        await client.line()


async def test_a_line_without_end_is_none() -> None:
    client = incoming(b"QUIT", eof=True)
    with pytest.raises(ClientGone, match="lost connection"):
        await client.line()


@pytest.mark.parametrize(
    ("size", "fits"), [(MAX_LINE_OCTETS - 1, True), (MAX_LINE_OCTETS + 1, False), (500_000, False)]
)
async def test_long_lines_are_passed_over(size: int, fits: bool) -> None:
    client = incoming(b"x" * size, b"\r\nNOOP\r\n")
    line = await client.line()
    assert line == b"x" * size if fits else line is Odd.TOO_LONG
    assert await client.line() == b"NOOP"


async def test_an_endless_line_takes_no_memory() -> None:
    client = incoming()
    tracemalloc.start()
    try:
        line = asyncio.create_task(client.line())
        for _ in range(400):
            client.feed(b"x" * BLOCK_OCTETS)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        client.feed(b"\n")
        assert await line is Odd.TOO_LONG
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


async def test_a_broken_connection_is_a_lost_one() -> None:
    for failure in (ConnectionResetError(), TimeoutError(110, "Connection timed out")):
        client = incoming(b"NOOP\r\n")
        client.end(failure)
        with pytest.raises(ClientGone, match="lost connection"):
            await client.line()
        waiting = incoming()
        line = asyncio.create_task(waiting.line())
        await asyncio.sleep(0)
        waiting.end(failure)
        with pytest.raises(ClientGone, match="lost connection"):
            await line


async def test_a_line_must_be_whole_in_time() -> None:
    client = incoming(b"MAIL FR", timeout=0.01)
    with pytest.raises(ClientGone, match="timeout"):
        await client.line()


async def test_who_waits_can_be_hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.smtpd.incoming.HURRIED_TIMEOUT", 0.01)
    full = False
    client = Incoming(Watch(Alarms()), timeout=3600.0, hurried=lambda: full)
    assert client.timeout == 3600.0
    waiting = asyncio.create_task(client.line())
    await asyncio.sleep(0)
    client.hurry()
    with pytest.raises(ClientGone, match="timeout"):
        await waiting
    client.hurry()  # nobody waits: nothing to do
    full = True
    assert client.timeout == 0.01
    with pytest.raises(ClientGone, match="timeout"):
        await client.line()
    with pytest.raises(ClientGone, match="timeout"):
        await client.content().drain()


async def test_a_hurried_client_that_says_something_is_heard() -> None:
    client = incoming(timeout=3600.0)
    waiting = asyncio.create_task(client.line())
    await asyncio.sleep(0)
    client.hurry()
    client.feed(b"NOOP\r\n")
    assert await waiting == b"NOOP"


async def test_who_waits_can_be_interrupted() -> None:
    client = incoming()
    waiting = asyncio.create_task(client.line())
    await asyncio.sleep(0)
    client.interrupt()
    assert await waiting is Odd.INTERRUPTED
    assert client.interrupted
    # Whoever was not waiting reads on, and looks at ``interrupted`` in its own time.
    other = incoming(b"NOOP\r\n")
    other.interrupt()
    assert await other.line() == b"NOOP"


async def test_what_was_sent_ahead_can_be_forgotten() -> None:
    client = incoming(b"STARTTLS\r\nEHLO evil\r\n", eof=True)
    await client.line()
    assert client.clear()
    assert not client.clear()
    assert not client.has_line


async def test_content_and_what_follows_it() -> None:
    client = incoming(b"DATA\r\n..a\r\n.\r\nQUIT\r\n")
    await client.line()
    content = client.content()
    assert [chunk async for chunk in content] == [b".a\r\n"]
    assert await client.line() == b"QUIT"


async def test_a_content_left_half_way_can_be_drained() -> None:
    client = incoming()
    content = client.content()
    client.feed(b"one\r\n")
    assert await anext(content) == b"one\r\n"
    client.feed(b"two\r\n.\r\nNOOP\r\n")
    await content.drain()
    await content.drain()
    assert await client.line() == b"NOOP"


async def test_a_content_that_trickles_ends() -> None:
    client = incoming(timeout=0.2)

    async def trickle() -> None:
        while True:
            client.feed(b"x")
            await asyncio.sleep(0.01)  # a hundred octets a second, each long before the timeout of a block

    trickling = asyncio.create_task(trickle())
    try:
        with pytest.raises(ClientGone, match="timeout"):
            async with asyncio.timeout(20):
                await client.content().drain()
    finally:
        trickling.cancel()


async def test_a_store_that_takes_its_time_is_not_the_clients_fault() -> None:
    client = incoming(timeout=0.05)
    content = client.content()
    for _ in range(4):
        client.feed(b"x\r\n")
        assert await anext(content) == b"x\r\n"
        await asyncio.sleep(0.04)  # the store at work: together more than the client is allowed to take
    client.feed(b".\r\n")
    await content.drain()


async def test_a_line_that_comes_alone_can_be_answered_without_whoever_waits() -> None:
    client = incoming()
    offered: list[bytes] = []

    def answers(line: bytes) -> bool:
        offered.append(line)
        return line != b"DATA"

    waiting = asyncio.create_task(client.line(answers))
    await asyncio.sleep(0)
    for line in (b"NOOP", b"RSET", b"DATA"):
        client.feed(line + b"\r\n")
    assert await waiting == b"DATA"
    assert offered == [b"NOOP", b"RSET", b"DATA"]
    client.feed(b"NOOP\r\n")  # nobody waits: it stays
    assert await client.line(answers) == b"NOOP"
    assert offered == [b"NOOP", b"RSET", b"DATA"]


@pytest.mark.parametrize(
    "octets",
    [b"NOOP\n", b"NOOP\r\nNOOP\r\n", b"NOOP\r\nN", b"NO\nOP\r\n", b"NOOP", b"x" * MAX_LINE_OCTETS + b"\r\n"],
)
async def test_only_a_whole_line_that_comes_alone_is_offered(octets: bytes) -> None:
    client = incoming()
    offered: list[bytes] = []

    def answers(line: bytes) -> bool:
        offered.append(line)
        return True

    waiting = asyncio.create_task(client.line(answers))
    await asyncio.sleep(0)
    client.feed(octets)
    client.feed(b"\r\n")
    await waiting
    assert not offered


async def test_what_was_answered_begins_the_time_anew() -> None:
    client = incoming(timeout=0.2)
    waiting = asyncio.create_task(client.line(lambda line: line == b"NOOP"))
    for _ in range(5):
        await asyncio.sleep(0.1)  # together more than a line may take
        client.feed(b"NOOP\r\n")
    client.feed(b"QUIT\r\n")
    assert await waiting == b"QUIT"
    with pytest.raises(ClientGone, match="timeout"):
        await client.line(lambda line: True)


async def test_who_was_interrupted_answers_nothing_more() -> None:
    client = incoming()
    waiting = asyncio.create_task(client.line(lambda line: True))
    await asyncio.sleep(0)
    client.interrupt()
    client.feed(b"NOOP\r\n")
    assert await waiting in (b"NOOP", Odd.INTERRUPTED)


async def test_no_more_is_read_while_much_is_unread() -> None:
    reading: list[bool] = []
    client = Incoming(Watch(Alarms()), timeout=20.0, reading=reading.append)
    for _ in range(3):
        client.feed(b"x" * BLOCK_OCTETS)
    assert reading == [False]
    assert len(await client.block(20.0)) == BLOCK_OCTETS
    assert reading == [False]
    assert len(await client.block(20.0)) == BLOCK_OCTETS
    assert reading == [False, True]
    for _ in range(3):
        client.feed(b"x" * BLOCK_OCTETS)
    client.clear()
    assert reading == [False, True, False, True]
    for _ in range(3):
        client.feed(b"x" * BLOCK_OCTETS)
    line = asyncio.create_task(client.line())
    await asyncio.sleep(0)
    assert reading == [False, True, False, True, False, True]
    client.feed(b"\n")
    assert await line is Odd.TOO_LONG
