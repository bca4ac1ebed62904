"""Events as JSON objects, one a line: all that the Postfix lines say and more, the queue ID wherever there is one. Pure.

``event`` is the stable name of what happened; keys are only ever added. Times are ISO 8601 in UTC, spans are seconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import assert_never

from relay.log.events import (
    Accepted,
    Activated,
    ClientConnected,
    ClientDisconnected,
    ClientLost,
    ConnectFailed,
    Crashed,
    Downgraded,
    Event,
    Expired,
    HostFailed,
    Noted,
    Notified,
    NotNotified,
    Rejected,
    Removed,
    ResolverProbed,
    SessionAudited,
    Settled,
    StoreState,
    TlsEstablished,
    TlsRefused,
    Warned,
)
from relay.log.postfix import status_word
from relay.mail.envelope import Client, ClientCertificate, LocalUser, sender_text
from relay.outcome.result import Diagnostic, FromPeer, Local, Outcome, Relay, RelayHost, Sent
from relay.outcome.wording import one_line
from relay.tls.peer import CertFacts, PeerFacts

MAX_TEXT = 2000
MAX_TRACEBACK = 16_000

Json = str | int | float | bool | list["Json"] | dict[str, "Json"]
Facts = dict[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonLines:
    """Words events as JSON objects, each with ``time``, ``host``, ``pid``, ``event`` and the event's own facts."""

    hostname: str
    pid: int

    def lines(self, event: Event, at: datetime) -> tuple[str, ...]:
        """The one line of an event that happened ``at`` (aware), without its line end."""
        name, facts = _told(event)
        time = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        whole: Mapping[str, Json] = {"time": time, "host": self.hostname, "pid": self.pid, "event": name, **facts}
        return (json.dumps(whole, ensure_ascii=True, separators=(",", ":")),)


def _told(event: Event) -> tuple[str, Facts]:
    match event:
        case ClientConnected() | ClientDisconnected() | ClientLost() | Rejected() | Accepted():
            return _accepting(event)
        case Activated() | Removed() | Expired() | Notified() | NotNotified():
            return _queueing(event)
        case (
            TlsEstablished()
            | TlsRefused()
            | ConnectFailed()
            | HostFailed()
            | Settled()
            | SessionAudited()
            | Downgraded()
        ):
            return _delivering(event)
        case Warned() | Noted() | ResolverProbed() | StoreState() | Crashed():
            return _telling(event)
        case _:
            assert_never(event)


def _accepting(event: ClientConnected | ClientDisconnected | ClientLost | Rejected | Accepted) -> tuple[str, Facts]:
    client = _client(event.client)
    match event:
        case ClientConnected():
            return "connect", client
        case ClientDisconnected(commands=commands, notes=notes):
            counts: Facts = {name: {"accepted": good, "total": total} for name, (good, total) in commands.items()}
            return "disconnect", {**client, "commands": counts, **({"notes": list(notes)} if notes else {})}
        case ClientLost(how=how, after=after):
            return "client_lost", {**client, "how": _text(how), "after": _text(after)}
        case Rejected():
            facts: Facts = {
                "where": event.where,
                "code": event.reply.code,
                "dsn": str(event.reply.status),
                "reply": _text(event.reply.one_line),
                "sender": _text(event.sender),
                "recipient": _text(event.recipient),
            }
            return "reject", {"queue_id": event.queue_id, **client, **facts}
        case Accepted():
            facts = {"message_id": _text(event.message_id), "size": event.size, "recipients": event.recipients}
            return "accepted", {"queue_id": event.queue_id, **client, **facts}
        case _:
            assert_never(event)


def _queueing(event: Activated | Removed | Expired | Notified | NotNotified) -> tuple[str, Facts]:
    facts: Facts = {"queue_id": event.queue_id}
    match event:
        case Activated():
            sender = _text(sender_text(event.sender))
            return "active", {**facts, "sender": sender, "size": event.size, "recipients": event.recipients}
        case Removed():
            return "removed", facts
        case Expired():
            return "expired", {**facts, "sender": _text(sender_text(event.sender))}
        case Notified(kind=kind, report=report, audience=audience):
            return "notified", {**facts, "kind": kind, "report": report, "audience": audience.value}
        case NotNotified(why=why, audience=audience):
            return "not_notified", {**facts, "why": _text(why), "audience": audience.value}
        case _:
            assert_never(event)


def _delivering(
    event: TlsEstablished | TlsRefused | ConnectFailed | HostFailed | Settled | SessionAudited | Downgraded,
) -> tuple[str, Facts]:
    facts: Facts = {"queue_id": event.queue_id}
    match event:
        case TlsEstablished():
            facts |= {**_relay(event.relay), "word": event.word.value, **_session(event.peer)}
            if event.reused:
                return "tls_reused", facts  # the certificates were told when the session was new
            return "tls_established", {**facts, "chain": [_certificate(each) for each in event.peer.chain]}
        case TlsRefused(relay=relay, detail=detail):
            return "tls_refused", {**facts, **_relay(relay), "detail": _text(detail.replace("{peer}", str(relay)))}
        case ConnectFailed(relay=relay, error=error):
            return "connect_failed", {**facts, **_relay(relay), "error": _text(error)}
        case HostFailed(reason=reason):
            return "host_failed", {**facts, "reason": _text(reason)}
        case Settled(recipient=recipient, outcome=outcome):
            return "settled", {**facts, "recipient": _text(recipient.text), **_outcome(outcome)}
        case SessionAudited():
            found: Facts = {
                "destination": _text(event.destination),
                "audit": event.asked.word,
                "level": event.level.word,
                "finding": event.finding.name.lower(),
                "text": _text(event.text),
            }
            return "audit", {**facts, **_relay(event.relay), **found}
        case Downgraded(best=best):
            found = {
                "destination": _text(event.destination),
                "now": event.now,
                "best": best.mark.words,
                "best_host": _text(best.host),
                "best_since": str(best.since),
            }
            return "downgrade", {**facts, **_relay(event.relay), **found}
        case _:
            assert_never(event)


