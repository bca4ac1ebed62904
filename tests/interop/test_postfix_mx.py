"""swaks → our relay → Postfix, with zones signed by ldns, served by NSD and validated by Unbound."""

from __future__ import annotations

import re
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.world import DESTINATIONS, World
from tests.relay_process import RelayProcess

pytestmark = pytest.mark.interop


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one message.

    :param log: every line of the relay under its queue ID.
    :param status: its status line.
    :param seen: what the Postfix listeners logged from the moment it was handed in.
    :param token: a word that stands in it and nowhere else.
    """

    log: tuple[str, ...]
    status: str
    seen: tuple[str, ...]
    token: str

    def at(self, host: str) -> str:
        """What one listener logged."""
        return "\n".join(line for line in self.seen if f" {host}/" in line)


class Post:
    """Hands messages in with swaks and follows them."""

    def __init__(self, swaks: Path, relay: RelayProcess, world: World) -> None:
        self._swaks = swaks
        self._relay = relay
        self._world = world

    def send(self, domain: str, *, closes: str = "") -> Fate:
        """Send one message to a destination and wait for its status line.

        :param closes: a listener whose end of the session is waited for too, if there was one.
        """
        token = uuid.uuid4().hex
        mark = self._world.postfix.process.mark()
        done = subprocess.run(
            [
                *(self._swaks, "--server", f"{self._relay.address}:{self._relay.port}", "--helo", "client.test"),
                *("--from", "sender@client.test", "--to", f"user@{domain}"),
                *("--header", f"Subject: {token}", "--body", "A few words."),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        queued = re.search(r"250 2\.0\.0 Ok: queued as (\S+)", done.stdout)
        assert queued, done.stdout + done.stderr
        status = self._relay.wait_for_status(queued[1])
        if closes and f"relay={closes}." in status:
            self._world.postfix.process.wait_for(rf" {closes}/smtpd.*: disconnect from ", since=mark)
        if taken := re.search(r"status=sent \(250 2\.0\.0 Ok: (?:\d+ bytes )?queued as (\S+)\)", status):
            self._world.postfix.process.wait_for(rf": {taken[1]}: to=.*status=sent \(delivered to maildir\)")
        seen = self._world.postfix.process.lines()[mark:]
        return Fate(self._relay.lines_of(queued[1]), status, seen, token)

    def received(self, fate: Fate) -> bytes:
        """The message as Postfix stored it, exactly once."""
        (message,) = (one for one in self._world.postfix.delivered() if fate.token.encode() in one)
        return message

    def stored(self, fate: Fate) -> int:
        """How often Postfix stored the message."""
        return sum(fate.token.encode() in one for one in self._world.postfix.delivered())


@pytest.fixture
def post(swaks: Path, relay: RelayProcess, real_world: World) -> Post:
    return Post(swaks, relay, real_world)


DELIVERED_IN_TLS = {
    "ee.test": ("mx-ee", "Verified"),
    "ta.test": ("mx-ta", "Verified"),
    "skip.test": ("mx-ee", "Verified"),
    "insecure.test": ("mx-ee", "Trusted"),
    "may-mismatch.test": ("mx-mismatch", "Trusted"),
    "encrypt.test": ("mx-pkix", "Trusted"),
    "verify.test": ("mx-pkix", "Verified"),
    "secure.test": ("mx-named", "Verified"),
    "fingerprint.test": ("mx-ee", "Verified"),
}


@pytest.mark.parametrize(("domain", "host", "word"), [(name, *rest) for name, rest in DELIVERED_IN_TLS.items()])
def test_delivered_over_tls(post: Post, relay: RelayProcess, domain: str, host: str, word: str) -> None:
    before = relay.process.mark()
    fate = post.send(domain)
    assert f"relay={host}.test[" in fate.status
    assert re.search(r"status=sent \(250 2\.0\.0 Ok: (\d+ bytes )?queued as", fate.status)
    said = "\n".join(relay.process.lines()[before:])
    assert re.findall(rf"(\w+) TLS connection established to {host}\.test\[", said) == [word]
    assert "TLS connection established from" in fate.at(host)
    assert b"with ESMTPS id" in post.received(fate)


@pytest.mark.parametrize(
    ("domain", "host"),
    [
        ("clear.test", "mx-clear"),
        ("may-clear.test", "mx-stripped"),
        ("none.test", "mx-pkix"),
    ],
)
def test_delivered_in_the_clear(post: Post, domain: str, host: str) -> None:
    fate = post.send(domain, closes=host)
    assert f"relay={host}.test[" in fate.status
    assert re.search(r"status=sent \(250 2\.0\.0 Ok: (\d+ bytes )?queued as", fate.status)
    assert "starttls" not in fate.at(host)
    assert b"with ESMTP id" in post.received(fate)


REFUSED_CERTIFICATES = ("mismatch.test", "verify-wrong.test", "secure-wrong.test", "fingerprint-wrong.test")


@pytest.mark.parametrize("domain", REFUSED_CERTIFICATES)
def test_certificate_refused_before_any_octet_of_mail(post: Post, relay: RelayProcess, domain: str) -> None:
    (host,) = DESTINATIONS[domain]
    fate = post.send(domain, closes=host)
    assert "dsn=4.7.5, status=deferred (Server certificate not verified: expected " in fate.status
    assert re.search(r"; found .*; rule \S", fate.status)
    if domain != "mismatch.test":
        line = 1 + (relay.directory / "tls_policy").read_text().splitlines().index(policy_line(relay, domain))
        assert f"tls_policy:{line}" in fate.status
    saw = fate.at(host)
    assert "connect from" in saw
    assert "TLS connection established from" in saw
    assert re.search(r"disconnect from \S+ ehlo=[12] starttls=1 (quit=1 )?commands=", saw)
    assert "client=" not in saw
    assert post.stored(fate) == 0


def policy_line(relay: RelayProcess, domain: str) -> str:
    lines = (relay.directory / "tls_policy").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{domain} "))


@pytest.mark.parametrize("domain", ["stripped.test", "encrypt-clear.test"])
def test_missing_starttls_defers(post: Post, domain: str) -> None:
    (host,) = DESTINATIONS[domain]
    fate = post.send(domain, closes=host)
    assert "dsn=4.7.4, status=deferred (TLS is required, but was not offered by host " in fate.status
    assert re.search(r"disconnect from \S+ ehlo=1 (quit=1 )?commands=", fate.at(host))
    assert "client=" not in fate.at(host)
    assert post.stored(fate) == 0


def test_host_with_failing_tlsa_lookup_is_skipped(post: Post) -> None:
    fate = post.send("skip.test")
    assert "relay=mx-ee.test[" in fate.status
    assert any("TLSA lookup error for mx-fail.test:" in line for line in fate.log)
    assert fate.at("mx-fail") == ""


@pytest.mark.parametrize(
    ("domain", "reason"),
    [
        ("fail.test", r"dsn=4\.7\.5, status=deferred \(TLSA lookup error for mx-fail\.test:"),
        ("bogus.test", r"dsn=4\.\d+\.\d+, status=deferred \(.*bogus\.test"),
        ("expired.test", r"dsn=4\.\d+\.\d+, status=deferred \(.*expired\.test"),
    ],
)
def test_failed_lookups_defer_and_nobody_is_called(post: Post, domain: str, reason: str) -> None:
    fate = post.send(domain)
    assert re.search(reason, fate.status)
    assert "relay=none" in fate.status
    # What Postfix still says of an earlier message ("removed") is no call.
    assert [line for line in fate.seen if "/smtpd[" in line and ": connect from " in line] == []
