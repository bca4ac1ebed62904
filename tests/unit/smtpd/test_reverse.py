from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest

from relay.dns.answer import Answer, Bogus, Found, LookupFailed, LookupFault, NxDomain, RRType
from relay.log.events import Event, Warned
from relay.mail.names import Domain
from relay.smtpd import reverse
from relay.smtpd.reverse import KEPT_SECONDS, ReverseNames

CLIENT, CLIENT6 = ip_address("192.0.2.7"), ip_address("2001:db8::7")
POINTER, POINTER6 = "7.2.0.192.in-addr.arpa", CLIENT6.reverse_pointer
FAILURES = (
    LookupFailed(LookupFault.SERVFAIL, "servfail"),
    Bogus("no signature"),
    NxDomain(canonical=Domain("x.test"), secure=False, ttl=60),
)


def wire(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode("latin-1") for label in name.split(".") if label) + b"\0"


def found(*rdata: bytes) -> Found:
    return Found(canonical=Domain("x.test"), rdata=rdata, secure=False, ttl=60)


@dataclass
class Names:
    """A resolver that knows some answers."""

    answers: Mapping[tuple[str, RRType], Answer]
    asked: list[tuple[str, RRType]] = field(default_factory=list)

    async def query(self, name: Domain, rrtype: RRType) -> Answer:
        self.asked.append((str(name), rrtype))
        answer = self.answers.get((str(name), rrtype))
        return answer or NxDomain(canonical=name, secure=False, ttl=60)


@dataclass
class Scene:
    resolver: Names
    now: float = 1000.0
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = ReverseNames(self.resolver, monotonic=lambda: self.now, warn=self.events.append)

    async def name(self, address: str = "192.0.2.7") -> str:
        return await self.names.name_of(ip_address(address))


def scene(answers: Mapping[tuple[str, RRType], Answer]) -> Scene:
    return Scene(Names(answers))


GOOD = {
    (POINTER, RRType.PTR): found(wire("mail.client.test")),
    ("mail.client.test", RRType.A): found(ip_address("192.0.2.1").packed, CLIENT.packed),
    (POINTER6, RRType.PTR): found(wire("six.client.test")),
    ("six.client.test", RRType.AAAA): found(CLIENT6.packed),
}


async def test_a_name_that_leads_back() -> None:
    good = scene(GOOD)
    assert await good.name() == "mail.client.test"
    assert await good.name("2001:db8::7") == "six.client.test"
    assert good.events == []


async def test_a_name_that_does_not_is_nobodys() -> None:
    forged = scene({**GOOD, ("mail.client.test", RRType.A): found(ip_address("192.0.2.8").packed)})
    assert await forged.name() == "unknown"
    (event,) = forged.events
    assert isinstance(event, Warned)
    assert event.text == "hostname mail.client.test does not resolve to address 192.0.2.7"


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("where", [(POINTER, RRType.PTR), ("mail.client.test", RRType.A)])
async def test_what_cannot_be_looked_up_has_no_name(failure: Answer, where: tuple[str, RRType]) -> None:
    assert await scene({**GOOD, where: failure}).name() == "unknown"


@pytest.mark.parametrize(
    "rdata",
    [
        b"",
        b"\0",
        b"\xff" * 300,
        wire("mail client.test"),
        wire("mail\r\nx.test"),
        wire("mail(.test"),
        wire("\xe9.test"),
        wire("192.0.2.7"),
        wire("mail.client.test") + b"x",
    ],
)
async def test_a_name_that_is_none_is_not_said(rdata: bytes) -> None:
    hostile = scene({**GOOD, (POINTER, RRType.PTR): found(rdata), ("192.0.2.7", RRType.A): found(CLIENT.packed)})
    assert await hostile.name() == "unknown"


async def test_many_names_are_not_many_questions() -> None:
    many = scene({(POINTER, RRType.PTR): found(*(wire(f"n{number}.test") for number in range(500)))})
    assert await many.name() == "unknown"
    assert len(many.resolver.asked) <= 4
    second = scene({**GOOD, (POINTER, RRType.PTR): found(wire("other.test"), wire("mail.client.test"))})
    assert await second.name() == "mail.client.test"


async def test_this_machine_needs_no_dns() -> None:
    here = scene({})
    assert [await here.name("127.0.0.1"), await here.name("::1")] == ["localhost", "localhost"]
    assert here.resolver.asked == []


async def test_what_was_found_is_kept_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = scene(GOOD)
    await kept.name()
    asked = len(kept.resolver.asked)
    kept.now += KEPT_SECONDS - 1
    assert await kept.name() == "mail.client.test"
    assert len(kept.resolver.asked) == asked
    kept.now += 1
    await kept.name()
    assert len(kept.resolver.asked) == 2 * asked
    monkeypatch.setattr(reverse, "_MOST_KEPT", 1)
    await kept.name("192.0.2.9")
    await kept.name()
    assert len(kept.resolver.asked) > 2 * asked + 1


async def test_a_silent_dns_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Names):
        async def query(self, name: Domain, rrtype: RRType) -> Answer:
            self.asked.append((str(name), rrtype))
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(reverse, "LOOKUP_SECONDS", 0.0)
    silent = Scene(Silent({}))
    assert await silent.name() == "unknown"
    assert await silent.name() == "unknown"
    assert len(silent.resolver.asked) == 1
