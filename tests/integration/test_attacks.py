"""``lab attack`` and ``lab heal`` on a running lab: refused, explained, delivered once healed; docs/lab.md has the transcript.

``RELAY_TEST_WRITE=1`` writes the transcript into the document.
"""

from __future__ import annotations

import os
import re
import signal
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.watched_process import WatchedProcess

DOCUMENT = Path(__file__).parents[2] / "docs/lab.md"
BEGIN, END = "<!-- transcript: made by tests/integration/test_attacks.py -->\n", "<!-- end of transcript -->"
ANY_PORT = "127.0.0.1:0"
PATIENCE = 60


class Lab:
    """A lab that keeps running.

    :param directory: its own.
    """

    def __init__(self, process: WatchedProcess) -> None:
        self.process = process
        self.directory = Path(process.wait_for(r"Harm one: .* --lab (\S+)")[1])
        server = next(line for line in process.lines() if "swaks --server" in line)
        found = re.search(r"--server ([\d.]+):(\d+)", server)
        assert found is not None
        self.smtp = found[1], int(found[2])

    def line(self, pattern: str) -> str:
        """The first line of the log that has it, once it is there."""
        return self.process.wait_for(rf".*{pattern}.*")[0]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the relay's, as a person would type it."""
        return subprocess.run(
            [sys.executable, "-m", "relay", *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={**os.environ, "LAB_DIRECTORY": str(self.directory), "COLUMNS": "100"},
            check=False,
        )

    def send(self, recipient: str) -> None:
        with smtplib.SMTP(*self.smtp, local_hostname="client.test", timeout=PATIENCE) as session:
            session.sendmail("you@return.lab.test", [recipient], b"Subject: hello\r\n\r\nhello\r\n")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    command: list[str | Path] = [sys.executable, "-u", "-m", "relay", "lab", "--listen", ANY_PORT, "--http", ANY_PORT]
    log = tmp_path_factory.mktemp("lab") / "lab.log"
    with WatchedProcess(command, log=log, environment={"COLUMNS": "200"}) as process:
        yield Lab(process)
        os.kill(process.pid, signal.SIGINT)


ATTACKS = {
    "strip": ("good", "TLS is required, but was not offered by host"),
    "swap": ("self-signed", "Server certificate not verified"),
    "expire": ("ta", "Server certificate not verified"),
    "inject": ("full-key", "Cannot start TLS: handshake failure"),
}


@pytest.mark.parametrize("kind", ATTACKS)
def test_attacked_refused_healed_delivered(lab: Lab, kind: str) -> None:
    name, reason = ATTACKS[kind]
    recipient = f"{kind}@{name}.lab.test"
    assert lab.run("lab", "attack", kind, name).returncode == 0
    lab.send(recipient)
    refused = lab.line(rf"to=<{recipient}>.*status=deferred")
    assert reason in refused
    assert not any("status=sent" in line for line in lab.process.lines() if f"to=<{recipient}>" in line)
    assert lab.run("lab", "heal", name).returncode == 0
    assert "tls=dane" in lab.line(rf"to=<{recipient}>.*status=sent")


def test_a_bogus_zone(lab: Lab) -> None:
    """Of a name that nobody has looked up before, for what is known stays so: an absence that is not proved bounces nothing."""
    assert lab.run("lab", "attack", "bogus", "rsa").returncode == 0
    lab.send("bogus@new.rsa.lab.test")
    refused = lab.line(r"to=<bogus@new\.rsa\.lab\.test>.*status=deferred")
    assert "validation failure" in refused
    assert lab.run("lab", "heal", "rsa").returncode == 0
    assert "dsn=5.4.4" in lab.line(r"to=<bogus@new\.rsa\.lab\.test>.*status=bounced")


def test_mistakes_are_told(lab: Lab, tmp_path: Path) -> None:
    unknown = lab.run("lab", "attack", "strip", "nobody")
    assert unknown.returncode == 1
    assert "nobody is no destination of the lab" in unknown.stderr
    healthy = lab.run("lab", "heal", "good")
    assert healthy.returncode == 1
    assert "good.lab.test is not under attack" in healthy.stderr
    assert lab.run("lab", "attack", "bite", "good").returncode == 2


def test_the_transcript(lab: Lab) -> None:
    shown: list[str] = []

    def say(command: str, output: str) -> None:
        shown.extend((f"$ {command}", *output.rstrip().splitlines()))

    say("dane-relay lab attack strip good", lab.run("lab", "attack", "strip", "good").stdout)
    shown.append("$ swaks --server 127.0.0.1:2525 --to late@good.lab.test")
    lab.send("late@good.lab.test")
    shown.append(lab.line(r"to=<late@good\.lab\.test>.*status=deferred"))
    why = lab.run("explain", "good.lab.test", "--live", "-c", str(lab.directory / "relay.toml")).stdout
    wanted = ("level", "because", "session")
    say(
        "dane-relay explain good.lab.test --live -c relay.toml",
        "\n".join(
            ["…", *(line for line in why.splitlines() if line.split(maxsplit=1)[:1] and line.split()[0] in wanted)]
        ),
    )
    say("dane-relay lab heal good", lab.run("lab", "heal", "good").stdout)
    shown.append(lab.line(r"to=<late@good\.lab\.test>.*status=sent"))
    transcript = "```\n" + "\n".join(map(timeless, shown)) + "\n```\n"
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    written, _, after = rest.partition(END)
    if os.environ.get("RELAY_TEST_WRITE") == "1":
        DOCUMENT.write_text(before + BEGIN + transcript + END + after)
    else:
        assert written == transcript


def timeless(line: str) -> str:
    """Without what differs from run to run."""
    line = re.sub(r"^[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d", "Nov 26 05:16:24", line)
    line = re.sub(r"\[\d+\]: [0-9A-Za-z]{10,}:", "[7]: 4jZlBQ2m0Lz9x:", line)
    line = re.sub(r"delay=[\d.]+, delays=[\d./]+", "delay=0.1, delays=0/0/0.1/0", line)
    return re.sub(r"(?<=\]):\d+|(?<=_)\d+(?=\._tcp)", lambda found: ":25" if found[0][0] == ":" else "25", line)
