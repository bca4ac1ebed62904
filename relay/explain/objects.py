"""A story as plain JSON objects, for ``explain --json``, the API and other programs. Pure.

Keys are stable: new ones may come, none changes its meaning. Every key is always there; what does not apply is empty.
"""

from __future__ import annotations

import hashlib
from typing import assert_never

from relay.dane.tlsa import Absent, NotLookedUp, TlsaLookup, Unusable, Usable
from relay.dane.tlsa import Failed as TlsaFailed
from relay.delivery.gather import LookupTrouble
from relay.explain.story import (
    AddressStory,
    Ending,
    Failed,
    Handshake,
    HopStory,
    HostStory,
    Login,
    NoHandshake,
    NoLogin,
    NotReached,
    NotTried,
    Satisfied,
    SessionStory,
    Story,
    WouldEnd,
    WouldFail,
    WouldSend,
)
from relay.log.postfix import status_word, tls_summary
from relay.outcome.wording import one_line
from relay.policy.policy import NO_END, Decision, MalformedEntry, MapEntry, TlsPolicy, Withheld
from relay.tls.peer import CertFacts
from relay.tls.verdict import Encrypted, Plaintext, Refused, Trusted, Verdict, Verified

Json = str | int | float | bool | list["Json"] | dict[str, "Json"]


def story_object(story: Story) -> dict[str, Json]:
    """The whole story."""
    return {
        "domain": str(story.recipient.domain),
        "recipient": story.recipient.text,
        "live": story.live,
        "resolver": {"validating": story.validation.validating, "why": story.validation.why},
        "next_hops": [_hop(hop) for hop in story.hops],
        "message": ending_object(story.ending),
    }


def ending_object(ending: Ending) -> dict[str, Json]:
    """What would come of a message; ``temporary`` where only look-ups that failed stand in its way."""
    match ending:
        case WouldSend():
            return {
                "status": "sent",
                "dsn": "",
                "relay": str(ending.relay),
                "tls": ending.session.tls if isinstance(ending.session, Satisfied) else ending.policy.level.word,
                "reason": f"would be attempted over {ending.relay}",
                "temporary": False,
                "log": "",
                "report": {},
            }
        case WouldFail():
            result = ending.outcome.result
            return {
                "status": status_word(result),
                "dsn": str(result.status),
                "relay": str(ending.outcome.relay),
                "tls": ending.outcome.tls,
                "reason": result.reason,
                "temporary": ending.lookups_only,
                "log": ending.log,
                "report": dict(ending.report),
            }
        case WouldEnd():
            result = ending.outcome.result
            return {
                "status": status_word(result),
                "dsn": str(result.status),
                "relay": str(ending.outcome.relay),
                "tls": ending.outcome.tls,
                "reason": result.reason,
                "temporary": False,
                "log": ending.log,
                "report": {},
            }
        case _:
            assert_never(ending)


def _hop(hop: HopStory) -> dict[str, Json]:
    made: dict[str, Json] = {
        "next_hop": hop.next_hop.key,
        "port": hop.next_hop.port,
        "configured": hop.configured,
        "fallback": hop.fallback,
        "rule": {
            "place": hop.rule.place,
            "text": hop.rule.text,
            "level": hop.level,
            "warning": hop.entry.warning if isinstance(hop.entry, MalformedEntry) else "",
            "until": str(hop.entry.until) if isinstance(hop.entry, MapEntry) and hop.entry.until != NO_END else "",
            "audit": hop.entry.audit.word if isinstance(hop.entry, MapEntry) and hop.entry.audit.uses_tls else "",
        },
    }
    match hop.found:
        case LookupTrouble(status=status, text=text):
            mx: dict[str, Json] = {"status": "failed", "dsn": str(status), "why": text, "expanded": ""}
        case NotReached(why):
            mx = {"status": "not reached", "dsn": "", "why": why, "expanded": ""}
        case found:
            state = "secure" if found.mx_secure else "insecure"
            mx = {
                "status": state if found.had_mx else "none",
                "dsn": "",
                "why": "",
                "expanded": str(found.expanded or ""),
            }
    return {**made, "mx": mx, "hosts": [_host(host) for host in hop.hosts]}


def _host(story: HostStory) -> dict[str, Json]:
    match story.addresses:
        case LookupTrouble(status=status, text=text):
            return {"host": str(story.host), "status": "failed", "dsn": str(status), "why": text, "addresses": []}
        case NotReached(why):
            return {"host": str(story.host), "status": "not reached", "dsn": "", "why": why, "addresses": []}
        case addresses:
            return {
                "host": str(story.host),
                "status": "found",
                "dsn": "",
                "why": "",
                "addresses": [_address(address) for address in addresses],
            }


