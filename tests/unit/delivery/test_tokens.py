"""Tokens from files and commands: kept while they are good, within limits, and never in a message."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from relay.delivery.tokens import AFTER_FAILURE, UNKNOWN_LIFE, Tokens, TokenUnavailable
from relay.sasl.credentials import TokenCommand, TokenFile
from tests.watched_process import PATIENCE


@dataclass
class Clock:
    now: datetime = datetime(2026, 11, 26, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def command(directory: Path, body: str) -> TokenCommand:
    """A script that counts its runs in ``runs``."""
    script = directory / "get-token"
    script.write_text(f"#!/bin/sh\necho x >> {directory}/runs\n{body}\n")
    script.chmod(0o755)
    return TokenCommand((str(script), "a b; echo c"))


def runs(directory: Path) -> int:
    return len((directory / "runs").read_text().split())


async def test_a_file_is_read_each_time(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "token"
    tokens = Tokens(clock=clock)
    for text in ("one", "two"):
        file.write_text(text)
        assert (await tokens.get(TokenFile(str(file)))).reveal() == text


async def test_a_file_whose_token_expired_is_of_no_use(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "token"
    file.write_text('{"access_token": "hush", "expiry": "2026-11-26T11:59:59Z"}')
    with pytest.raises(TokenUnavailable, match=r"the token expired at 2026-11-26 11:59:59 UTC") as caught:
        await Tokens(clock=clock).get(TokenFile(str(file)))
    assert "hush" not in str(caught.value)


async def test_a_file_that_is_a_pipe_or_missing_holds_nobody_up(tmp_path: Path, clock: Clock) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, found in (("pipe", "is no file"), ("missing", "No such file"), (".", "is no file")):
        with pytest.raises(TokenUnavailable, match=found):
            await Tokens(clock=clock).get(TokenFile(str(tmp_path / name)))


async def test_a_command_runs_once_for_all_and_its_token_is_kept(tmp_path: Path, clock: Clock) -> None:
    source = command(tmp_path, 'printf \'{"access_token": "tok", "expires_in": 3600}\'')
    tokens = Tokens(clock=clock)
    found = await asyncio.gather(*(tokens.get(source) for _ in range(5)))
    assert {each.reveal() for each in found} == {"tok"}
    clock.now += timedelta(seconds=3500)
    await tokens.get(source)
    assert runs(tmp_path) == 1
    clock.now += timedelta(seconds=50)
    await tokens.get(source)
    assert runs(tmp_path) == 2, "a minute before it expires"


async def test_a_token_without_an_expiry_is_kept_for_a_while(tmp_path: Path, clock: Clock) -> None:
    source = command(tmp_path, "echo tok")
    tokens = Tokens(clock=clock)
    for _ in range(2):
        await tokens.get(source)
    clock.now += UNKNOWN_LIFE
    await tokens.get(source)
    assert runs(tmp_path) == 2


async def test_a_refused_token_is_not_given_again(tmp_path: Path, clock: Clock) -> None:
    source = command(tmp_path, f"wc -l < {tmp_path}/runs")
    tokens = Tokens(clock=clock)
    first = await tokens.get(source)
    tokens.refused(source, first)
    second = await tokens.get(source)
    assert first != second
    tokens.refused(source, first)
    assert await tokens.get(source) == second, "the refusal of an old token says nothing of the new one"


async def test_no_shell_reads_the_arguments_and_our_own_variables_stay_here(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DANE_RELAY_SMTP__RELAYHOST", "hush")
    monkeypatch.setenv("TOKEN_HOME", "here")
    source = command(tmp_path, f'echo "$1" > {tmp_path}/argument; env > {tmp_path}/env; cat; echo tok')
    assert (await Tokens(clock=clock).get(source)).reveal() == "tok"
    assert (tmp_path / "argument").read_text() == "a b; echo c\n"
    environment = (tmp_path / "env").read_text()
    assert "TOKEN_HOME=here" in environment
    assert "hush" not in environment


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("echo hush >&2; exit 3", "exit status 3"),
        ("echo hush hush", "printed more than one word"),
        ("true", "printed nothing"),
        ("yes hush", "prints more than"),
        ('printf \'{"access_token": "hush", "expires_in": -1}\'', "has expired"),
    ],
)
async def test_a_command_that_fails_is_left_alone_for_a_while(
    tmp_path: Path, clock: Clock, body: str, found: str
) -> None:
    source = command(tmp_path, body)
    tokens = Tokens(clock=clock)
    for _ in range(3):
        with pytest.raises(TokenUnavailable, match=found) as caught:
            await tokens.get(source)
        assert "hush" not in str(caught.value)
    assert runs(tmp_path) == 1
    clock.now += AFTER_FAILURE
    with pytest.raises(TokenUnavailable):
        await tokens.get(source)
    assert runs(tmp_path) == 2


async def test_a_command_that_hangs_is_ended_with_all_its_children(tmp_path: Path, clock: Clock) -> None:
    source = command(tmp_path, f"sleep 1000 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/own; wait")
    with pytest.raises(TokenUnavailable, match=r"still running after 0\.3 s"):
        await Tokens(clock=clock, command_seconds=0.3).get(source)
    for name in ("child", "own"):
        pid = int((tmp_path / name).read_text())
        assert await _gone(pid), name


async def test_giving_up_ends_the_command(tmp_path: Path, clock: Clock) -> None:
    source = command(tmp_path, f"echo $$ > {tmp_path}/own.new; mv {tmp_path}/own.new {tmp_path}/own; exec sleep 1000")
    task = asyncio.create_task(Tokens(clock=clock).get(source))
    while not (tmp_path / "own").exists():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await _gone(int((tmp_path / "own").read_text()))


async def test_a_program_that_is_not_there(clock: Clock) -> None:
    with pytest.raises(TokenUnavailable, match="cannot be run: No such file or directory"):
        await Tokens(clock=clock).get(TokenCommand(("/nonexistent/get-token",)))


async def _gone(pid: int) -> bool:
    """Wait until a process has ended; one that nobody has waited for yet counts as ended."""
    async with asyncio.timeout(PATIENCE):
        while _state(pid) not in ("", "Z"):
            await asyncio.sleep(0.01)
    return True


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
