"""What people read."""

from __future__ import annotations

import re

import pytest

from relay.delivery.gather import Destination
from relay.explain.story import NotReached, Story
from relay.explain.text import story_lines
from relay.mail.names import Domain, NextHop
from tests.unit.explain import stories
from tests.unit.explain.stories import (
    BOUNCED,
    DECISIONS,
    DEFERRED,
    DISCARDED,
    ENDINGS,
    SESSIONS,
    STORIES,
    TLSA,
    TROUBLED,
    story,
)


def text(told: Story) -> str:
    return "\n".join(story_lines(told))


@pytest.mark.parametrize("told", STORIES)
def test_every_story_is_plain_lines(told: Story) -> None:
    lines = list(story_lines(told))
    assert lines[0].startswith("example.com: ")
    assert all(re.fullmatch(r"[^\x00-\x1f\x7f\x80-\x9f]+", line) for line in lines)
    assert all(line == line.rstrip() for line in lines)
    assert all(line.startswith("  ") for line in lines[1:])


def test_from_the_rule_to_the_message() -> None:
    assert text(story(session=SESSIONS[1], ending=ENDINGS[1])) == (
        "example.com: mail can go\n"
        '  rule      relay.toml:3: smtp.tls_security_level = "dane"\n'
        "  MX        mx.example.com (DNSSEC secure)\n"
        "  host      mx.example.com:25\n"
        "    address   192.0.2.1 (DNSSEC secure, by way of real.example.net)\n"
        "    TLSA      at mx.example.com, DNSSEC secure\n"
        "              3 1 1 000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F\n"
        "              unusable: unsupported TLSA selector: 3 9 1 00?[31m\n"
        "    level     dane\n"
        "    names     mx.example.com\n"
        "    TLS       >=TLSv1.2, medium ciphers, server name mx.example.com\n"
        "    session   Verified TLS connection established to mx\n"
        "              another line\n"
        "              matched peername: mx.example.com\n"
        "    offers    PIPELINING, SIZE\n"
        "  message   would be attempted over mx.example.com[192.0.2.1]:25 at level dane"
    )


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (story(tlsa=TLSA[1]), "    TLSA      at mx.example.com, DNSSEC secure, none usable"),
        (story(tlsa=TLSA[2]), "    TLSA      because of a line break"),
        (story(tlsa=TLSA[3]), "    TLSA      look-up failed: because of a line break"),
        (story(tlsa=TLSA[4]), "    TLSA      not looked up: because of a line break"),
        (
            story(decision=DECISIONS[1]),
            "    level     none can be had: TLSA lookup error for mx.example.com:25 (4.7.5)",
        ),
        (
            story(decision=DECISIONS[1]),
            "              expected an answer; found because of a line break; rule relay.toml:3",
        ),
        (story(decision=DECISIONS[3]), f"    digests   sha256 {'ab' * 32}"),
        (story(decision=DECISIONS[4]), "    anchors   /ca.pem"),
        (story(decision=DECISIONS[4]), "              because two"),
        (story(), "    session   not tried: no session was asked for"),
        (story(), "            --live opens a session and judges it"),
        (story(session=SESSIONS[-3]), "    session   in the clear: off"),
        (story(session=SESSIONS[-1]), "    session   Cannot start TLS"),
        (
            story(session=SESSIONS[-1]),
            "              a message that has waited for queue.minimal_backoff_time goes in the clear",
        ),
        (story(made=NotReached("a limit")), "    address   192.0.2.1: not reached: a limit"),
        (story(addresses=TROUBLED), "    address   try again (4.4.3)"),
        (story(addresses=NotReached("a limit")), "  host      mx.example.com:25: not reached: a limit"),
        (story(found=TROUBLED), "  MX        try again (4.4.3)"),
        (story(found=NotReached("a limit")), "  MX        not looked up: a limit"),
        (STORIES[-1], "  MX        none: the domain is its own host"),
        (story(ending=DEFERRED), "example.com: mail would be deferred"),
        (story(ending=DEFERRED), "  report    when the message expires, if it stays so:"),
        (story(ending=BOUNCED), "example.com: mail would be bounced"),
        (story(ending=BOUNCED), "  report    at once:"),
        (story(ending=BOUNCED), "            Action: failed"),
        (story(ending=DISCARDED), "example.com: mail would be discarded"),
        (story(ending=DISCARDED), "  log       NOQUEUE: to=<postmaster@example.com>, relay=none"),
    ],
)
def test_states_have_their_words(told: Story, line: str) -> None:
    assert line in text(told).split("\n")


def test_insecure_mx_records_and_aliases() -> None:
    next_hop = NextHop.of_domain(stories.DOMAIN, 25)
    found = Destination(
        next_hop=next_hop, hosts=(stories.HOST,), had_mx=True, mx_secure=False, expanded=Domain("alias.example")
    )
    assert "  MX        mx.example.com (not DNSSEC secure, by way of alias.example)" in text(story(found=found))


def test_without_tls_no_tls_parameters() -> None:
    assert "    TLS " not in text(story(decision=DECISIONS[2]))
