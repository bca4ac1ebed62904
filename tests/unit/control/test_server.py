"""Server and client against each other over real sockets; the client blocks, so it runs in a thread."""

from __future__ import annotations

import asyncio
import os
import re
import select
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from relay.control.client import CallFailed, NoRelay, call, converse, entries
from relay.control.lock import hold
from relay.control.protocol import (
    MAX_REQUEST,
    Done,
    HoldRuleAdd,
    HoldRuleRemove,
    HoldRules,
    Item,
    QueueAct,
    QueueCount,
    QueueList,
    Reload,
    Request,
    Status,
    Stop,
    encode_request,
)
from relay.control.queue import PAGE, RECIPIENTS_A_LINE
from relay.control.server import (
    MAX_CONNECTIONS,
    ControlFailed,
    Handlers,
    Limits,
    Reloaded,
    peer_uid,
    serve,
    user_name,
)
from relay.log.events import Event, Noted, Program, Warned
from relay.policy.level import Level
from relay.policy.override import TlsOverride
from relay.queue.acts import Flush, Requeue
from relay.queue.showq import entry_object
from tests.unit.control.stores import NOW, FixedQueue, administration, entry, pending


@dataclass
class Relay:
    """What the commands did."""

    store: FixedQueue
    woken: int = 0
    told: list[Event] = field(default_factory=list)
    reloads: list[Reloaded] = field(default_factory=lambda: [Reloaded(True, ("maps read",))])
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        self.woken += 1

    async def reload(self) -> Reloaded:
        return self.reloads.pop()

    def handlers(self) -> Handlers:
        return Handlers(
            administration=administration(self.store, wake=self.wake, observe=self.told.append),
            reload=self.reload,
            stop=self.stopped.set,
            status=lambda: {"version": "1.2.3"},
        )


@asynccontextmanager
async def running(
    state_dir: Path,
    *queued: str,
    limits: Limits | None = None,
    uid_of: Callable[[socket.socket], int] = peer_uid,
) -> AsyncIterator[Relay]:
    relay = Relay(FixedQueue(*(entry(queue_id) for queue_id in queued)))
    with hold(state_dir) as lock:
        async with serve(lock, relay.handlers(), limits=limits or Limits(), uid_of=uid_of):
            yield relay


async def ask(state_dir: Path, request: Request) -> dict[str, object]:
    return await asyncio.to_thread(call, state_dir, request, timeout=20.0)


async def listing(state_dir: Path, after: str = "", where: str = "") -> list[dict[str, object]]:
    return await asyncio.to_thread(lambda: list(entries(converse(state_dir, QueueList(after, where), timeout=20.0))))


async def test_status(tmp_path: Path) -> None:
    async with running(tmp_path):
        assert await ask(tmp_path, Status()) == {"pid": os.getpid(), "version": "1.2.3"}


async def test_counts(tmp_path: Path) -> None:
    async with running(tmp_path, "A", "B"):
        assert await ask(tmp_path, QueueCount()) == {
            "messages": 2,
            "deliveries": {"active": 0, "incoming": 0, "deferred": 2, "hold": 0},
            "oldest_arrival": "2026-11-22T05:32:05+00:00",
        }


async def test_flush_wakes_the_worker(tmp_path: Path) -> None:
    async with running(tmp_path, "A1", "B2") as relay:
        assert (await ask(tmp_path, QueueAct(verb="flush", where="ALL")))["messages"] == 2
        assert (await ask(tmp_path, QueueAct(verb="flush", where="B2 C3")))["messages"] == 1
    assert relay.store.acts.acted == [(Flush(), ("A1", "B2")), (Flush(), ("B2",))]
    assert relay.woken == 2


async def test_an_act_says_who_did_it_why_and_how_much(tmp_path: Path) -> None:
    who = user_name(os.getuid())
    async with running(tmp_path, "A1", "B2") as relay:
        act = QueueAct(verb="hold", where="A1", reason="they asked")
        assert await ask(tmp_path, act) == {"looked": 2, "messages": 1, "recipients": 1, "busy": 0}
    assert relay.told == [
        Noted(Program.POSTSUPER, f"placed on hold (by {who}: they asked)", "A1"),
        Noted(Program.POSTSUPER, "Placed on hold: 1 message"),
    ]
    assert relay.woken == 0


async def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, "A1", "B2") as relay:
        done = await ask(tmp_path, QueueAct(verb="delete", where="ALL", dry_run=True))
    assert (done["messages"], done["recipients"]) == (2, 2)
    assert (relay.store.acts.acted, relay.told, relay.woken) == ([], [], 0)


