"""Real servers for the tests of this folder, started once for all of them and stopped after."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop import servers
from tests.interop.world import World, world
from tests.recording_sink import RecordingSink
from tests.relay_process import RelayProcess


@pytest.fixture(scope="session")
def real_world() -> Iterator[World]:
    """NSD, Unbound and Postfix with the destinations of tests/interop/world.py."""
    for name in ("nsd", "unbound", "ldns-signzone", "postfix"):
        servers.require(name)
    directory = Path(tempfile.mkdtemp(prefix="dane-relay-"))  # not pytest's: Postfix's own users must get in
    directory.chmod(0o755)
    try:
        with world(directory) as running:
            yield running
    except servers.UnavailableError as error:
        servers.leave_out("postfix", str(error))
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def relay(real_world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A relay in that world; each test uses destinations of its own, because failing ones are put off."""
    directory = tmp_path_factory.mktemp("relay")
    with RelayProcess(directory, real_world.relay_settings(), {"tls_policy": real_world.tls_policy}) as running:
        yield running


@pytest.fixture
def sink() -> Iterator[RecordingSink]:
    """A receiver that keeps what comes."""
    with RecordingSink("127.0.0.1", 0) as running:
        yield running


@pytest.fixture(scope="session")
def swaks() -> Path:
    """The client."""
    return servers.require("swaks")
