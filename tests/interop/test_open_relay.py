"""No open relay: what a client from a foreign address hears to every trick form of a recipient."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.interop import servers
from tests.interop.stranger import RECIPIENTS, SENDERS

pytestmark = pytest.mark.interop

# What a friend may send to: the plain forms, and source routes, of which the final address counts.
WELL_FORMED = {
    "<victim@there.test>",
    "<@relay.test:victim@there.test>",
    "<@relay.test,@other.test:victim@there.test>",
    "<@[192.0.2.25]:victim@there.test>",
    "<@there.test:victim@relay.test>",
    "<postmaster>",
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    for name in ("unshare", "ip"):
        servers.require(name)
    if os.geteuid() != 0:
        servers.leave_out("a network namespace", "only root can make one")
    directory = tmp_path_factory.mktemp("stranger")
    done = subprocess.run(
        ["unshare", "--net", "--", sys.executable, "-m", "tests.interop.stranger", directory],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    if "unshare failed" in done.stderr:
        servers.leave_out("a network namespace", done.stderr.strip())
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("sender", SENDERS)
def test_a_stranger_is_refused_whatever_the_recipient_looks_like(asked: dict[str, Any], sender: str) -> None:
    replies = asked["stranger"][sender]
    assert set(replies) == set(RECIPIENTS)
    taken = {recipient: reply for recipient, reply in replies.items() if reply[0] not in "45"}
    assert not taken
    assert replies["<victim@there.test>"] == "454 4.7.1 <victim@there.test>: Relay access denied\r\n"
    # Access is judged on the final address, not on the route to it.
    assert replies["<@relay.test:victim@there.test>"] == "454 4.7.1 <victim@there.test>: Relay access denied\r\n"


def test_the_refusal_is_for_who_it_is_and_not_for_want_of_understanding(asked: dict[str, Any]) -> None:
    (replies,) = asked["friend"].values()
    assert {recipient for recipient in WELL_FORMED if not replies[recipient].startswith("250 2.1.5")} == set()


def test_without_recipients_there_is_no_content(asked: dict[str, Any]) -> None:
    assert asked["data"] == ["554 5.5.1 Error: no valid recipients\r\n"]
