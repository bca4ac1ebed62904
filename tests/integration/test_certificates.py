"""The certificate for clients changes under a running relay: as a pair or not at all, and no session ends for it."""

from __future__ import annotations

import re
import signal
import smtplib
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests import pki
from tests.loopback import free_port
from tests.relay_process import RelayProcess


def leaf(name: str) -> pki.Cert:
    now = datetime.now(UTC)
    dates = (now - timedelta(days=1), now + timedelta(days=1))
    return pki.authority(dates=dates).issue(name, dns=[name], dates=dates, eku=[pki.SERVER_AUTH])


FIRST, SECOND, THIRD = (leaf(f"{name}.test") for name in ("first", "second", "third"))


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayProcess]:
    relay = RelayProcess(
        tmp_path,
        {
            "smtpd": {
                "tls_security_level": "may",
                "tls_cert_file": "cert.pem",
                "tls_key_file": "key.pem",
                "submissions_listen": [f"127.0.0.1:{free_port()}"],
            },
            "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
        },
        {"cert.pem": FIRST.pem.decode(), "key.pem": FIRST.key_pem.decode()},
    )
    (tmp_path / "key.pem").chmod(0o600)
    with relay:
        yield relay


def anything() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def started(relay: RelayProcess) -> smtplib.SMTP:
    client = smtplib.SMTP(relay.address, relay.port, local_hostname="client.test", timeout=60)
    client.starttls(context=anything())
    return client


def shown(client: smtplib.SMTP) -> bytes:
    assert isinstance(client.sock, ssl.SSLSocket)
    return client.sock.getpeercert(binary_form=True) or b""


def shown_at_both_doors(relay: RelayProcess) -> set[bytes]:
    found = re.search(r'submissions_listen = \["127.0.0.1:(\d+)"\]', relay.configuration.read_text())
    assert found
    with (
        started(relay) as client,
        smtplib.SMTP_SSL(
            relay.address, int(found[1]), local_hostname="client.test", timeout=60, context=anything()
        ) as wrapped,
    ):
        return {shown(client), shown(wrapped)}


def turn(link: Path, content: bytes) -> None:
    """What certbot and Kubernetes do: the name becomes a link to another file."""
    target = link.with_name(f"{link.stem}-2.pem")
    target.write_bytes(content)
    target.chmod(0o600)
    link.with_name("next").symlink_to(target.name)
    link.with_name("next").replace(link)


def test_a_new_pair_is_taken_and_half_of_one_is_not(relay: RelayProcess, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    assert shown_at_both_doors(relay) == {FIRST.der}
    with started(relay) as old:
        turn(cert, SECOND.pem)
        turn(key, SECOND.key_pem)
        # By itself: a renewal tells nobody.
        relay.process.wait_for(r"changed, so the rules are read anew: \S+cert\.pem, \S+key\.pem")
        relay.process.wait_for("reload -- version")
        assert shown_at_both_doors(relay) == {SECOND.der}

        cert.write_bytes(THIRD.pem)
        relay.process.wait_for(
            r"warning: reload refused, the old rules stay in force: \[smtpd\] tls_cert_file \S+cert\.pem "
            r"with tls_key_file \S+key\.pem: KEY_VALUES_MISMATCH; expected"
        )
        assert shown_at_both_doors(relay) == {SECOND.der}
        key.write_bytes(THIRD.key_pem)
        relay.process.wait_for(r"changed, so the rules are read anew: \S+key\.pem$")
        while shown_at_both_doors(relay) != {THIRD.der}:  # it is being read
            assert relay.process.running()

        # Who was there all the while notices nothing.
        assert shown(old) == FIRST.der
        old.mail("joe@client.test")
        assert old.rcpt("ann@sink.test")[0] == 250


def test_sighup_takes_it_too(relay: RelayProcess, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_bytes(SECOND.pem)
    (tmp_path / "key.pem").write_bytes(SECOND.key_pem)
    relay.process.signal(signal.SIGHUP)
    relay.process.wait_for("reload -- version")
    assert shown_at_both_doors(relay) == {SECOND.der}
