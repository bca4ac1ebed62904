"""A mail server that we did not write hands us a message in chunks (RFC 3030)."""

from __future__ import annotations

import os

import pytest

from tests.interop import servers
from tests.interop.exim import send_by_exim
from tests.interop.nameservers import Endpoint
from tests.interop.places import places
from tests.loopback import LoopbackNetwork, free_port
from tests.recording_sink import RecordingSink
from tests.relay_process import RelayProcess, Settings

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("size", [100, 200_000])
def test_exim_sends_bdat(size: int) -> None:
    servers.require("exim4")
    if os.geteuid() != 0:
        servers.leave_out("exim4", "only root can run it under its account")
    body = b"".join(b".%d\n" % number for number in range(size // 8)) + b".\n..\nend\n"
    with places("exim", "relay") as (exim, place), RecordingSink(LoopbackNetwork().address(1), 0) as sink:
        settings: Settings = {
            "smtp": {"relayhost": [f"[{sink.address}]:{sink.port}"], "tls_security_level": "may"},
            "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
        }
        with RelayProcess(place, settings) as relay:
            log = send_by_exim(
                b"Subject: chunks\n\n" + body,
                Endpoint(relay.address, relay.port),
                exim,
                sender="joe@client.test",
                recipients=["ann@sink.test", "bob@sink.test"],
            )
            assert " => ann@sink.test" in log, log
            assert " K C=" in log, "Exim's word for a message that went in chunks"
            (message,) = sink.wait_for_messages(1)
            relay.process.wait_for(r"disconnect from .* bdat=\d+ ")
    assert message.content.endswith(b"\r\n\r\n" + body.replace(b"\n", b"\r\n"))
    assert len(message.rcpts) == 2
