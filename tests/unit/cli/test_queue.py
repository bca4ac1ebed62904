from __future__ import annotations

import asyncio
import json
import re
import tarfile
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
from relay.queue.acts import Flush
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


def test_list_what_a_filter_means(tmp_path: Path) -> None:
    with running(tmp_path, entry("A1"), entry("B2")):
        asked = queue("list", "--state-dir", tmp_path, "--json", "not", "B2")
    assert [json.loads(line)["queue_id"] for line in asked.output.splitlines()] == ["A1"]
    fill(tmp_path / "queue.sqlite", "A1", "B2")
    alone = queue("list", "--state-dir", tmp_path, "--json", "B2 and domain:good.example")
    assert [json.loads(line)["queue_id"] for line in alone.output.splitlines()] == ["B2"]


def test_a_filter_with_a_fault_shows_where(tmp_path: Path) -> None:
    refused = queue("list", "--state-dir", tmp_path, "age>1h", "colour:red")
    assert refused.exit_code == 2
    assert "no term is called colour" in refused.output
    assert "    age>1h colour:red\n           ^\n" in refused.output


def test_flush_through_the_relay(tmp_path: Path) -> None:
    with running(tmp_path, entry("A1"), entry("B2")) as relay:
        everything = queue("flush", "--state-dir", tmp_path)
        one = queue("flush", "--state-dir", tmp_path, "B2")
    assert (everything.exit_code, everything.output) == (0, "2 recipients of 2 messages are to be tried now.\n")
    assert (one.exit_code, one.output) == (0, "1 recipient of 1 message is to be tried now.\n")
    assert relay.store.acts.acted == [(Flush(), ("A1", "B2")), (Flush(), ("B2",))]
    assert relay.woken == 2


def test_flush_of_a_message_that_is_not_there(tmp_path: Path) -> None:
    with running(tmp_path, entry("A1")):
        assert queue("flush", "--state-dir", tmp_path, "B2").exit_code == 1
    assert queue("flush", "--state-dir", tmp_path, "B2").exit_code == 1


def held(path: Path) -> list[str]:
    listed = queue("list", "--state-dir", path, "--json", "status:hold")
    assert listed.exit_code == 0, listed.output
    return [json.loads(line)["queue_id"] for line in listed.output.splitlines()]


def test_hold_and_release_without_a_relay(tmp_path: Path) -> None:
    fill(tmp_path / "queue.sqlite", "A1", "B2", "C3")
    done = queue("hold", "--state-dir", tmp_path, "A1", "B2", "--reason", "they asked")
    assert (done.exit_code, done.stdout) == (0, "2 recipients of 2 messages are placed on hold.\n")
    assert re.search(r"postsuper\[\d+\]: A1: placed on hold \(by \w+: they asked\)", done.stderr)
    assert held(tmp_path) == ["A1", "B2"]
    again = json.loads(queue("release", "--state-dir", tmp_path, "B2", "--json").stdout)
    assert again == {"command": "release", "dry_run": False, "looked": 1, "messages": 1, "recipients": 1, "busy": 0}
    assert held(tmp_path) == ["A1"]
    with hold(tmp_path):
        pass  # and gave the directory back


def test_a_dry_run_without_a_relay(tmp_path: Path) -> None:
    fill(tmp_path / "queue.sqlite", "A1", "B2")
    would = queue("delete", "--state-dir", tmp_path, "ALL", "--dry-run")
    assert (would.exit_code, would.output) == (0, "2 recipients of 2 messages would be deleted.\n")
    assert len(queue("list", "--state-dir", tmp_path, "--json").output.splitlines()) == 2


@pytest.mark.parametrize("verb", ["delete", "bounce"])
def test_what_cannot_be_undone_needs_a_yes(tmp_path: Path, verb: str) -> None:
    fill(tmp_path / "queue.sqlite", "A1")
    refused = queue(verb, "--state-dir", tmp_path, "ALL")
    assert refused.exit_code == 2
    assert "say --yes to do it" in refused.output
    assert len(queue("list", "--state-dir", tmp_path, "--json").output.splitlines()) == 1


