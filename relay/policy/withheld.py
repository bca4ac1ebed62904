"""Lines of policy maps under which credentials never leave, told before mail waits for it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from relay.mail.envelope import NULL_SENDER
from relay.mail.names import BadName, NextHop
from relay.maps.table import MapProblem
from relay.policy.policy import NO_END, MapEntry
from relay.policy.stake import withholds
from relay.policy.table import PolicyTables
from relay.sasl.credentials import AtStake, stake_of
from relay.sasl.passwords import CredentialTables

USUAL_PORTS: Final = (25, 465, 587, 2525)
"""Where a smarthost is, whose credentials stand under its name alone."""


def withheld_lines(tables: PolicyTables, credentials: CredentialTables) -> Iterator[MapProblem]:
    """Each line that asks for less than the credentials of its next-hop do, once."""
    told: set[str] = set()
    for key in (key for table in credentials.tables for key in table.entries if "@" not in key):
        for next_hop in _next_hops(key):
            entry = tables.lookup(next_hop)
            stake = stake_of(credentials.lookup(NULL_SENDER, next_hop, next_hop.host))
            if not isinstance(entry, MapEntry) or not isinstance(stake, AtStake) or entry.rule.place in told:
                continue
            if withholds(entry, stake):
                told.add(entry.rule.place)
                # A line that ends may have ended: then it is dead, and told of as such elsewhere.
                text = withheld_text(next_hop.key, entry, stake)
                yield MapProblem(entry.rule.place, text, is_error=entry.until == NO_END)


def withheld_text(key: str, entry: MapEntry, stake: AtStake) -> str:
    """What is wrong with such a line, and what to write instead."""
    return (
        f"{key}: {stake.place} has credentials for it, and at level {entry.level.word} no host proves that it may see them: "
        "mail waits; ask for secure or fingerprint, or leave the line out"
    )


def _next_hops(key: str) -> Iterator[NextHop]:
    """Those that a key of credentials may stand for."""
    forms = [key] if key[:1] == "[" else [key, f"[{key}]", *(f"[{key}]:{port}" for port in USUAL_PORTS)]
    for form in forms:
        try:
            yield NextHop.parse(form, default_port=25)
        except BadName:
            continue  # an address without brackets is no next-hop
