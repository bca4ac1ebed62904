"""Overrides: which levels, and that ``decide`` takes one for a rule like any other, with its place."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from relay.delivery.delivery import Policies, overridden
from relay.mail.names import Domain, NextHop
from relay.policy.level import Level
from relay.policy.override import AS_CONFIGURED, OVERRIDABLE, TlsOverride, parse_level
from relay.policy.policy import Defaults, MalformedEntry, NoEntry, Rule

AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
OVERRIDE = TlsOverride(level=Level.MAY, by="root", at=AT, reason="their key is lost")
HOP = NextHop.of_domain(Domain("a.example"), 25)
DEFAULTS = Defaults(level=Level.DANE, level_rule=Rule("relay.toml:3"))


def test_every_level_that_needs_nothing_more_can_be_asked_for() -> None:
    assert {parse_level(word).word for word in OVERRIDABLE} == set(OVERRIDABLE)
    assert "fingerprint" not in OVERRIDABLE
    for word in ("fingerprint", "halfdane", "", "dane only"):
        with pytest.raises(ValueError, match="level"):
            parse_level(word)


@pytest.mark.parametrize("entry", [NoEntry(), MalformedEntry(key="a.example", rule=Rule("tls_policy:1"), warning="?")])
def test_an_override_takes_the_place_of_whatever_applies(entry: NoEntry | MalformedEntry) -> None:
    policies = Policies(lookup=lambda next_hop: entry, defaults=DEFAULTS)
    found = overridden(policies, OVERRIDE).lookup(HOP)
    assert found == OVERRIDE.entry
    assert found.rule.place == "override by root at 2026-03-04T05:06:07Z"
    assert overridden(policies, AS_CONFIGURED) is policies