def test_at_a_terminal_it_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "queue.sqlite", "A1")
    monkeypatch.setattr("relay.cli.queue_acts._somebody_is_there", lambda: True)
    arguments = ["delete", "--state-dir", str(tmp_path), "ALL"]
    refused = CliRunner().invoke(command, arguments, input="n\n")
    assert refused.exit_code == 1
    assert "Mail to 1 recipient of 1 message is deleted, and no sender is told. Go on?" in refused.stderr
    assert len(queue("list", "--state-dir", tmp_path, "--json").output.splitlines()) == 1
    assert CliRunner().invoke(command, arguments, input="y\n").exit_code == 0
    assert queue("list", "--state-dir", tmp_path, "--json").output == ""


def test_delete_without_a_relay(tmp_path: Path) -> None:
    fill(tmp_path / "queue.sqlite", "A1", "B2")
    assert queue("delete", "--state-dir", tmp_path, "A1", "--yes").exit_code == 0
    left = queue("list", "--state-dir", tmp_path, "--json").output.splitlines()
    assert [json.loads(line)["queue_id"] for line in left] == ["B2"]


def test_bounce_and_requeue_without_a_relay_need_its_configuration(tmp_path: Path) -> None:
    fill(tmp_path / "queue.sqlite", "A1")
    for arguments in (("bounce", "--yes"), ("requeue",)):
        refused = queue(*arguments, "--state-dir", tmp_path, "ALL")
        assert refused.exit_code == 2
        assert "say -c FILE" in refused.output


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "relay.toml"
    file.write_text(
        '[relay]\nmyhostname = "relay.example"\nstate_dir = "."\n[smtp]\nrelayhost = "[smart.example]:587"\n'
    )
    return file


def test_whoever_only_looks_does_not_depend_on_rules(tmp_path: Path, config: Path) -> None:
    fill(tmp_path / "queue.sqlite", "A1")
    with config.open("a") as file:
        file.write('tls_CAfile = "relay.toml"\n')
    listed = queue("list", "-c", config, "--json")
    assert json.loads(listed.output)["queue_id"] == "A1"
    done = queue("hold", "-c", config, "A1")
    assert done.exit_code == 0, (done.output, done.exception)
    refused = queue("requeue", "-c", config, "A1")
    assert refused.exit_code == 1
    assert "relay.toml" in refused.output
    assert held(tmp_path) == ["A1"]


def test_bounce_without_a_relay_writes_to_the_sender(tmp_path: Path, config: Path) -> None:
    fill(tmp_path / "queue.sqlite", "A1")
    done = queue("bounce", "-c", config, "ALL", "--yes", "--reason", "the domain is gone")
    assert done.exit_code == 0, done.output
    assert "to=<user@good.example>, relay=none" in done.stderr
    assert "dsn=5.4.7, status=bounced (returned to sender by the mail administrator: the domain is gone)" in done.stderr
    (left,) = map(json.loads, queue("list", "-c", config, "--json").output.splitlines())
    assert (left["sender"], left["recipients"][0]["address"]) == ("MAILER-DAEMON", "a@good.example")
    shown = queue("show", "-c", config, left["queue_id"])
    assert "Subject: Undelivered Mail Returned to Sender" in shown.output


def test_requeue_with_a_tls_level_of_its_own(tmp_path: Path, config: Path) -> None:
    fill(tmp_path / "queue.sqlite", "A1", "B2")
    refused = queue("requeue", "-c", config, "A1", "--tls-level", "may")
    assert (refused.exit_code, "needs --reason" in refused.output) == (2, True)
    done = queue("requeue", "-c", config, "A1", "--tls-level", "may", "--reason", "their key is lost")
    assert done.exit_code == 0, done.output
    assert "warning: A1: requeued, TLS level may instead of what maps and defaults say (by " in done.stderr
    (first, second) = map(json.loads, queue("list", "-c", config, "--json").output.splitlines())
    override = first["recipients"][0]["tls_override"]
    assert (override["level"], override["reason"]) == ("may", "their key is lost")
    assert first["recipients"][0]["destination"] == "[smart.example]:587"
    assert "tls_override" not in second["recipients"][0]
    words = f"TLS level may: override by {override['by']} at {override['at']}: their key is lost"
    assert words in queue("list", "-c", config).output
    assert words in queue("show", "-c", config, "A1").output


