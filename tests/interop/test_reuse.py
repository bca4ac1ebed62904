"""Postfix and Exim see one session carry many messages, end it as they do, and no mail is later for that."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests import pki
from tests.interop import servers
from tests.interop.exim import exim
from tests.interop.nameservers import Endpoint
from tests.interop.places import places
from tests.interop.postfix import Listener, Postfix, postfix
from tests.loopback import LoopbackNetwork, free_port
from tests.relay_process import RelayProcess, Settings

pytestmark = pytest.mark.interop

DAY = timedelta(days=1)
DATES = (datetime.now(UTC) - DAY, datetime.now(UTC) + DAY)
BODY = b".dot\r\n..two\r\nBDAT 3 LAST\r\n\xc3\xa9\r\nend\r\n"


@pytest.fixture
def directories() -> Iterator[tuple[Path, Path]]:
    with places("host", "relay") as (host, relay):
        yield host, relay


def a_relay(directory: Path, host: Endpoint, **smtp: str) -> RelayProcess:
    settings: Settings = {
        "smtp": {
            "relayhost": [f"[{host.address}]:{host.port}"],
            "tls_security_level": "may",
            "connection_cache_time_limit": "60s",
            **smtp,
        },
        "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
    }
    return RelayProcess(directory, settings)


def uses(relay: RelayProcess, messages: int) -> list[int]:
    """Send messages one after the other; the ``conn_use=`` of each."""
    found = []
    for number in range(messages):
        content = b"Subject: %d\r\n\r\n" % number + BODY
        queue_id = relay.send(content, sender="joe@client.test", recipients=["ann@sink.test"], body="8BITMIME")
        line = relay.wait_for_status(queue_id)
        assert " status=sent (250 " in line, line
        use = re.search(r" conn_use=(\d+),", line)
        found.append(int(use[1]) if use else 1)
    return found


def commands(server: Postfix) -> dict[str, str]:
    """What Postfix counted in the session that ended first."""
    line = server.process.wait_for(r".*disconnect from .*")[0]
    return dict(word.split("=") for word in line.split() if "=" in word)


@pytest.mark.parametrize("chunks", [True, False])
def test_one_session_carries_all(directories: tuple[Path, Path], chunks: bool) -> None:
    servers.require("postfix")
    host, place = directories
    leaf = pki.authority(dates=DATES).issue("postfix.test", dns=["postfix.test"], dates=DATES, eku=[pki.SERVER_AUTH])
    pem = host / "server.pem"
    pem.write_bytes(leaf.key_pem + leaf.pem)
    endpoint = Endpoint(LoopbackNetwork().address(1), free_port())
    options = {} if chunks else {"smtpd_discard_ehlo_keywords": "chunking"}
    with postfix([Listener("in", endpoint, pem, options)], host, virtual_domains=["sink.test"]) as server:
        with a_relay(place, endpoint, tls_security_level="encrypt") as relay:
            assert uses(relay, 5) == [1, 2, 3, 4, 5]
            relay.process.stop()  # as a service manager does
            log = (place / "relay.log").read_text()
        counted = commands(server)
        assert (counted["mail"], counted["quit"], counted["bdat" if chunks else "data"]) == ("5", "1", "5")
        assert "rset" not in counted
        for queue_id in re.findall(r"queued as (\w+)\)", log):
            server.process.wait_for(f"{queue_id}: removed")
        bodies = {message.partition(b"\n\n")[2] for message in server.delivered()}
    assert log.count("TLS connection established to") == 1
    assert log.count("TLS connection reused to") == 4
    assert bodies == {BODY.replace(b"\r\n", b"\n")}


def test_postfix_ends_an_idle_session(directories: tuple[Path, Path]) -> None:
    servers.require("postfix")
    host, place = directories
    endpoint = Endpoint(LoopbackNetwork().address(1), free_port())
    listener = Listener("in", endpoint, options={"smtpd_timeout": "1s"})
    with postfix([listener], host, virtual_domains=["sink.test"]) as server, a_relay(place, endpoint) as relay:
        assert uses(relay, 1) == [1]
        server.process.wait_for(r"timeout after (BDAT|END-OF-MESSAGE|DATA)")
        assert uses(relay, 2) == [1, 2]


def test_exim_takes_so_many_messages_in_a_session(directories: tuple[Path, Path]) -> None:
    servers.require("exim4")
    if os.geteuid() != 0:
        servers.leave_out("exim4", "only root can run it under its account")
    host, place = directories
    endpoint = Endpoint(LoopbackNetwork().address(1), free_port())
    options = "smtp_accept_max_per_connection = 3"
    with exim(endpoint, host, ["sink.test"], options), a_relay(place, endpoint) as relay:
        assert uses(relay, 7) == [1, 2, 3, 1, 2, 3, 1]
        assert " K " in (host / "log/mainlog").read_text(), "Exim's word for a message that came in chunks"
