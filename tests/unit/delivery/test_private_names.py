"""The canary: aiosmtplib's private names that relay/delivery/client.py uses are there and mean what they meant."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path

from aiosmtplib.protocol import SMTPProtocol

import relay.delivery.client

USED = {"_drain_helper", "_loop", "_over_ssl"}


async def test_names_exist() -> None:
    protocol = SMTPProtocol(asyncio.get_running_loop())
    assert protocol._loop is asyncio.get_running_loop()
    assert protocol._over_ssl is False
    assert inspect.iscoroutinefunction(protocol._drain_helper)


async def test_drain_helper_waits_while_writing_is_paused() -> None:
    protocol = SMTPProtocol(asyncio.get_running_loop())
    await protocol._drain_helper()
    protocol.pause_writing()
    waiting = asyncio.create_task(protocol._drain_helper())
    await asyncio.sleep(0)
    assert not waiting.done()
    protocol.resume_writing()
    await waiting


def test_no_other_private_name_is_used() -> None:
    """Private names on ``self`` are our own class's, or listed."""
    source = Path(relay.delivery.client.__file__).read_text()
    connection = source[source.index("class SmtpConnection") : source.index("async def connect(")]
    ours = set(re.findall(r"self\.(_\w+)(?::[^=\n]+)? = ", connection)) | set(re.findall(r"def (_\w+)", connection))
    used = set(re.findall(r"self\.(_[a-z]\w*)", connection))
    assert used - ours <= USED
    inherited = {name for name in ours if hasattr(SMTPProtocol, name)} - {"__init__"}
    assert not inherited, f"these would overwrite the library's: {inherited}"
