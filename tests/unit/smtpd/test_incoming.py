from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from relay.smtpd.incoming import MAX_LINE_OCTETS, ClientGone, Incoming, Odd


def incoming(*blocks: bytes, timeout: float = 20.0, eof: bool = False) -> tuple[Incoming, asyncio.StreamReader]:
    reader = asyncio.StreamReader()
    for block in blocks:
        reader.feed_data(block)
    if eof:
        reader.feed_eof()
    return Incoming(reader, timeout=timeout), reader


async def test_lines_end_with_lf_or_crlf() -> None:
    client, _ = incoming(b"EHLO x\r\nNOOP\n\r\nA\rB\r\n", eof=True)
    assert [await client.line() for _ in range(4)] == [b"EHLO x", b"NOOP", b"", b"A\rB"]
    with pytest.raises(ClientGone, match="lost connection"):
        await client.line()


async def test_a_line_without_end_is_none() -> None:
    client, _ = incoming(b"QUIT", eof=True)
    with pytest.raises(ClientGone, match="lost connection"):
        await client.line()


@pytest.mark.parametrize(
    ("size", "fits"), [(MAX_LINE_OCTETS - 1, True), (MAX_LINE_OCTETS + 1, False), (500_000, False)]
)
async def test_long_lines_are_passed_over(size: int, fits: bool) -> None:
    client, _ = incoming(b"x" * size, b"\r\nNOOP\r\n")
    line = await client.line()
    assert line == b"x" * size if fits else line is Odd.TOO_LONG
    assert await client.line() == b"NOOP"


async def test_an_endless_line_takes_no_memory() -> None:
    class Endless(asyncio.StreamReader):
        left = 400

        async def read(self, n: int = -1) -> bytes:
            self.left -= 1
            return b"x" * n if self.left else b"\n"

    client = Incoming(Endless(), timeout=20.0)
    tracemalloc.start()
    try:
        assert await client.line() is Odd.TOO_LONG
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


async def test_a_broken_connection_is_a_lost_one() -> None:
    for failure in (ConnectionResetError(), TimeoutError(110, "Connection timed out")):
        client, reader = incoming()
        reader.set_exception(failure)
        with pytest.raises(ClientGone, match="lost connection"):
            await client.line()


async def test_a_line_must_be_whole_in_time() -> None:
    client, _ = incoming(b"MAIL FR", timeout=0.01)
    with pytest.raises(ClientGone, match="timeout"):
        await client.line()


async def test_who_waits_can_be_hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.smtpd.incoming.HURRIED_TIMEOUT", 0.01)
    full = False
    client = Incoming(asyncio.StreamReader(), timeout=3600.0, hurried=lambda: full)
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
    client, reader = incoming(timeout=3600.0)
    waiting = asyncio.create_task(client.line())
    await asyncio.sleep(0)
    client.hurry()
    reader.feed_data(b"NOOP\r\n")
    assert await waiting == b"NOOP"


async def test_who_waits_can_be_interrupted() -> None:
    reading = asyncio.Event()

    class Watched(asyncio.StreamReader):
        async def read(self, n: int = -1) -> bytes:
            reading.set()
            return await super().read(n)

    client = Incoming(Watched(), timeout=20.0)
    waiting = asyncio.create_task(client.line())
    await reading.wait()
    client.interrupt()
    assert await waiting is Odd.INTERRUPTED
    assert client.interrupted
    # Whoever was not waiting reads on, and looks at ``interrupted`` in its own time.
    other, _ = incoming(b"NOOP\r\n")
    other.interrupt()
    assert await other.line() == b"NOOP"


async def test_what_was_sent_ahead_can_be_forgotten() -> None:
    client, _ = incoming(b"STARTTLS\r\nEHLO evil\r\n", eof=True)
    await client.line()
    assert client.clear()
    assert not client.clear()
    assert not client.has_line


async def test_content_and_what_follows_it() -> None:
    client, _ = incoming(b"DATA\r\n..a\r\n.\r\nQUIT\r\n")
    await client.line()
    content = client.content()
    assert [chunk async for chunk in content] == [b".a\r\n"]
    assert await client.line() == b"QUIT"


async def test_a_content_left_half_way_can_be_drained() -> None:
    reader = asyncio.StreamReader()
    client = Incoming(reader, timeout=20.0)
    content = client.content()
    reader.feed_data(b"one\r\n")
    assert await anext(content) == b"one\r\n"
    reader.feed_data(b"two\r\n.\r\nNOOP\r\n")
    await content.drain()
    await content.drain()
    assert await client.line() == b"NOOP"


async def test_a_content_that_trickles_ends() -> None:
    client, reader = incoming(timeout=0.2)

    async def trickle() -> None:
        while True:
            reader.feed_data(b"x")
            await asyncio.sleep(0.01)  # a hundred octets a second, each long before the timeout of a block

    trickling = asyncio.create_task(trickle())
    try:
        with pytest.raises(ClientGone, match="timeout"):
            async with asyncio.timeout(20):
                await client.content().drain()
    finally:
        trickling.cancel()


async def test_a_store_that_takes_its_time_is_not_the_clients_fault() -> None:
    client, reader = incoming(timeout=0.05)
    content = client.content()
    for _ in range(4):
        reader.feed_data(b"x\r\n")
        assert await anext(content) == b"x\r\n"
        await asyncio.sleep(0.04)  # the store at work: together more than the client is allowed to take
    reader.feed_data(b".\r\n")
    await content.drain()
