"""Rows of the SQLite queue and the dataclasses they stand for, both ways. No statement runs here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import ip_address
from typing import assert_never

from relay.mail.envelope import (
    NULL_SENDER,
    Address,
    BodyType,
    Client,
    ClientCertificate,
    ClientTls,
    Envelope,
    LocalUser,
    Message,
    NoCertificate,
    Notify,
    NullSender,
    QueueId,
    Recipient,
    RecipientId,
    Remote,
    Ret,
    Sender,
)
from relay.mail.names import Domain, IpLiteral
from relay.policy.level import Level
from relay.policy.override import AS_CONFIGURED, AsConfigured, TlsOverride

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_compact = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make an encoder for each client

Value = int | float | str | bytes | None
Row = Sequence[Value]

MESSAGE_COLUMNS = (
    "queue_id, sender, domain, arrived_at, size, eight_bit, body_type, smtputf8, ret, envid, requiretls, client"
)
RECIPIENT_COLUMNS = "id, address, domain, notify, orcpt"


def micros(moment: datetime) -> int:
    """Microseconds since the epoch.

    :raises TypeError: if the moment is naive.
    """
    return (moment - _EPOCH) // _MICROSECOND


def moment(value: Value) -> datetime:
    """The aware UTC time of a number of microseconds."""
    return _EPOCH + timedelta(microseconds=number(value))


def number(value: Value) -> int:
    """A column that the schema says is INTEGER."""
    if not isinstance(value, int):
        raise TypeError(f"not a number in the queue database: {value!r}")
    return value


def text(value: Value) -> str:
    """A column that the schema says is TEXT."""
    if not isinstance(value, str):
        raise TypeError(f"not a text in the queue database: {value!r}")
    return value


@dataclass(frozen=True, slots=True)
class InRow:
    """A body that is kept in its row."""

    content: bytes


@dataclass(frozen=True, slots=True)
class InFile:
    """A body that is kept in a file of the spool directory."""

    name: str


Body = InRow | InFile


def body_row(body: Body) -> tuple[bytes | None, str]:
    """The columns content and spool."""
    match body:
        case InRow(content):
            return content, ""
        case InFile(name):
            return None, name
        case _:
            assert_never(body)


def message_row(message: Message) -> tuple[str | int, ...]:
    """The values of ``MESSAGE_COLUMNS``."""
    envelope = message.envelope
    return (
        message.queue_id,
        *_sender_row(envelope.sender),
        micros(message.arrived_at),
        message.size,
        int(message.eight_bit),
        envelope.body.value,
        int(envelope.smtputf8),
        envelope.ret.value,
        envelope.envid,
        int(envelope.requiretls),
        _client_json(envelope.client),
    )


def message_of(row: Row, recipients: tuple[Recipient, ...]) -> Message:
    """The message of a row of ``MESSAGE_COLUMNS``."""
    queue_id, sender, domain, arrived_at, size, eight_bit, body_type, smtputf8, ret, envid, requiretls, client = row
    return Message(
        queue_id=QueueId(text(queue_id)),
        envelope=Envelope(
            sender=sender_of(text(sender), text(domain)),
            recipients=recipients,
            body=BodyType(body_type),
            smtputf8=bool(smtputf8),
            ret=Ret(ret),
            envid=text(envid),
            requiretls=bool(requiretls),
            client=_client_of(text(client)),
        ),
        size=number(size),
        arrived_at=moment(arrived_at),
        eight_bit=bool(eight_bit),
    )


def recipient_row(recipient: Recipient) -> tuple[str | int, ...]:
    """The values of ``RECIPIENT_COLUMNS``."""
    address = recipient.address
    return recipient.id, address.text, str(address.domain), recipient.notify.value, recipient.orcpt


def recipient_of(row: Row) -> Recipient:
    """The recipient of a row of ``RECIPIENT_COLUMNS``."""
    id_, address, domain, notify, orcpt = row
    return Recipient(
        id=RecipientId(number(id_)),
        address=Address(text(address), _domain_of(text(domain))),
        notify=Notify(number(notify)),
        orcpt=text(orcpt),
    )


def override_of(value: Value) -> TlsOverride | AsConfigured:
    """The override of a column tls_override."""
    if not text(value):
        return AS_CONFIGURED
    facts = json.loads(text(value))
    return TlsOverride(
        level=Level.parse(facts["level"]), by=facts["by"], at=moment(facts["at"]), reason=facts["reason"]
    )


def override_text(override: TlsOverride | AsConfigured) -> str:
    """The column tls_override."""
    match override:
        case TlsOverride(level=level, by=by, at=at, reason=reason):
            return json.dumps({"level": level.word, "by": by, "at": micros(at), "reason": reason})
        case AsConfigured():
            return ""
        case _:
            assert_never(override)


def _sender_row(sender: Sender) -> tuple[str, str]:
    match sender:
        case Address():
            return sender.text, str(sender.domain)
        case NullSender():
            return "", ""
        case _:
            assert_never(sender)


def sender_of(address: str, domain: str) -> Sender:
    """The sender of the columns sender and domain."""
    return Address(address, _domain_of(domain)) if address else NULL_SENDER


@lru_cache(maxsize=4096)
def _domain_of(domain: str) -> Domain | IpLiteral:
    """What we wrote ourselves is not parsed anew."""
    return IpLiteral.parse(domain[1:-1]) if domain.startswith("[") else Domain(domain)


@lru_cache(maxsize=1024)
def _client_json(client: Client) -> str:
    """A client that sends many messages in a session is written down once."""
    tls = client.tls
    return _compact(
        {
            "address": str(client.address),
            "port": client.port,
            "name": client.name,
            "helo": client.helo,
            "protocol": client.protocol,
            "user": client.user,
            "sasl_method": client.sasl_method,
            **({"unnamed": True} if client.unnamed else {}),
            **({"local": [client.local.uid, client.local.name]} if isinstance(client.local, LocalUser) else {}),
            "tls": [tls.protocol, tls.cipher, tls.bits, tls.algorithm_bits],
            **_certificate_json(tls.certificate),
        }
    )


def _certificate_json(certificate: ClientCertificate | NoCertificate) -> dict[str, object]:
    match certificate:
        case ClientCertificate():
            shown = (certificate.fingerprint, certificate.key_fingerprint, certificate.subject, certificate.issuer)
            return {"certificate": shown}
        case NoCertificate.NOT_PRESENTED:
            return {"certificate": ()}
        case NoCertificate.NOT_REQUESTED:
            return {}
        case _:
            assert_never(certificate)


def _certificate_of(shown: list[str] | None) -> ClientCertificate | NoCertificate:
    if not shown:
        return NoCertificate.NOT_REQUESTED if shown is None else NoCertificate.NOT_PRESENTED
    fingerprint, key_fingerprint, subject, issuer = shown
    return ClientCertificate(fingerprint=fingerprint, key_fingerprint=key_fingerprint, subject=subject, issuer=issuer)


@lru_cache(maxsize=1024)
def _client_of(document: str) -> Client:
    facts = json.loads(document)
    protocol, cipher, bits, algorithm_bits = facts["tls"]
    return Client(
        address=ip_address(facts["address"]),
        port=facts["port"],
        name=facts["name"],
        helo=facts["helo"],
        protocol=facts["protocol"],
        tls=ClientTls(
            protocol=protocol,
            cipher=cipher,
            bits=bits,
            algorithm_bits=algorithm_bits,
            certificate=_certificate_of(facts.get("certificate")),
        ),
        user=facts["user"],
        sasl_method=facts.get("sasl_method", ""),  # rows of before 0.1 have none
        unnamed=facts.get("unnamed", False),
        local=LocalUser(uid=facts["local"][0], name=facts["local"][1]) if "local" in facts else Remote.REMOTE,
    )
