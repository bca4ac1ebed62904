"""pflogsumm reads our log of a real run and counts what really happened."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop import servers
from tests.interop.world import World
from tests.relay_process import RelayProcess

pytestmark = pytest.mark.interop

SENDER = "sender@ee.test"  # its own mail is deliverable here, so the bounce arrives
DELIVERED = ("ee.test", "ta.test", "clear.test")
DEFERRED = ("mismatch.test", "stripped.test")
BOUNCED = "unknown.ee.test"  # leads to mx-ee, which takes no mail for it: 554 5.7.1


@pytest.fixture
def fresh_relay(real_world: World, tmp_path: Path) -> Iterator[RelayProcess]:
    """A relay with a log of its own, which leaves out ``tls=``: pflogsumm 1.1.5 counts no status line that has it."""
    settings = real_world.relay_settings()
    settings["smtp"]["log_tls_feature_status"] = False
    with RelayProcess(tmp_path, settings, {"tls_policy": real_world.tls_policy}) as running:
        yield running


@pytest.fixture(scope="module")
def pflogsumm() -> Path:
    return servers.require("pflogsumm")


def grand_totals(report: str) -> dict[str, int]:
    section = report.partition("Grand Totals")[2].partition("Per-")[0]
    return {word: int(number) for number, word in re.findall(r"^\s*(\d+)\s+([a-z]+)\b", section, re.MULTILINE)}


def test_counts_are_what_happened(pflogsumm: Path, fresh_relay: RelayProcess, real_world: World) -> None:
    before = len(real_world.postfix.delivered())

    def send(domain: str) -> str:
        content = f"From: <{SENDER}>\r\nSubject: to {domain}\r\n\r\nHello.\r\n".encode()
        return fresh_relay.send(content, sender=SENDER, recipients=[f"user@{domain}"])

    for domain in (*DELIVERED, *DEFERRED):
        fresh_relay.wait_for_status(send(domain))
    bounced = send(BOUNCED)
    assert "status=bounced" in fresh_relay.wait_for_status(bounced)
    report_id = fresh_relay.process.wait_for(rf"{bounced}: sender non-delivery notification: (\S+)")[1]
    assert "status=sent" in fresh_relay.wait_for_status(report_id)
    fresh_relay.stop()

    stored = len(real_world.postfix.delivered()) - before
    assert stored == len(DELIVERED) + 1
    done = subprocess.run([pflogsumm, fresh_relay.log], capture_output=True, text=True, timeout=60, check=True)
    totals = grand_totals(done.stdout)
    assert totals["received"] == len(DELIVERED) + len(DEFERRED) + 1
    assert totals["delivered"] == stored
    assert totals["deferred"] == len(DEFERRED)
    assert totals["bounced"] == 1
    assert totals["rejected"] == 0
    assert f"{len(DEFERRED)}  deferrals" in done.stdout