def test_rules_for_mail_that_comes_in(tmp_path: Path) -> None:
    fill(tmp_path / "queue.sqlite", "A1")
    made = queue("hold", "--state-dir", tmp_path, "--future", "domain:good.example", "--reason", "migration")
    assert (made.exit_code, made.stdout) == (0, "Rule 1: what comes in and fits is held; --remove 1 ends it.\n")
    fill(tmp_path / "queue.sqlite", "B2")
    assert held(tmp_path) == ["B2"]
    assert "1  domain:good.example  (by " in queue("hold", "--state-dir", tmp_path, "--rules").stdout
    assert queue("hold", "--state-dir", tmp_path, "--remove", "1").exit_code == 0
    assert queue("hold", "--state-dir", tmp_path, "--remove", "1").exit_code == 1
    assert queue("hold", "--state-dir", tmp_path, "--rules").stdout == "Mail that comes in is not held.\n"
    late = queue("hold", "--state-dir", tmp_path, "--future", "age>1h")
    assert (late.exit_code, "are known" in late.output) == (2, True)


def test_show(tmp_path: Path) -> None:
    fill(tmp_path / "queue.sqlite", "A1")
    shown = queue("show", "--state-dir", tmp_path, "A1").output
    assert "recipient   user@good.example\n" in shown
    assert shown.endswith("\nSubject: x\n")
    assert json.loads(queue("show", "--state-dir", tmp_path, "A1", "--json").output)["header"] == "Subject: x\n"
    missing = queue("show", "--state-dir", tmp_path, "B2")
    assert (missing.exit_code, "no such message" in missing.output) == (1, True)
    assert queue("show", "--state-dir", tmp_path, "../B").exit_code == 2


def test_summary(tmp_path: Path) -> None:
    with running(tmp_path, entry("A")):
        asked = json.loads(queue("summary", "--state-dir", tmp_path, "--json").output)
        told = queue("summary", "--state-dir", tmp_path).output
    assert asked["messages"] == 1
    assert "deferred    1 deliveries" in told
    fill(tmp_path / "queue.sqlite", "4XYZ0z1", "4XYZ0z2")
    assert json.loads(queue("summary", "--state-dir", tmp_path, "--json").output)["messages"] == 2


def test_summary_by_what_recipients_have_in_common(tmp_path: Path) -> None:
    fill(tmp_path / "queue.sqlite", "A1", "B2", "C3")
    told = queue("summary", "--state-dir", tmp_path, "--by", "domain", "not", "B2").output.splitlines()
    assert told[0].split() == ["Recipients", "Oldest", "Group"]
    assert re.fullmatch(r" +2  \d{4}-\d\d-\d\d [\d:]{8}  good\.example", told[1])
    (asked,) = queue("summary", "--state-dir", tmp_path, "--by", "sender", "--json").output.splitlines()
    assert {key: json.loads(asked)[key] for key in ("group", "recipients")} == {
        "group": "a@good.example",
        "recipients": 3,
    }
    assert "means nothing" in queue("summary", "--state-dir", tmp_path, "--by", "reason", "Z9").output
    assert queue("summary", "--state-dir", tmp_path, "A1").exit_code == 2


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


def test_backup_asks_the_running_relay(tmp_path: Path) -> None:
    with running(tmp_path, entry("A1")):
        done = queue("backup", tmp_path / "copy.tar", "--state-dir", tmp_path)
        assert (done.exit_code, done.stdout) == (
            0,
            f"{tmp_path}/copy.tar: 1 messages, 0 of them in files of their own, 0.0 MiB.\n",
        )
        refused = queue("backup", tmp_path / "refused", "--state-dir", tmp_path)
        assert (refused.exit_code, "is there already" in refused.stderr) == (1, True)


def test_backup_without_a_relay(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    assert "there is no queue yet" in queue("backup", tmp_path / "copy.tar", "--state-dir", state).stderr
    fill(state / "queue.sqlite", "A1", "A2")
    done = queue("backup", tmp_path / "copy.tar", "--state-dir", state)
    assert done.exit_code == 0, done.stderr
    assert "2 messages" in done.stdout
    restored = tmp_path / "restored"
    restored.mkdir()
    with tarfile.open(tmp_path / "copy.tar") as archive:
        archive.extractall(restored, filter="data")
    listed = queue("list", "--json", "--state-dir", restored)
    assert [json.loads(line)["queue_id"] for line in listed.stdout.splitlines()] == ["A1", "A2"]
    assert queue("backup", tmp_path / "copy.tar", "--state-dir", state).exit_code == 1
