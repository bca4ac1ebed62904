from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relay.cli.queue import command
from relay.control.lock import hold
from relay.mail.envelope import Address, Client, Envelope, QueueId, Recipient, RecipientId
from relay.mail.names import Domain
from relay.queue.sqlite import SqliteStore
from relay.queue.store import NewMessage
from tests.unit.cli.relays import running
from tests.unit.control.stores import NOW, entry


def queue(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(each) for each in arguments])


async def content() -> AsyncIterator[bytes]:
    yield b"Subject: x\r\n\r\nhello\r\n"


def fill(path: Path, *ids: str) -> None:
    """Leave a queue behind, as a relay that has ended."""

    async def put() -> None:
        store = await SqliteStore.open(path, clock=lambda: NOW)
        try:
            for queue_id in ids:
                domain = Domain.parse("good.example")
                recipient = Recipient(id=RecipientId(1), address=Address("user@good.example", domain))
                envelope = Envelope(
                    sender=Address("a@good.example", domain),
                    recipients=(recipient,),
                    client=Client(address=ip_address("127.0.0.1")),
                )
                new = NewMessage(
                    queue_id=QueueId(queue_id),
                    envelope=envelope,
                    arrived_at=datetime.now(UTC),
                    destinations={recipient.id: "good.example"},
                )
                await store.put(new, content())
        finally:
            await store.close()

    asyncio.run(put())


def test_list_asks_the_running_relay(tmp_path: Path) -> None:
    with running(tmp_path, entry("A"), entry("B")):
        listed = queue("list", "--state-dir", tmp_path, "--format", "postfix")
    assert listed.exit_code == 0
    assert listed.output.startswith("----Queue ID-----")
    assert listed.output.endswith("\n-- 2 Kbytes in 2 Requests.\n")


def test_list_as_json(tmp_path: Path) -> None:
    with running(tmp_path, entry("A"), entry("B")):
        objects = queue("list", "--state-dir", tmp_path, "--json").output.splitlines()
        same = queue("list", "--state-dir", tmp_path, "--format", "json").output.splitlines()
    assert [json.loads(line)["queue_id"] for line in objects] == ["A", "B"]
    assert same == objects


def test_list_without_a_relay_reads_the_store(tmp_path: Path) -> None:
    fill(tmp_path / "queue.sqlite", "4XYZ0z1", "4XYZ0z2")
    listed = queue("list", "--state-dir", tmp_path, "--json")
    assert listed.exit_code == 0
    assert [json.loads(line)["queue_id"] for line in listed.output.splitlines()] == ["4XYZ0z1", "4XYZ0z2"]
    with hold(tmp_path):
        pass  # and gave the directory back


def test_an_empty_queue(tmp_path: Path) -> None:
    assert queue("list", "--state-dir", tmp_path, "--format", "postfix").output == "Mail queue is empty\n"
    assert queue("list", "--state-dir", tmp_path).output == "The queue is empty.\n"
    assert not (tmp_path / "queue.sqlite").exists()


def test_flush_through_the_relay(tmp_path: Path) -> None:
    with running(tmp_path, entry("A"), entry("B")) as relay:
        everything = queue("flush", "--state-dir", tmp_path)
        one = queue("flush", "--state-dir", tmp_path, "B")
    assert (everything.exit_code, everything.output) == (0, "2 deliveries are tried now.\n")
    assert (one.exit_code, one.output) == (0, "1 deliveries are tried now.\n")
    assert relay.store.flushed == [(NOW, ()), (NOW, ("B",))]
    assert relay.woken == 2


def test_flush_without_a_relay_is_for_its_next_start(tmp_path: Path) -> None:
    fill(tmp_path / "queue.sqlite", "4XYZ0z1")
    flushed = queue("flush", "--state-dir", tmp_path)
    assert flushed.exit_code == 0
    assert "when the relay starts" in flushed.output


def test_flush_of_a_message_that_is_not_there(tmp_path: Path) -> None:
    with running(tmp_path, entry("A")):
        assert queue("flush", "--state-dir", tmp_path, "B").exit_code == 1


def test_flush_of_what_is_no_queue_id(tmp_path: Path) -> None:
    refused = queue("flush", "--state-dir", tmp_path, "../B")
    assert refused.exit_code == 2
    assert "not a queue ID" in refused.output


def test_summary(tmp_path: Path) -> None:
    with running(tmp_path, entry("A")):
        asked = json.loads(queue("summary", "--state-dir", tmp_path, "--json").output)
        told = queue("summary", "--state-dir", tmp_path).output
    assert asked["messages"] == 1
    assert "deferred    1 deliveries" in told
    fill(tmp_path / "queue.sqlite", "4XYZ0z1", "4XYZ0z2")
    assert json.loads(queue("summary", "--state-dir", tmp_path, "--json").output)["messages"] == 2


def test_the_configuration_says_where(tmp_path: Path) -> None:
    fill(tmp_path / "mail.db", "4XYZ0z1")
    config = tmp_path / "relay.toml"
    config.write_text('[relay]\nmyhostname = "relay.example"\nstate_dir = "."\n[queue]\nurl = "sqlite:mail.db"\n')
    listed = queue("list", "-c", config, "--json")
    assert [json.loads(line)["queue_id"] for line in listed.output.splitlines()] == ["4XYZ0z1"]


def test_a_configuration_with_faults(tmp_path: Path) -> None:
    config = tmp_path / "relay.toml"
    config.write_text("[relay]\nnonsense = 1\n[nowhere]\n")
    refused = queue("list", "-c", config)
    assert refused.exit_code == 1
    assert f"{config}:2: " in refused.output
    assert f"{config}:3: " in refused.output


@pytest.mark.parametrize("arguments", [[], ["-c", "x", "--state-dir", "y"]])
def test_which_relay_must_be_said_once(arguments: list[str]) -> None:
    refused = queue("list", *arguments)
    assert refused.exit_code == 2
    assert "either -c FILE or --state-dir DIR" in refused.output


def test_a_state_dir_that_is_not_there(tmp_path: Path) -> None:
    refused = queue("list", "--state-dir", tmp_path / "nowhere")
    assert refused.exit_code == 1
    assert str(tmp_path / "nowhere") in refused.output


def test_a_relay_that_holds_the_directory_and_does_not_answer(tmp_path: Path) -> None:
    with hold(tmp_path):
        refused = queue("list", "--state-dir", tmp_path)
    assert refused.exit_code == 75
    assert "does not answer on its control socket" in refused.output


def test_a_relay_whose_store_is_broken(tmp_path: Path) -> None:
    with running(tmp_path, entry("A")) as relay:
        relay.store.broken = "disk I/O error"
        refused = queue("list", "--state-dir", tmp_path)
    assert refused.exit_code == 1
    assert "disk I/O error" in refused.output


def test_a_file_that_is_no_queue(tmp_path: Path) -> None:
    (tmp_path / "queue.sqlite").write_bytes(b"not a database, whatever it looks like" * 100)
    refused = queue("list", "--state-dir", tmp_path)
    assert refused.exit_code == 75
    assert "the queue cannot be read" in refused.output
