"""A worker that hangs: its parent ends it, another takes its place, and what it had is delivered."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from relay.app import watchman
from relay.app.notify import Notifier
from relay.app.supervisor import Supervisor, open_workers
from relay.config.load import load
from tests.integration.test_workers import CONTENT, settings
from tests.recording_sink import RecordingSink
from tests.relay_process import RelayProcess


async def other_process(supervisor: Supervisor, number: int, pid: int) -> None:
    """Return when a worker is up in another process."""
    member = supervisor.members[number - 1]
    async with asyncio.timeout(120):
        while member.pid == pid or not member.ready.is_set():
            await asyncio.sleep(0.02)


async def test_a_worker_that_does_not_answer_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watchman, "ASK_SECONDS", 0.1)
    monkeypatch.setattr(watchman, "PIECES", 5)
    with RecordingSink("127.0.0.1", 0) as sink:
        relay = RelayProcess(tmp_path, settings(sink.port))
        (tmp_path / "state").mkdir()
        config = load(relay.configuration, {}, hostname="relay.test")
        async with open_workers(config, source=relay.configuration, notifier=Notifier()) as supervisor:
            sink.close_gate()
            first, second = (member.pid for member in supervisor.members)
            os.kill(first, signal.SIGSTOP)
            sent = await asyncio.to_thread(relay.send, CONTENT, sender="a@client.test", recipients=["b@far.test"])
            await other_process(supervisor, 1, first)
            await asyncio.to_thread(sink.wait_for_body, 1)
            os.kill(second, signal.SIGSTOP)  # with a message that it delivers just now
            await other_process(supervisor, 2, second)
            await asyncio.to_thread(sink.wait_for_body, 2)
            sink.open_gate.set()
            messages = await asyncio.to_thread(sink.wait_for_messages, 1)
            assert sent.encode() in messages[0].content
    said = capfd.readouterr()
    for number in (1, 2):
        assert f"worker {number} does not answer since 5 s, and is killed" in said.out + said.err
        assert f"worker {number} ended (killed by SIGKILL); it is started again" in said.out + said.err
