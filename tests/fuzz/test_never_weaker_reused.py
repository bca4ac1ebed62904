"""No session carries mail of another decision than the one that it was judged for, whatever rules and answers come between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from relay.delivery.client import SmtpConnection
from relay.delivery.opening import Session
from relay.delivery.plan import Extensions
from relay.delivery.pool import Limits, Pool, Terms
from relay.outcome.result import RelayHost
from relay.policy.decide import decide
from relay.policy.exceptions import find, in_force
from relay.policy.policy import Decision, Defaults, HostFacts, PolicyFacts, TlsPolicy
from relay.policy.table import PolicyTables, parse_table
from relay.sasl.credentials import Credentials, NoCredentials, Owner, Password
from relay.sasl.secret import Secret
from relay.tls.verdict import Plaintext
from tests.fuzz.effort import QUICK
from tests.fuzz.test_never_weaker import NOW, defaults, hosts, maps, rank

LOGINS: list[Credentials | NoCredentials] = [
    NoCredentials(),
    *(
        Credentials(user=user, proof=Password(Secret(word)), place="p:1", owner=Owner.SENDER)
        for user, word in (("ann", "one"), ("ann", "two"), ("bob", "one"))
    ),
]


class Wire:
    """A connection that stands."""

    is_quiet = True
    resting = False

    def send_lines(self, lines: object, stage: object) -> None:
        del lines, stage

    def close(self) -> None:
        self.is_quiet = False


@dataclass(frozen=True)
class Mail:
    """A message's situation: the rules in force, what is known of the host, who we are there."""

    tables: tuple[tuple[str, str], ...]
    host: HostFacts
    defaults: Defaults
    edition: int
    login: Credentials | NoCredentials

    def decision(self) -> Decision:
        texts = enumerate(self.tables)
        loaded = PolicyTables(tuple(parse_table(text, str(number), kind=kind) for number, (kind, text) in texts))
        entry = in_force(find(loaded, self.host.next_hop, self.defaults), NOW)
        return decide(PolicyFacts(entry=entry, host=self.host, defaults=self.defaults))


mails = st.builds(
    Mail,
    tables=st.lists(maps, max_size=2).map(tuple),
    host=hosts(),
    defaults=defaults,
    edition=st.integers(0, 1),
    login=st.sampled_from(LOGINS),
)


@st.composite
def days(draw: st.DrawFn) -> list[Mail]:
    """Some situations, and others that differ from one of them in one thing only, as they come one after the other."""
    known = draw(st.lists(mails, min_size=1, max_size=3))
    one, other = known[0], draw(mails)
    for field in ("tables", "defaults", "edition", "login"):
        known.append(replace(one, **{field: getattr(other, field)}))
    known.append(replace(one, host=replace(one.host, tlsa=other.host.tlsa)))
    return draw(st.lists(st.sampled_from(known), min_size=2, max_size=12))


@QUICK
@given(day=days())
def test_a_session_carries_mail_of_one_decision_only(day: Sequence[Mail]) -> None:
    asyncio.run(live(day))


async def live(day: Sequence[Mail]) -> None:
    pool = Pool(Limits(idle=3600), clock=lambda: datetime.now(UTC))
    judged_for: dict[int, tuple[Mail, TlsPolicy]] = {}
    kept: list[Session] = []
    for mail in day:
        policy = mail.decision()
        if not isinstance(policy, TlsPolicy):
            continue
        relay = RelayHost("mx.example.net", ip_address("192.0.2.25"), mail.host.next_hop.port)
        terms = Terms(relay=relay, next_hop=mail.host.next_hop, edition=mail.edition, policy=policy, login=mail.login)
        session = pool.take(terms)
        if session is None:
            # A session on these very terms would have waited, had there been one.
            assert not any(
                known == mail and each.connection.is_quiet for each in kept for known, _ in [judged_for[id(each)]]
            )
            pool.make_room(mail.host.next_hop)
            session = Session(
                connection=cast("SmtpConnection", Wire()),
                relay=relay,
                policy=policy,
                verdict=Plaintext(""),
                extensions=Extensions({}),
                tls="",
                opened_at=datetime.now(UTC),
            )
            kept.append(session)
            judged_for[id(session)] = mail, policy
        before, judged = judged_for[id(session)]
        assert session.policy == judged == policy
        assert rank(judged, before.host) == rank(policy, mail.host)
        assert (before.edition, before.login, before.host.next_hop) == (mail.edition, mail.login, mail.host.next_hop)
        pool.give(terms, session)
