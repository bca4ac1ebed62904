"""One event of every kind, and the odd ones; tests/golden/log holds how each is worded."""

from __future__ import annotations

from datetime import UTC, date, datetime
from ipaddress import ip_address

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
    Program,
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
from relay.mail.envelope import NULL_SENDER, Address, Client, ClientTls, QueueId, RecipientId
from relay.mail.names import Domain
from relay.mail.reply import EnhancedStatus, Reply
from relay.outcome.dsn import Audience
from relay.outcome.result import (
    Bounced,
    Deferred,
    Delays,
    FromPeer,
    Local,
    NoHost,
    Outcome,
    RecipientResult,
    Relay,
    RelayHost,
    Sent,
)
from relay.policy.audit import Finding
from relay.policy.level import Level
from relay.policy.ratchet import Best, Mark
from relay.tls.peer import CertFacts, PeerFacts
from relay.tls.verdict import Word

AT = datetime(2026, 11, 22, 5, 32, 5, 123456, tzinfo=UTC)
ID = QueueId("4XYZ0z1hQz1mB2")
LOCAL = Client(address=ip_address("127.0.0.1"), port=51234, name="localhost", helo="app.example")
STRANGER = Client(address=ip_address("2001:db8::7"), name="unknown", helo="x\r\ny> proto=<", protocol="SMTP")
USER = Client(
    address=ip_address("192.0.2.9"),
    name="client.example",
    user="alice",
    tls=ClientTls(protocol="TLSv1.3", cipher="TLS_AES_128_GCM_SHA256", bits=128, algorithm_bits=128),
)
MX = RelayHost("mx.good.example", ip_address("192.0.2.1"), 25)
MX6 = RelayHost("mx6.good.example", ip_address("2001:db8::25"), 10025)
LEAF = CertFacts(
    der=b"leaf",
    spki=b"key",
    subject="CN=mx.good.example",
    issuer="CN=Lab CA",
    self_issued=False,
    dns_names=("mx.good.example",),
    common_name="mx.good.example",
    not_before=datetime(2026, 1, 1, tzinfo=UTC),
    not_after=datetime(2027, 1, 1, tzinfo=UTC),
)
TLS13 = PeerFacts(
    chain=(LEAF,),
    protocol="TLSv1.3",
    cipher="TLS_AES_256_GCM_SHA384",
    bits=256,
    algorithm_bits=256,
    key_exchange="X25519",
    signature="ECDSA (prime256v1)",
    digest="SHA256",
    sni="good.example",
)
TLS12 = PeerFacts(chain=(), protocol="TLSv1.2", cipher="ECDHE-RSA-AES256-GCM-SHA384", bits=256, algorithm_bits=256)
ED25519 = PeerFacts(
    chain=(LEAF,),
    protocol="TLSv1.3",
    cipher="TLS_AES_256_GCM_SHA384",
    bits=256,
    algorithm_bits=256,
    key_exchange="ECDHE (P-256)",
    signature="ED25519",
)
QUICK = Delays(before_queue=0.104, in_queue=0.004, setup=0.2, transmission=0.105)
SLOW = Delays(before_queue=432000.4, in_queue=0.05, setup=30.02, transmission=0.0)


def address(text: str) -> Address:
    return Address(text, Domain.parse(text.rpartition("@")[2]))


def settled(
    result: RecipientResult,
    *,
    to: str = "user@good.example",
    relay: Relay = MX,
    delays: Delays = QUICK,
    tls: str = "dane",
    reused: int = 0,
    queue_id: str = ID,
) -> Settled:
    outcome = Outcome(recipient=RecipientId(1), result=result, relay=relay, delays=delays, tls=tls, reused=reused)
    return Settled(queue_id=QueueId(queue_id), recipient=address(to), outcome=outcome)


def sent(*lines: str) -> Sent:
    return Sent(status=EnhancedStatus(2, 0, 0), reply=Reply(250, lines or ("2.0.0 Ok: queued as 4ABC",)))