async def test_an_override_is_told_as_a_warning_with_its_reason(tmp_path: Path) -> None:
    who = user_name(os.getuid())
    async with running(tmp_path, "A1") as relay:
        await ask(tmp_path, QueueAct(verb="requeue", where="A1", tls_level="may", reason="their key is lost"))
    ((what, _),) = relay.store.acts.acted
    assert isinstance(what, Requeue)
    assert what.override == TlsOverride(level=Level.MAY, by=who, at=NOW, reason="their key is lost")
    text = f"requeued, TLS level may instead of what maps and defaults say (by {who}: their key is lost)"
    assert relay.told[0] == Warned(Program.POSTSUPER, text, "A1")


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (QueueAct(verb="hold", where=""), "position 1: expected a term"),
        (QueueAct(verb="hold", where="age>1h and colour:red"), "position 12: no term is called colour"),
        (QueueAct(verb="eat", where="ALL"), "'eat' is not a valid Verb"),
        (QueueAct(verb="requeue", where="ALL", tls_level="may"), "needs a reason"),
        (QueueAct(verb="requeue", where="ALL", tls_level="may", reason="  "), "needs a reason"),
        (QueueAct(verb="requeue", where="ALL", tls_level="fingerprint", reason="x"), "needs fingerprints"),
        (QueueAct(verb="requeue", where="ALL", tls_level="halfdane", reason="x"), "invalid security level"),
        (QueueAct(verb="release", where="ALL", tls_level="none", reason="x"), "only what is requeued"),
    ],
)
async def test_acts_that_cannot_be(tmp_path: Path, act: QueueAct, words: str) -> None:
    async with running(tmp_path, "A1") as relay:
        with pytest.raises(CallFailed, match=re.escape(words)):
            await ask(tmp_path, act)
    assert relay.store.acts.acted == []


async def test_rules_for_mail_that_comes_in(tmp_path: Path) -> None:
    async with running(tmp_path) as relay:
        rule = await ask(tmp_path, HoldRuleAdd("domain:a.example", "migration"))
        assert (rule["number"], rule["filter"], rule["reason"]) == (1, "domain:a.example", "migration")
        with pytest.raises(CallFailed, match="can ask for domain, rcpt, sender"):
            await ask(tmp_path, HoldRuleAdd("age>1h"))
        listed = await asyncio.to_thread(lambda: list(converse(tmp_path, HoldRules(), timeout=20.0)))
        assert listed == [Item(rule), Done({})]
        assert await ask(tmp_path, HoldRuleRemove(7)) == {"removed": False}
        assert await ask(tmp_path, HoldRuleRemove(1)) == {"removed": True}
    assert [each.text.partition(" by ")[0] for each in relay.told if isinstance(each, Noted)] == [
        "hold rule 1 made",
        "hold rule 1 ended",
    ]


async def test_a_filtered_listing(tmp_path: Path) -> None:
    async with running(tmp_path, "A1", "B2", "C3"):
        listed = await listing(tmp_path, where="not B2")
    assert [each["queue_id"] for each in listed] == ["A1", "C3"]


async def test_reload_says_how_it_went(tmp_path: Path) -> None:
    async with running(tmp_path) as relay:
        relay.reloads.append(Reloaded(False, ("tls_policy:3: bad",)))
        assert await ask(tmp_path, Reload()) == {"accepted": False, "messages": ["tls_policy:3: bad"]}
        assert await ask(tmp_path, Reload()) == {"accepted": True, "messages": ["maps read"]}


async def test_stop(tmp_path: Path) -> None:
    async with running(tmp_path) as relay:
        assert await ask(tmp_path, Stop()) == {"pid": os.getpid()}
        await asyncio.wait_for(relay.stopped.wait(), 20)


async def test_a_listing_of_many_pages(tmp_path: Path) -> None:
    ids = [f"Q{number:05d}" for number in range(2 * PAGE + 1)]
    async with running(tmp_path, *ids) as relay:
        assert await listing(tmp_path) == [entry_object(each) for each in relay.store.queued]
        assert [each["queue_id"] for each in await listing(tmp_path, "Q00198")] == ["Q00199", "Q00200"]


async def test_an_empty_listing(tmp_path: Path) -> None:
    async with running(tmp_path):
        assert await listing(tmp_path) == []