def _telling(event: Warned | Noted | ResolverProbed | StoreState | Crashed) -> tuple[str, Facts]:
    match event:
        case Warned(program=program, text=text, queue_id=queue_id):
            return "warning", {**_queue_id(queue_id), "program": program.value, "text": _text(text)}
        case Noted(program=program, text=text, queue_id=queue_id):
            return "note", {**_queue_id(queue_id), "program": program.value, "text": _text(text)}
        case ResolverProbed(validating=validating, why=why, changed=changed, resolver=resolver, kind=kind):
            chosen = {"resolver": _text(resolver), "kind": kind} if resolver else {}
            return "resolver_probed", {"validating": validating, "why": _text(why), "changed": changed, **chosen}
        case StoreState(why=why):
            return "store_state", {"taking_mail": not why, "why": _text(why)}
        case Crashed(where=where, traceback=traceback, queue_id=queue_id):
            return "crashed", {**_queue_id(queue_id), "where": _text(where), "traceback": traceback[-MAX_TRACEBACK:]}
        case _:
            assert_never(event)


def _text(text: str) -> str:
    return one_line(text, MAX_TEXT)


def _queue_id(queue_id: str) -> Facts:
    return {"queue_id": queue_id} if queue_id else {}


def _client(client: Client) -> Facts:
    facts: Facts = {
        "client_name": _text(client.name),
        "client_address": str(client.address),
        "client_port": client.port,
        "protocol": client.protocol,
        "helo": _text(client.helo),
        "sasl_username": _text(client.user),
    }
    if client.sasl_method:
        facts["sasl_method"] = client.sasl_method
    if isinstance(client.local, LocalUser):
        facts["local_user"] = {"uid": client.local.uid, "name": _text(client.local.name)}
    if client.tls.used:
        facts["client_tls"] = {
            "protocol": client.tls.protocol,
            "cipher": client.tls.cipher,
            "bits": client.tls.bits,
            "algorithm_bits": client.tls.algorithm_bits,
        }
    certificate = client.tls.certificate
    if isinstance(certificate, ClientCertificate):
        facts["client_certificate"] = {
            "fingerprint": certificate.fingerprint,
            "key_fingerprint": certificate.key_fingerprint,
            "subject": _text(certificate.subject),
            "issuer": _text(certificate.issuer),
        }
    return facts


def _relay(relay: Relay) -> Facts:
    if not isinstance(relay, RelayHost):
        return {"relay": "none"}
    facts: Facts = {"name": relay.name, "address": str(relay.address), "port": relay.port}
    return {"relay": str(relay), "relay_host": facts}


def _session(peer: PeerFacts) -> Facts:
    return {
        "protocol": peer.protocol,
        "cipher": peer.cipher,
        "bits": peer.bits,
        "algorithm_bits": peer.algorithm_bits,
        "key_exchange": peer.key_exchange,
        "server_signature": peer.signature,
        "server_digest": peer.digest,
        "sni": peer.sni,
    }


def _certificate(certificate: CertFacts) -> Facts:
    return {
        "subject": _text(certificate.subject),
        "issuer": _text(certificate.issuer),
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
        "certificate_sha256": hashlib.sha256(certificate.der).hexdigest(),
        "public_key_sha256": hashlib.sha256(certificate.spki).hexdigest(),
    }


def _outcome(outcome: Outcome) -> Facts:
    result, spans = outcome.result, outcome.delays
    facts: Facts = {
        **_relay(outcome.relay),
        "conn_use": outcome.reused + 1,
        "delay": round(spans.total, 6),
        "delays": [round(x, 6) for x in (spans.before_queue, spans.in_queue, spans.setup, spans.transmission)],
        "tls": outcome.tls,
        "dsn": str(result.status),
        "status": status_word(result),
        "reason": _text(result.reason),
    }
    if isinstance(result, Sent):
        return {**facts, "code": result.reply.code, "dsn_passed_on": result.dsn_passed_on}
    return {**facts, "diagnostic": _diagnostic(result.diagnostic)}


def _diagnostic(diagnostic: Diagnostic) -> Facts:
    match diagnostic:
        case FromPeer(reply=reply, mta=mta):
            return {"from": "peer", "mta": _text(mta), "code": reply.code, "reply": _text(reply.one_line)}
        case Local(text=text):
            return {"from": "local", "text": _text(text)}
        case _:
            assert_never(diagnostic)