def _address(story: AddressStory) -> dict[str, Json]:
    address = story.address
    made: dict[str, Json] = {
        "address": str(address.address),
        "secure": address.secure,
        "canonical": str(address.canonical),
    }
    match story.made:
        case NotReached(why):
            return {**made, "status": "not reached", "why": why, "tlsa": {}, "decision": {}, "session": {}}
        case tried:
            return {
                **made,
                "status": "tried",
                "why": "",
                "tlsa": tlsa_object(tried.tlsa),
                "decision": decision_object(tried.decision),
                "session": session_object(tried.session),
            }


def tlsa_object(found: TlsaLookup) -> dict[str, Json]:
    """The state of a TLSA look-up, with the records as text."""
    match found:
        case Usable(base, records, unusable):
            kept: list[Json] = [str(record) for record in records]
            spoilt: list[Json] = [one_line(record.reason) for record in unusable]
            return {"status": "usable", "base": str(base), "records": kept, "unusable": spoilt, "why": ""}
        case Unusable(base, unusable):
            spoilt = [one_line(record.reason) for record in unusable]
            return {"status": "unusable", "base": str(base), "records": [], "unusable": spoilt, "why": ""}
        case Absent(why):
            return {"status": "absent", "base": "", "records": [], "unusable": [], "why": one_line(why)}
        case TlsaFailed(why):
            return {"status": "failed", "base": "", "records": [], "unusable": [], "why": one_line(why)}
        case NotLookedUp(why):
            return {"status": "not looked up", "base": "", "records": [], "unusable": [], "why": one_line(why)}
        case _:
            assert_never(found)


def decision_object(decision: Decision) -> dict[str, Json]:
    """A policy, or why no session may be had; ``allowed`` tells them apart."""
    why: list[Json] = [one_line(step) for step in decision.why]
    match decision:
        case TlsPolicy():
            return {
                "allowed": True,
                "level": decision.level.word,
                "asked": decision.asked.word,
                "rule": str(decision.rule),
                "why": why,
                "names": [str(name) for name in decision.names],
                "fingerprints": list(decision.fingerprints),
                "tafiles": list(decision.tafiles),
                "protocols": decision.protocols,
                "ciphers": decision.ciphers,
                "exclude": decision.exclude or "",
                "sni": decision.sni,
            }
        case Withheld():
            return {
                "allowed": False,
                "asked": decision.asked.word,
                "rule": str(decision.rule),
                "why": why,
                "dsn": str(decision.status),
                "text": decision.text,
                "expected": decision.expected,
                "found": one_line(decision.found),
            }
        case _:
            assert_never(decision)


def _login(login: Login | NoLogin) -> dict[str, Json]:
    if isinstance(login, NoLogin):
        return {}
    return {"user": login.user, "mechanism": login.mechanism, "rule": login.place}


def session_object(session: SessionStory) -> dict[str, Json]:
    """What came of a session; ``status`` is ``not tried``, ``satisfied`` or ``failed``."""
    match session:
        case NotTried(why):
            return {"status": "not tried", "why": why}
        case Satisfied():
            return {
                "status": "satisfied",
                "why": verdict_words(session.verdict),
                "relay": str(session.relay),
                "tls": session.tls,
                **_handshake(session.handshake),
                "extensions": [
                    one_line(f"{keyword} {parameters}".strip())
                    for keyword, parameters in session.extensions.offered.items()
                ],
                "login": _login(session.login),
            }
        case Failed(trouble=trouble):
            return {
                "status": "failed",
                "why": trouble.reason,
                "relay": str(trouble.relay),
                "tls": trouble.tls,
                "dsn": str(trouble.status),
                "in_clear_later": session.in_clear_later,
                **_handshake(session.handshake),
            }
        case _:
            assert_never(session)


def verdict_words(verdict: Verdict) -> str:
    """What a verdict rests on, for people."""
    match verdict:
        case Verified(matched=matched) | Trusted(matched=matched):
            return one_line(matched)
        case Encrypted():
            return "encrypted; the policy demands no proof"
        case Plaintext(why):
            return one_line(f"in the clear: {why}")
        case Refused():
            return one_line(f"{verdict.text}: expected {verdict.expected}; found {verdict.found}")
        case _:
            assert_never(verdict)


def _handshake(handshake: Handshake | NoHandshake) -> dict[str, Json]:
    match handshake:
        case NoHandshake():
            return {"word": "", "summary": "", "certificate": {}, "log": []}
        case Handshake(word=word, peer=peer, log=log):
            leaf = peer.leaf
            return {
                "word": word.value,
                "summary": tls_summary(peer),
                "certificate": {} if leaf is None else _certificate(leaf),
                "log": list(log),
            }
        case _:
            assert_never(handshake)


def _certificate(leaf: CertFacts) -> dict[str, Json]:
    return {
        "subject": leaf.subject,
        "issuer": leaf.issuer,
        "dns_names": [one_line(name) for name in leaf.dns_names[:100]],
        "not_before": leaf.not_before.isoformat(),
        "not_after": leaf.not_after.isoformat(),
        "sha256": hashlib.sha256(leaf.der).hexdigest(),
        "spki_sha256": hashlib.sha256(leaf.spki).hexdigest() if leaf.spki else "",
    }
