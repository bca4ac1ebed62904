"""Postfix still does with the cases of tests/parity what their committed results say (RELAY_TEST_WRITE=1 writes them)."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.interop import servers
from tests.interop.parity_postfix import deliver, destinations
from tests.interop.postfix import version as postfix_version
from tests.interop.side_by_side_world import world
from tests.parity.case import Result
from tests.parity.groups import CASES, GROUPS, POSTFIX
from tests.parity.result import FILE, read_results, written

pytestmark = pytest.mark.interop
WRITE = "RELAY_TEST_WRITE"
HOW = (
    "One delivery for each case by Debian 12's Postfix (tests/interop/test_map_parity.py), through NSD and a validating"
    " Unbound to scripted hosts. level: 'effective TLS level' of smtp -v, else the global one; session: the word of the"
    " TLS summary line; warnings: what was logged of the line, without the prefix that names the destination."
)


@pytest.fixture(scope="module")
def results() -> Iterator[Mapping[str, Result]]:
    for name in ("nsd", "unbound", "ldns-signzone", "postfix", "unshare"):
        servers.require(name)
    found = postfix_version()
    if not found.startswith(f"{POSTFIX}."):
        servers.leave_out(f"Postfix {POSTFIX}", f"this is {found}, of which there are no results")
    directory = Path(tempfile.mkdtemp(prefix="dane-relay-"))  # not pytest's: Postfix's own users must get in
    directory.chmod(0o755)
    try:
        with world(destinations(CASES), directory) as running:
            yield deliver(running, GROUPS)
    except servers.UnavailableError as error:
        servers.leave_out("postfix", str(error))
    finally:
        shutil.rmtree(directory)


def test_results_are_what_postfix_does(results: Mapping[str, Result]) -> None:
    if os.environ.get(WRITE) == "1":
        FILE.write_text(written(GROUPS, results, HOW))
    committed = read_results()
    different = {
        name: (committed.get(name), result) for name, result in results.items() if committed.get(name) != result
    }
    assert not different, f"not what {FILE.name} says; {WRITE}=1 writes it anew"
    assert set(committed) == set(results)
