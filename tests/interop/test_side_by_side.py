"""The same destinations through Postfix and through us: what both do with each, and every difference explained."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.interop import servers
from tests.interop.postfix import version as postfix_version
from tests.interop.side_by_side_differences import CASES, DIFFERENCES, POSTFIX
from tests.interop.side_by_side_document import WRITE, document
from tests.interop.side_by_side_run import Pair, compare
from tests.interop.side_by_side_world import world

pytestmark = pytest.mark.interop
DOCUMENT = Path(__file__).parents[2] / "docs/side-by-side.md"
NAMES = [case.name for case in CASES]


@pytest.fixture(scope="module")
def pairs() -> Iterator[Mapping[str, Pair]]:
    """What became of one message to each destination."""
    for name in ("nsd", "unbound", "ldns-signzone", "postfix", "unshare"):
        servers.require(name)
    version = postfix_version()
    if not version.startswith(f"{POSTFIX}."):
        servers.leave_out(f"Postfix {POSTFIX}", f"this is {version}, with which nobody has compared yet")
    directory = Path(tempfile.mkdtemp(prefix="dane-relay-"))  # not pytest's: Postfix's own users must get in
    directory.chmod(0o755)
    try:
        with world(CASES, directory) as running:
            yield compare(running, CASES)
    except servers.UnavailableError as error:
        servers.leave_out("postfix", str(error))
    finally:
        shutil.rmtree(directory)


def test_destinations_have_names_of_their_own() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 30
    hosts = [host.name for case in CASES for host in case.hosts]
    assert len(set(hosts)) == len(hosts)
    assert set(DIFFERENCES) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_same_or_explained(pairs: Mapping[str, Pair], name: str) -> None:
    pair = pairs[name]
    expected = DIFFERENCES[name].fields if name in DIFFERENCES else frozenset()
    assert pair.postfix.differences(pair.ours) == expected, f"Postfix: {pair.postfix}\nours: {pair.ours}"


def test_document_is_what_was_found(pairs: Mapping[str, Pair]) -> None:
    text = document(pairs)
    if os.environ.get(WRITE) == "1":
        DOCUMENT.write_text(text)
    assert DOCUMENT.read_text() == text, f"{DOCUMENT.name} is not what was found; {WRITE}=1 writes it anew"
