"""A next-hop in its turn: whose credentials count there, and what they change about doubt and about the clear."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from relay.delivery.attempt import Deliverer
from relay.delivery.delivery import Delivery, Policies
from relay.delivery.leg import legs
from relay.delivery.options import DeliveryOptions
from relay.mail.envelope import Address, Recipient, RecipientId
from relay.mail.names import Domain, NextHop
from relay.outcome.result import Bounced, Deferred
from relay.policy.level import Level
from relay.policy.policy import NO_CREDENTIALS, Defaults, NoEntry, Rule, TlsPolicy
from relay.sasl.credentials import Credentials, NoCredentials, Owner
from relay.sasl.passwords import CredentialTables, parse_passwords
from tests.unit.delivery.test_attempt import EXAMPLE, a_message
from tests.unit.explain.scene import DOMAIN, Scene

MAP = "joe@sender.test sender:one\n[smtp.test]:587 next-hop:two\n"
RELAY = NextHop.parse("[smtp.test]:587", default_port=25)


def delivery_to(*route: NextHop, domain: Domain = EXAMPLE) -> Delivery:
    message = a_message()
    return Delivery(
        message=message,
        route=route,
        recipients=(Recipient(id=RecipientId(1), address=Address(f"ann@{domain}", domain)),),
        leased_at=message.arrived_at,
        body=_content,
    )


async def _content() -> AsyncIterator[bytes]:
    yield b"\r\n"


def policies(*, by_sender: bool, level: Level = Level.MAY) -> Policies:
    return Policies(
        lookup=lambda next_hop: NoEntry(),
        defaults=Defaults(level=level, level_rule=Rule("relay.toml:7")),
        credentials=CredentialTables(tables=(parse_passwords(MAP, "sasl_passwd"),), by_sender=by_sender),
    )


def standing(delivery: Delivery, *, by_sender: bool) -> Credentials | NoCredentials:
    (leg,) = legs(delivery, policies(by_sender=by_sender))
    found = leg.standing(leg.next_hop.host)
    assert isinstance(found, Credentials | NoCredentials)
    return found


def test_a_sender_has_credentials_where_the_administrator_sends_mail() -> None:
    found = standing(delivery_to(RELAY), by_sender=True)
    assert isinstance(found, Credentials)
    assert (found.user, found.owner) == ("sender", Owner.SENDER)
    found = standing(delivery_to(RELAY), by_sender=False)
    assert isinstance(found, Credentials)
    assert (found.user, found.owner) == ("next-hop", Owner.NEXT_HOP)


def test_a_recipients_domain_does_not_get_a_senders_credentials() -> None:
    """Whoever has a domain and a certificate for it would only have to be written to."""
    for next_hop in (NextHop.of_domain(EXAMPLE, 25), NextHop.of_domain(EXAMPLE, 2525)):
        assert isinstance(standing(delivery_to(next_hop), by_sender=True), NoCredentials)


async def test_credentials_for_somebody_else_do_not_make_doubt(tmp_path: Path) -> None:
    """At may nobody asked for DNSSEC: a domain that does not exist bounces, as without any password map."""
    async with AsyncExitStack() as stack:
        walk = Scene(tmp_path, stack)
        walk.validating, walk.passwords, walk.level = False, MAP, Level.MAY
        assert isinstance((await walk.deliver()).result, Bounced), DOMAIN
        walk.level = Level.DANE
        assert isinstance((await walk.deliver()).result, Deferred)


@pytest.mark.parametrize("waited", [0, 300])
def test_no_retry_in_the_clear_where_credentials_are_at_stake(waited: int) -> None:
    deliverer = Deliverer.__new__(Deliverer)
    deliverer.options = DeliveryOptions(helo_name="relay.test")
    delivery = delivery_to(RELAY)
    delivery = replace(delivery, leased_at=delivery.leased_at + timedelta(seconds=waited))
    policy = TlsPolicy(level=Level.MAY, asked=Level.MAY, rule=Rule("relay.toml:7"))
    joe = standing(delivery, by_sender=True)
    assert deliverer.may_go_in_clear(policy, delivery, NO_CREDENTIALS) is (waited >= 300)
    assert not deliverer.may_go_in_clear(policy, delivery, joe)