async def test_a_message_with_many_recipients_is_put_together_again(tmp_path: Path) -> None:
    async with running(tmp_path) as relay:
        many = entry("A", *(pending(number, reason="x" * 900) for number in range(2 * RECIPIENTS_A_LINE + 1)))
        exactly = entry("B", *(pending(number) for number in range(RECIPIENTS_A_LINE)))
        relay.store.queued = [many, exactly]
        assert await listing(tmp_path) == [entry_object(many), entry_object(exactly)]


async def test_a_store_that_does_not_answer(tmp_path: Path) -> None:
    async with running(tmp_path) as relay:
        relay.store.broken = "disk I/O error"
        with pytest.raises(CallFailed, match="disk I/O error"):
            await ask(tmp_path, QueueCount())
        with pytest.raises(CallFailed, match="disk I/O error"):
            await listing(tmp_path)


async def test_the_socket_is_for_its_owner_only(tmp_path: Path) -> None:
    async with running(tmp_path):
        assert stat.S_IMODE((tmp_path / "control").stat().st_mode) == 0o600


async def test_a_stranger_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, uid_of=lambda _: os.geteuid() + 4711) as relay:
        with pytest.raises(CallFailed, match="only the user that the relay runs as"):
            await ask(tmp_path, Stop())
        assert not relay.stopped.is_set()


async def test_the_peer_is_who_the_kernel_says() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert peer_uid(ours) == os.geteuid()


async def test_a_socket_left_by_a_killed_relay_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "control"))
    with pytest.raises(NoRelay):
        await ask(tmp_path, Status())
    async with running(tmp_path):
        assert "pid" in await ask(tmp_path, Status())


async def test_the_socket_goes_with_the_relay(tmp_path: Path) -> None:
    async with running(tmp_path):
        pass
    assert not (tmp_path / "control").exists()
    with pytest.raises(NoRelay, match="no relay runs on state_dir"):
        await ask(tmp_path, Status())


async def test_a_state_dir_of_any_length(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    async with running(deep, "A"):
        assert stat.S_IMODE((deep / "control").stat().st_mode) == 0o600
        assert [each["queue_id"] for each in await listing(deep)] == ["A"]
    assert not (deep / "control").exists()


async def test_a_socket_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "control").mkdir()
    with pytest.raises(ControlFailed, match=r"control socket .*/control: "):
        async with running(tmp_path):
            pass


async def talk(state_dir: Path, data: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(state_dir / "control"))
    writer.write(data)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return answer


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"", b"x" * (2 * MAX_REQUEST), b'{"v":7}\n'])
async def test_garbage_is_answered_and_does_no_harm(tmp_path: Path, data: bytes) -> None:
    async with running(tmp_path) as relay:
        try:
            assert b'"error":"bad request' in await talk(tmp_path, data)
        except (ConnectionResetError, BrokenPipeError):
            assert len(data) > MAX_REQUEST  # cut off while still writing
        assert "pid" in await ask(tmp_path, Status())
        assert not relay.stopped.is_set()


async def test_a_silent_client_is_cut_off(tmp_path: Path) -> None:
    async with running(tmp_path, limits=Limits(read=0.01)):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "control"))
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()


async def test_a_client_that_does_not_read_is_cut_off(tmp_path: Path) -> None:
    async with running(tmp_path, limits=Limits(write=0.05)) as relay:
        many = [pending(number, reason="x" * 900) for number in range(RECIPIENTS_A_LINE)]
        relay.store.queued = [entry(f"Q{number:05d}", *many) for number in range(50)]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "control"))
            client.sendall(encode_request(QueueList()))
            hang_up = select.poll()
            hang_up.register(client, 0)  # POLLHUP is always told
            assert await asyncio.to_thread(hang_up.poll, 20_000), "the server waits for ever"


async def test_too_many_at_once(tmp_path: Path) -> None:
    async with running(tmp_path):
        silent = [await asyncio.open_unix_connection(str(tmp_path / "control")) for _ in range(MAX_CONNECTIONS)]
        with pytest.raises(CallFailed, match="too many commands at once"):
            await ask(tmp_path, Status())
        for _, writer in silent:
            writer.close()


async def test_the_end_does_not_wait_for_conversations(tmp_path: Path) -> None:
    async with running(tmp_path) as relay:
        relay.store.may_answer.clear()
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "control"))
        writer.write(encode_request(QueueCount()))
        await asyncio.wait_for(relay.store.asked.wait(), 20)
    assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()


async def test_no_relay_and_no_directory(tmp_path: Path) -> None:
    with pytest.raises(NoRelay, match="nowhere"):
        await ask(tmp_path / "nowhere", Status())