def deferred(reason: str) -> Deferred:
    return Deferred(status=EnhancedStatus(4, 7, 5), reason=reason, diagnostic=Local(reason))


def bounced(reason: str) -> Bounced:
    reply = Reply(550, ("5.1.1 No such user",))
    return Bounced(
        status=EnhancedStatus(5, 1, 1), reason=reason, diagnostic=FromPeer(reply=reply, mta="mx.good.example")
    )


def reject(
    where: str, client: Client = LOCAL, *, sender: str = "", recipient: str = "", queue_id: str = "NOQUEUE"
) -> Rejected:
    reply = Reply(454, (f"4.7.1 <{recipient}>: Relay access denied",))
    return Rejected(client=client, where=where, reply=reply, sender=sender, recipient=recipient, queue_id=queue_id)


def audited(finding: Finding, text: str) -> SessionAudited:
    return SessionAudited(
        queue_id=ID,
        destination="good.example",
        relay=MX,
        asked=Level.DANE,
        level=Level.DANE,
        finding=finding,
        text=text,
    )


CASES: dict[str, Event] = {
    "connect": ClientConnected(LOCAL),
    "connect from IPv6": ClientConnected(STRANGER),
    "disconnect": ClientDisconnected(
        LOCAL, {"ehlo": (1, 1), "mail": (1, 1), "rcpt": (1, 2), "data": (1, 1), "quit": (1, 1)}
    ),
    "disconnect, nothing said": ClientDisconnected(LOCAL, {}),
    "disconnect, nothing accepted": ClientDisconnected(LOCAL, {"unknown": (0, 2)}),
    "lost connection": ClientLost(LOCAL, "lost connection", "DATA"),
    "timeout": ClientLost(LOCAL, "timeout", "RCPT"),
    "reject at RCPT": reject("RCPT", sender="a@b.example", recipient="c@d.example"),
    "reject at RCPT, null sender, hostile helo": reject("RCPT", STRANGER, recipient="c@d.example"),
    "reject at CONNECT": Rejected(
        client=Client(address=ip_address("192.0.2.66"), protocol="SMTP"),
        where="CONNECT",
        reply=Reply(421, ("4.7.0 relay.example Error: too many connections from 192.0.2.66",)),
    ),
    "reject at END-OF-MESSAGE, with a queue ID and a user": Rejected(
        client=USER,
        where="END-OF-MESSAGE",
        reply=Reply(554, ("5.4.0 Error: too many hops",)),
        sender="a@b.example",
        queue_id=ID,
    ),
    "accepted": Accepted(queue_id=ID, client=LOCAL, message_id="<1@app.example>", size=1234, recipients=2),
    "accepted from a user, without Message-ID": Accepted(queue_id=ID, client=USER, message_id="", size=1, recipients=1),
    "accepted, hostile Message-ID": Accepted(
        queue_id=ID,
        client=LOCAL,
        message_id="<1@x>\r\nNov 22 05:32:05 relay postfix/smtp[1]: F: removed\x1b[2J",
        size=1,
        recipients=1,
    ),
    "active": Activated(queue_id=ID, sender=address("a@b.example"), size=1234, recipients=2),
    "active, null sender": Activated(queue_id=ID, sender=NULL_SENDER, size=1234, recipients=1),
    "removed": Removed(ID),
    "expired": Expired(ID, address("a@b.example")),
    "non-delivery": Notified(ID, "non-delivery", QueueId("4XYZ1z2hQz1mB3")),
    "delay": Notified(ID, "delay", QueueId("4XYZ1z2hQz1mB3")),
    "relayed": Notified(ID, "delivery status", QueueId("4XYZ1z2hQz1mB3")),
    "postmaster's copy": Notified(ID, "non-delivery", QueueId("4XYZ1z2hQz1mB3"), Audience.POSTMASTER),
    "postmaster not notified": NotNotified(ID, "it was to the postmaster", Audience.POSTMASTER),
    "not notified": NotNotified(ID, "the message is itself a report"),
    "TLS 1.3": TlsEstablished(queue_id=ID, relay=MX, word=Word.VERIFIED, peer=TLS13),
    "TLS 1.3, a session that carried mail before": TlsEstablished(
        queue_id=ID, relay=MX, word=Word.VERIFIED, peer=TLS13, reused=True
    ),
    "TLS 1.2, anonymous": TlsEstablished(queue_id=ID, relay=MX6, word=Word.ANONYMOUS, peer=TLS12),
    "TLS 1.3, Ed25519": TlsEstablished(queue_id=ID, relay=MX, word=Word.TRUSTED, peer=ED25519),
    "no TLS": TlsEstablished(queue_id=ID, relay=MX, word=Word.PLAINTEXT, peer=TLS12),
    "TLS refused": TlsRefused(
        queue_id=ID,
        relay=MX,
        detail="certificate verification failed for {peer}: not trusted by local or TLSA policy",
    ),
    "TLS refused, hostile subject": TlsRefused(
        queue_id=ID, relay=MX, detail="certificate verification failed for {peer}: untrusted issuer /CN={0}{x\n{peer"
    ),
    "connect failed": ConnectFailed(queue_id=ID, relay=MX, error="Connection refused"),
    "host failed": HostFailed(ID, "host mx.good.example[192.0.2.1] refused to talk to me: 421 4.3.2 busy"),
    "audit, would be deferred": audited(
        Finding.REFUSED,
        "Server certificate not verified: expected TLSA 3 1 1 0badc0de; found \n; rule tls_policy:12 audit=dane",
    ),
    "audit, would verify": audited(Finding.VERIFIED, "DANE EE certificate at depth 0: 3 1 1 0badc0de"),
    "downgraded": Downgraded(
        queue_id=ID,
        destination="good.example",
        relay=MX,
        now="in the clear",
        best=Best(mark=Mark.DANE, host=str(MX6), since=date(2026, 11, 1), last=date(2026, 11, 21)),
    ),
    "sent": settled(sent()),
    "sent over a used connection, to the third message": settled(sent(), reused=2, relay=MX6),
    "sent, several lines": settled(sent("2.0.0 Ok", "and \x07 more"), tls="may:none"),
    "deferred": settled(
        deferred(
            "Server certificate not verified: expected TLSA 3 1 1 0badc0de; found 3 1 1 f00dbabe; rule tls_policy:12"
        ),
        tls="!dane",
    ),
    "deferred, no host": settled(
        deferred("connect to mx.good.example[192.0.2.1]:25: Connection refused"), relay=NoHost()
    ),
    "deferred, suspended": settled(
        deferred("delivery temporarily suspended: Server certificate not verified"), relay=NoHost(), tls="", delays=SLOW
    ),
    "bounced": settled(
        bounced("host mx.good.example[192.0.2.1] said: 550 5.1.1 No such user (in reply to RCPT TO command)")
    ),
    "warning": Warned(Program.SMTP, "no MX host for good.example has a valid address record"),
    "warning about a message": Warned(Program.SMTPD, "message rejected: hopcount exceeded", ID),
    "note": Noted(Program.MASTER, "daemon started -- version 0.1.0"),
    "note about a message": Noted(Program.POSTSUPER, "requeued", ID),
    "resolver validates": ResolverProbed(True, "127.0.0.1 sets AD for dnssec.example", True),
    "resolver still validates": ResolverProbed(True, "127.0.0.1 sets AD for dnssec.example", False),
    "resolver does not validate": ResolverProbed(False, "127.0.0.1 never sets AD", True),
    "store takes no mail": StoreState("not trusted until it is opened anew and checked: disk I/O error"),
    "store takes mail again": StoreState(""),
    "crash": Crashed("worker", 'Traceback (most recent call last):\n  File "x.py", line 1\nValueError: no\n', ID),
}
