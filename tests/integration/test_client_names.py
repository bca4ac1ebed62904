"""What clients beyond this machine are called: by a name server of the test's own, for connections that a proxy passes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from relay.app.relay import open_relay
from relay.config.load import load
from relay.lab.nameserver import NameServer, Trust, Zone

DEADLINE = 60.0
REVERSE = "2.0.192.in-addr.arpa."


@pytest.mark.parametrize(("lookup", "name"), [("true", "mail.client.test"), ("false", "unknown")])
async def test_the_name_that_leads_back_is_in_the_log(tmp_path: Path, lookup: str, name: str) -> None:
    root = Zone(".", Trust.SECURE, {(".", "NS"): ("ns.test.",)})
    reverse = Zone(
        REVERSE,
        Trust.INSECURE,
        {(f"7.{REVERSE}", "PTR"): ("mail.client.test.",), (f"8.{REVERSE}", "PTR"): ("mail.client.test.",)},
    )
    names = NameServer((root, reverse, Zone("test.", Trust.SECURE, {("mail.client.test.", "A"): ("192.0.2.7",)})))
    address, port = await names.start()
    (tmp_path / "state").mkdir(mode=0o700)
    source = tmp_path / "relay.toml"
    source.write_text(
        f'[relay]\nmyhostname = "relay.test"\nstate_dir = "state"\n[smtpd]\nlisten = ["127.0.0.1:0"]\n'
        f'proxy_protocol_networks = ["127.0.0.0/8"]\npeername_lookup = {lookup}\n'
        f'[dns]\nmode = "trust-ad"\nnameservers = ["{address}:{port}"]\n[http]\nlisten = ""\n'
    )
    lines: list[str] = []
    try:
        async with (
            asyncio.timeout(DEADLINE),
            open_relay(load(source, {}, hostname="relay.test"), write_line=lines.append) as relay,
        ):
            for client in ("192.0.2.7", "192.0.2.8"):
                reader, writer = await asyncio.open_connection(*relay.smtp_addresses[0])
                writer.write(f"PROXY TCP4 {client} 192.0.2.1 4711 25\r\n".encode())
                assert (await reader.readline()).startswith(b"220 relay.test")
                writer.write(b"QUIT\r\n")
                assert (await reader.read()).startswith(b"221")
                writer.close()
    finally:
        await names.stop()
    log = "\n".join(lines)
    assert f": connect from {name}[192.0.2.7]" in log
    assert ": connect from unknown[192.0.2.8]" in log
    forged = "warning: hostname mail.client.test does not resolve to address 192.0.2.8"
    assert (forged in log) is (lookup == "true")
