"""A story for people to read: what was found from the rule down to the host, and what would come of a message. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from relay.dane.tlsa import Absent, NotLookedUp, TlsaLookup, Unusable, Usable
from relay.dane.tlsa import Failed as TlsaFailed
from relay.delivery.gather import Destination, LookupTrouble
from relay.explain.objects import verdict_words
from relay.explain.story import (
    AddressStory,
    Ending,
    Failed,
    Handshake,
    HopStory,
    HostStory,
    Login,
    NoHandshake,
    NotReached,
    NotTried,
    Satisfied,
    SessionStory,
    Story,
    Tried,
    WouldEnd,
    WouldFail,
    WouldSend,
)
from relay.log.postfix import status_word
from relay.outcome.result import Deferred
from relay.outcome.wording import one_line
from relay.policy.policy import Decision, MalformedEntry, MapEntry, TlsPolicy, Withheld

_MAX_LINE = 2000
_COLUMN = 10


def story_lines(story: Story) -> Iterator[str]:
    """The story, line by line, without line ends."""
    for line in _story(story):
        yield one_line(line, _MAX_LINE).rstrip()


def _story(story: Story) -> Iterator[str]:
    yield f"{story.recipient.domain}: {_headline(story.ending)}"
    for hop in story.hops:
        yield from _hop(hop, story)
    yield from _ending(story.ending)


def _headline(ending: Ending) -> str:
    match ending:
        case WouldSend():
            return "mail would be attempted" if isinstance(ending.session, NotTried) else "mail can go"
        case WouldFail():
            return f"mail would be {status_word(ending.outcome.result)}"
        case WouldEnd():
            return "mail would be discarded"
        case _:
            assert_never(ending)


def _row(depth: int, name: str, text: str) -> str:
    return f"{'  ' * depth}{name:<{_COLUMN}}{text}"


def _hop(hop: HopStory, story: Story) -> Iterator[str]:
    if hop.fallback:
        yield _row(1, "next-hop", f"{hop.next_hop} (smtp.fallback_relay, under the policy of the destination too)")
    elif hop.configured or hop.next_hop.host != story.recipient.domain:
        yield _row(1, "next-hop", f"{hop.next_hop}{' (smtp.relayhost)' if hop.configured else ''}")
    yield _row(1, "rule", f"{hop.rule.place}: {hop.rule.text}")
    if isinstance(hop.entry, MalformedEntry):
        yield _row(1, "", f"cannot be understood: {hop.entry.warning}")
    if isinstance(hop.entry, MapEntry) and hop.entry.audit.uses_tls:
        yield _row(
            1, "", f"audited at level {hop.entry.audit.word}, which holds no mail: `policy audit` tells what came of it"
        )
    match hop.found:
        case LookupTrouble(status=status, text=text):
            yield _row(1, "MX", f"{text} ({status})")
        case NotReached(why):
            yield _row(1, "MX", f"not looked up: {why}")
        case Destination():
            yield _row(1, "MX", _mx(hop.found))
        case _:
            assert_never(hop.found)
    for host in hop.hosts:
        yield from _host(host, hop)


def _mx(found: Destination) -> str:
    if not found.had_mx:
        return "none: the next-hop is the host" if not found.next_hop.use_mx else "none: the domain is its own host"
    secure = "DNSSEC secure" if found.mx_secure else "not DNSSEC secure"
    names = ", ".join(map(str, found.hosts))
    return f"{names} ({secure}{f', by way of {found.expanded}' if found.expanded else ''})"


def _host(story: HostStory, hop: HopStory) -> Iterator[str]:
    name = f"{story.host}:{hop.next_hop.port}"
    match story.addresses:
        case LookupTrouble(status=status, text=text):
            yield _row(1, "host", name)
            yield _row(2, "address", f"{text} ({status})")
        case NotReached(why):
            yield _row(1, "host", f"{name}: not reached: {why}")
        case addresses:
            yield _row(1, "host", name)
            for address in addresses:
                yield from _address(address, story)


def _address(story: AddressStory, host: HostStory) -> Iterator[str]:
    address = story.address
    alias = f", by way of {address.canonical}" if address.canonical != host.host else ""
    secure = "DNSSEC secure" if address.secure else "not DNSSEC secure"
    match story.made:
        case NotReached(why):
            yield _row(2, "address", f"{address.address}: not reached: {why}")
        case Tried() as tried:
            yield _row(2, "address", f"{address.address} ({secure}{alias})")
            yield from _tlsa(tried.tlsa)
            yield from _decision(tried.decision)
            yield from _session(tried.session)
        case _:
            assert_never(story.made)


def _tlsa(found: TlsaLookup) -> Iterator[str]:
    match found:
        case Usable(base, records, unusable):
            yield _row(2, "TLSA", f"at {base}, DNSSEC secure")
            for record in records:
                yield _row(2, "", str(record))
            for spoilt in unusable:
                yield _row(2, "", f"unusable: {spoilt.reason}")
        case Unusable(base, unusable):
            yield _row(2, "TLSA", f"at {base}, DNSSEC secure, none usable")
            for spoilt in unusable:
                yield _row(2, "", f"unusable: {spoilt.reason}")
        case Absent(why):
            yield _row(2, "TLSA", why)
        case TlsaFailed(why):
            yield _row(2, "TLSA", f"look-up failed: {why}")
        case NotLookedUp(why):
            yield _row(2, "TLSA", f"not looked up: {why}")
        case _:
            assert_never(found)


def _decision(decision: Decision) -> Iterator[str]:
    match decision:
        case TlsPolicy():
            yield _row(2, "level", decision.level.word)
            for step in decision.why:
                yield _row(2, "", f"because {step}")
            if decision.names:
                yield _row(2, "names", ", ".join(map(str, decision.names)))
            if decision.level.requires_match and decision.fingerprints:
                yield _row(2, "digests", f"{decision.fingerprint_digest} {', '.join(decision.fingerprints)}")
            if decision.tafiles:
                yield _row(2, "anchors", ", ".join(decision.tafiles))
            if decision.level.uses_tls:
                sni = f", server name {decision.sni}" if decision.sni else ""
                yield _row(2, "TLS", f"{decision.protocols}, {decision.ciphers} ciphers{sni}")
        case Withheld():
            yield _row(2, "level", f"none can be had: {decision.text} ({decision.status})")
            for step in decision.why:
                yield _row(2, "", f"because {step}")
            yield _row(2, "", f"expected {decision.expected}; found {decision.found}; rule {decision.rule}")
        case _:
            assert_never(decision)


def _session(session: SessionStory) -> Iterator[str]:
    match session:
        case NotTried(why):
            yield _row(2, "session", f"not tried: {why}")
        case Satisfied():
            yield from _logged(session.handshake)
            yield _row(2, _first(session.handshake), verdict_words(session.verdict))
            yield _row(2, "offers", ", ".join(session.extensions.offered) or "no extensions")
            if isinstance(session.login, Login):
                yield _row(2, "AUTH", _login(session.login))
        case Failed(trouble=trouble):
            yield from _logged(session.handshake)
            yield _row(2, _first(session.handshake), trouble.reason)
            if session.in_clear_later:
                yield _row(2, "", "a message that has waited for queue.minimal_backoff_time goes in the clear")
        case _:
            assert_never(session)


def _login(login: Login) -> str:
    how = f"with {login.mechanism}" if login.mechanism else "if the host offered AUTH; mail goes without"
    return f"as {login.user} {how}; rule {login.place}"


def _first(handshake: Handshake | NoHandshake) -> str:
    return "session" if isinstance(handshake, NoHandshake) else ""


def _logged(handshake: Handshake | NoHandshake) -> Iterator[str]:
    if isinstance(handshake, Handshake):
        for number, line in enumerate(handshake.log):
            yield _row(2, "" if number else "session", line)


def _ending(ending: Ending) -> Iterator[str]:
    match ending:
        case WouldSend():
            yield _row(1, "message", f"would be attempted over {ending.relay} at level {ending.policy.level.word}")
            if isinstance(ending.session, NotTried):
                yield _row(1, "", "--live opens a session and judges it")
        case WouldFail():
            yield _row(1, "log", ending.log)
            when = (
                "when the message expires, if it stays so" if isinstance(ending.outcome.result, Deferred) else "at once"
            )
            yield _row(1, "report", f"{when}:")
            for name, value in ending.report:
                yield _row(1, "", f"{name}: {value}")
        case WouldEnd():
            yield _row(1, "log", ending.log)
        case _:
            assert_never(ending)
