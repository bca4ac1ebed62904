"""What programs read: the same keys in every story."""

from __future__ import annotations

import json

import pytest

from relay.delivery.gather import Destination
from relay.explain.objects import Json, ending_object, story_object
from relay.explain.story import Story
from relay.mail.names import NextHop
from tests.unit.explain import stories
from tests.unit.explain.stories import BOUNCED, DECISIONS, DEFERRED, ENDINGS, SESSIONS, STORIES, TLSA, TROUBLED, story

TOP = ["domain", "recipient", "live", "resolver", "next_hops", "message"]
HOP = ["next_hop", "port", "configured", "fallback", "rule", "mx", "hosts"]
MX = {"status", "dsn", "why", "expanded"}
HOST = ["host", "status", "dsn", "why", "addresses"]
ADDRESS = {"address", "secure", "canonical", "status", "why", "tlsa", "decision", "session"}
MESSAGE = ["status", "dsn", "relay", "tls", "reason", "temporary", "log", "report"]


def child(value: Json, *path: str | int) -> Json:
    for step in path:
        if isinstance(step, int):
            assert isinstance(value, list)
            value = value[step]
        else:
            assert isinstance(value, dict)
            value = value[step]
    return value


def keys(value: Json) -> list[str]:
    assert isinstance(value, dict)
    return list(value)


def address(told: Story, *path: str | int) -> Json:
    return child(story_object(told), "next_hops", 0, "hosts", 0, "addresses", 0, *path)


@pytest.mark.parametrize("told", STORIES)
def test_keys_are_always_there(told: Story) -> None:
    whole = story_object(told)
    assert keys(whole) == TOP
    assert keys(child(whole, "next_hops", 0)) == HOP
    assert set(keys(child(whole, "next_hops", 0, "mx"))) == MX
    assert keys(child(whole, "next_hops", 0, "hosts", 0)) == HOST
    assert keys(child(whole, "message")) == MESSAGE
    addresses = child(whole, "next_hops", 0, "hosts", 0, "addresses")
    assert isinstance(addresses, list)
    assert all(set(keys(each)) == ADDRESS for each in addresses)
    text = json.dumps(whole, ensure_ascii=False)
    assert "\\u001b" not in text
    assert "\\r" not in text


def test_states_of_tlsa() -> None:
    states = [address(story(tlsa=each), "tlsa", "status") for each in TLSA]
    assert states == ["usable", "unusable", "absent", "failed", "not looked up"]
    assert address(story(), "tlsa", "records") == [str(stories.RECORD)]
    assert address(story(), "tlsa", "unusable") == ["unsupported TLSA selector: 3 9 1 00?[31m"]


def test_decisions() -> None:
    allowed = address(story(), "decision")
    assert (child(allowed, "allowed"), child(allowed, "level"), child(allowed, "rule")) == (
        True,
        "dane",
        "relay.toml:3",
    )
    withheld = address(story(decision=DECISIONS[1]), "decision")
    assert (child(withheld, "allowed"), child(withheld, "dsn")) == (False, "4.7.5")
    assert child(withheld, "found") == "because of a line break"
    assert address(story(decision=DECISIONS[3]), "decision", "fingerprints") == ["ab" * 32]


def test_sessions() -> None:
    told = [address(story(session=each), "session", "status") for each in SESSIONS]
    assert told == ["not tried", *["satisfied"] * 7, "failed", "failed"]
    verified = address(story(session=SESSIONS[1]), "session")
    assert child(verified, "word") == "Verified"
    assert child(verified, "extensions") == ["PIPELINING", "SIZE 10?[2J"]
    assert child(verified, "certificate", "dns_names") == ["mx.example.com", "evil?]0;"]
    assert child(verified, "certificate", "not_after") == "2027-01-01T00:00:00+00:00"
    assert address(story(session=SESSIONS[6]), "session", "certificate") == {}
    assert address(story(session=SESSIONS[-1]), "session", "in_clear_later") is True


def test_mx() -> None:
    next_hop = NextHop.of_domain(stories.DOMAIN, 25)
    insecure = Destination(next_hop=next_hop, hosts=(stories.HOST,), had_mx=True, mx_secure=False)
    states = [
        child(story_object(told), "next_hops", 0, "mx", "status")
        for told in (story(), story(found=insecure), STORIES[-1], story(found=TROUBLED))
    ]
    assert states == ["secure", "insecure", "none", "failed"]


def test_endings() -> None:
    told = [ending_object(each) for each in ENDINGS]
    assert [each["status"] for each in told] == ["sent", "sent", "deferred", "bounced", "sent"]
    assert [each["tls"] for each in told] == ["dane", "dane", "unknown?", "unknown?", ""]
    assert told[0]["reason"] == "would be attempted over mx.example.com[192.0.2.1]:25"
    assert ending_object(DEFERRED)["report"] == {"Action": "failed"}
    assert ending_object(BOUNCED)["dsn"] == "5.1.0"
