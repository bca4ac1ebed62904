"""Three configurations as one meets them: imported, they deliver as Postfix does with the original files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.interop import servers
from tests.interop.import_enterprise import ENTERPRISE
from tests.interop.import_hoster import DESTINATIONS, HOSTER
from tests.interop.import_office import OFFICE
from tests.interop.import_run import Played, play_all
from tests.interop.import_setup import Setup
from tests.interop.import_trial import TRIAL
from tests.interop.side_by_side_world import world

pytestmark = pytest.mark.interop
SETUPS = (OFFICE, HOSTER, ENTERPRISE)
ALL = (*SETUPS, TRIAL)
# The chain is trusted and the name alone is wrong: Postfix 3.7 says Untrusted, we say Trusted as newer ones do
# (docs/side-by-side.md).
NAME_ALONE = {
    ("office", "insurer-wrong.direct"),
    ("hoster", "secure-2"),
    ("enterprise", "wrong-gate"),
    ("enterprise", "contract-b"),
}
# Postfix logs in over a session that proved nothing; the import wrote a line that asks for more.
CREDENTIALS = {("office", "tax-adviser")}
NAMES = [(setup.name, destination.name) for setup in ALL for destination in setup.destinations]


@pytest.fixture(scope="module")
def played() -> Iterator[Mapping[str, Played]]:
    """What became of one message to each destination of each setup."""
    for name in ("nsd", "unbound", "ldns-signzone", "postfix", "unshare", "saslpasswd2"):
        servers.require(name)
    directory = Path(tempfile.mkdtemp(prefix="dane-relay-"))  # not pytest's: Postfix's own users must get in
    directory.chmod(0o755)
    try:
        with world([case for setup in ALL for case in setup.cases], directory) as running:
            yield play_all(ALL, running)
    except servers.UnavailableError as error:
        servers.leave_out("postfix", str(error))
    finally:
        shutil.rmtree(directory)


def test_the_sets_are_large_enough() -> None:
    assert all(len(setup.destinations) >= 30 for setup in SETUPS)
    assert sum(" " in line for line in HOSTER.files["tls_policy"].splitlines() if line[0] != "#") == DESTINATIONS
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize(("setup", "destination"), NAMES, ids=lambda each: each)
def test_both_end_alike(played: Mapping[str, Played], setup: str, destination: str) -> None:
    pair = played[setup].pairs[destination]
    ours = pair.ours
    if (setup, destination) in NAME_ALONE:
        assert ours.words - pair.postfix.words == {"Trusted"}
        ours = replace(ours, words=ours.words - {"Trusted"} | {"Untrusted"})
    if (setup, destination) in CREDENTIALS:
        assert pair.postfix.words == {"Trusted"}
        assert ours.words == {"Verified"}
        ours = replace(ours, words=pair.postfix.words)
    assert ours == pair.postfix, pair.reason


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.name)
def test_what_has_no_counterpart_is_named(played: Mapping[str, Played], setup: Setup) -> None:
    said = played[setup.name].remarks
    for beginning in setup.remarks:
        assert any(line.startswith(beginning) for line in said), (beginning, said)
    # What must be looked at are lines that Postfix does not understand either.
    wrong = [line for line in said if "to be looked at" in line]
    assert all(line.startswith("tls_policy:") for line in wrong)
    assert played[setup.name].exit_code == int(bool(wrong))


def test_smarthosts_saw_our_certificate(played: Mapping[str, Played]) -> None:
    taken = played["enterprise"].presented
    assert taken["Postfix"] == taken["relay"] >= 9


def test_both_log_in_at_the_same_smarthosts(played: Mapping[str, Played]) -> None:
    hosts = {"smart.isp.test", "old.isp.test"}
    assert played["office"].logged_in == {"Postfix": hosts, "relay": hosts}


def test_on_trial_nothing_bounces(played: Mapping[str, Played]) -> None:
    ends = {name: pair.ours.status for name, pair in played["trial"].pairs.items()}
    refused = {"t-unknown-user", "t-refused-mail", "t-refused-content", "t-nowhere"}
    assert {name for name, status in ends.items() if status == "SOFTBOUNCE"} == refused
