"""The relay, Postfix and Exim play all scenarios of the lab with real servers; docs/scoreboard.md is what came of it.

Each scenario that one of the others misses is explained here; one that is missed without a word, or explained and not missed
any more, fails. ``RELAY_TEST_WRITE=1`` writes the document.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from relay.lab.real.namespace import NoNamespace, command_inside
from relay.lab.scenarios import DESTINATIONS
from tests.interop import servers
from tests.interop.test_lab_real import ROOT, unpacked

__all__ = ["unpacked"]  # a fixture

PATIENCE: Final = 400
DOCUMENT: Final = ROOT / "docs/scoreboard.md"
NO_MAPS: Final = (
    "Exim has no policy maps; such a choice is a transport of its own there, which nobody wrote for this lab"
)
EXPLAINED: Final[Mapping[str, Mapping[str, str]]] = {
    "postfix": {
        "starttls-554": "Postfix believes a 5xx reply to STARTTLS, which anybody on the way can send, and bounces",
        "injected": "Postfix throws away what came in clear and goes on, as RFC 3207 allows; we take it for an attack and wait",
        "exception": "`until=` is ours; Postfix refuses the line, and the mail waits",
        "expired-exception": "`until=` is ours; Postfix refuses the line and does not call the host",
    },
    "exim": {
        "agility": "Exim (GnuTLS) takes any match, also where a stronger digest does not match (RFC 7671 section 9)",
        "wrong-name-ta": "Exim (GnuTLS) does not compare names under usage 2 (RFC 7672 section 3.2.3)",
        "cn-beside-san": "as wrong-name-ta",
        "partial-wildcard": "as wrong-name-ta",
        "refuses-554": "Exim believes a greeting that nobody has authenticated, and bounces",
        "halfdane": "Exim does not ask for TLSA behind insecure MX records and sends no SNI; the mail goes unverified",
        "alias-original": "Exim asks for TLSA at the end of a CNAME only, and sends no SNI; the mail goes unverified",
        "alias-insecure": "as alias-original",
        "tls-1-0": "Exim's GnuTLS accepts TLS 1.0",
        "may-line": NO_MAPS,
        "none-line": NO_MAPS,
        "encrypt-missing": NO_MAPS,
        "fingerprint-wrong": NO_MAPS,
        "secure-wrong-name": NO_MAPS,
        "secure-unknown-ca": NO_MAPS,
        "secure-expired": NO_MAPS,
        "dane-only": NO_MAPS,
        "dane-only-insecure": NO_MAPS,
        "exception": NO_MAPS,
        "bad-line": NO_MAPS,
        "no-utf8": "Exim converts the address, and the host takes it",
    },
}
HEAD: Final = """\
# The scoreboard

`tests/interop/test_scoreboard.py` lets three mail servers play the {total} scenarios of [the lab](lab.md) with real servers:
this relay, Debian 12's Postfix {postfix} (level `dane`, the same policy file and CA) and its Exim {exim}
(`hosts_try_dane = *`, GnuTLS). What counts is what the mail hosts saw; `RELAY_TEST_WRITE=1` writes this page. Our refusals
are stricter than the RFCs in places, and where another server's way is as good, the remark says so.

| server | as expected |
|---|---|
"""


@pytest.fixture(scope="module")
def found(unpacked: Path) -> Iterator[Mapping[str, Any]]:
    _fetch(unpacked)
    # Not pytest's directory: that is closed to the accounts that the servers run as.
    with tempfile.TemporaryDirectory(prefix="dane-relay-scoreboard-") as directory:
        Path(directory).chmod(0o755)
        yield _play(directory, unpacked)


def _play(directory: str, unpacked: Path) -> Mapping[str, Any]:
    program = [sys.executable, "-m", "tests.interop.scoreboard_run", directory, str(unpacked)]
    try:
        command = command_inside(program)
    except NoNamespace as why:
        servers.leave_out("scoreboard", str(why))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    told: Mapping[str, Any] = json.loads(done.stdout)
    return told


def _fetch(unpacked: Path) -> None:
    """Have the script fetch what is missing."""
    environment = {**os.environ, "LAB_CACHE": str(unpacked), "LAB_PYTHON": sys.executable, "LAB_FETCH_ONLY": "1"}
    done = subprocess.run(
        [ROOT / "scripts/lab-local"], capture_output=True, text=True, timeout=PATIENCE, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def missed(found: Mapping[str, Any], server: str) -> dict[str, str]:
    """What a server did instead, by scenario."""
    return {row["name"]: row["got"] for row in found[server]["rows"] if row["differences"]}


def test_the_relay_does_all_of_it(found: Mapping[str, Any]) -> None:
    assert len(found["relay"]["rows"]) == len(DESTINATIONS)
    assert [row for row in found["relay"]["rows"] if row["differences"]] == []


@pytest.mark.parametrize("server", EXPLAINED)
def test_the_others_true_results_are_explained(found: Mapping[str, Any], server: str) -> None:
    assert set(missed(found, server)) == set(EXPLAINED[server])


def test_the_page_is_what_was_found(found: Mapping[str, Any]) -> None:
    page = document(found)
    if os.environ.get("RELAY_TEST_WRITE") == "1":
        DOCUMENT.write_text(page)
    assert DOCUMENT.read_text() == page


def document(found: Mapping[str, Any]) -> str:
    """docs/scoreboard.md."""
    total = len(DESTINATIONS)
    names = {"relay": "dane-relay", "postfix": "Postfix", "exim": "Exim"}
    lines = [f"| {name} | {total - len(missed(found, server))} of {total} |" for server, name in names.items()]
    for server, reasons in EXPLAINED.items():
        got = missed(found, server)
        lines += [
            "",
            f"## What {names[server]} does otherwise",
            "",
            "| scenario | what it is | expected | got | why |",
            "|---|---|---|---|---|",
        ]
        expected = {row["name"]: row["expected"] for row in found[server]["rows"]}
        lines += [
            f"| {one.name} | {one.shows} | {expected[one.name]} | {got[one.name]} | {reasons.get(one.name, '?')} |"
            for one in DESTINATIONS
            if one.name in got
        ]
    lines += ["", "## All scenarios", "", "| scenario | what it is | rule | expected |", "|---|---|---|---|"]
    expected = {row["name"]: row["expected"] for row in found["relay"]["rows"]}
    for one in DESTINATIONS:
        proves = ", ".join(f"R{number}" for number in one.proves)
        rule = f"{one.rule} ({proves})" if proves else one.rule
        lines.append(f"| {one.name} | {one.shows} | {rule} | {expected[one.name]} |")
    return HEAD.format(total=total, postfix="3.7", exim="4.96") + "\n".join(lines) + "\n"
