"""Stories made by hand, of every state that a walk can meet."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address

from relay.dane.tlsa import (
    Absent,
    MatchingType,
    NotLookedUp,
    Selector,
    Tlsa,
    TlsaLookup,
    Unusable,
    UnusableTlsa,
    Usable,
    Usage,
)
from relay.dane.tlsa import Failed as TlsaFailed
from relay.delivery.gather import Destination, HostAddress, LookupTrouble
from relay.delivery.plan import Extensions
from relay.delivery.trouble import Trouble
from relay.dns.probe import Validation
from relay.explain.story import (
    AddressStory,
    Ending,
    Failed,
    Handshake,
    HopStory,
    HostStory,
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
from relay.mail.envelope import Address, RecipientId
from relay.mail.names import Domain, NextHop
from relay.mail.reply import EnhancedStatus, Reply
from relay.outcome.result import Bounced, Deferred, Delays, Local, NoHost, Outcome, RelayHost, Sent
from relay.policy.level import Level
from relay.policy.policy import Decision, LiteralName, NoEntry, Rule, TlsPolicy, Withheld
from relay.tls.peer import CertFacts, PeerFacts
from relay.tls.verdict import Encrypted, Plaintext, Refused, Trusted, Verdict, Verified, Word

DOMAIN, HOST = Domain("example.com"), Domain("mx.example.com")
RELAY = RelayHost("mx.example.com", ip_address("192.0.2.1"), 25)
RULE = Rule("relay.toml:3", 'smtp.tls_security_level = "dane"')
RECORD = Tlsa(Usage.DANE_EE, Selector.SPKI, MatchingType.SHA2_256, bytes(range(32)))
SPOILT = UnusableTlsa(b"", "unsupported TLSA selector: 3 9 1 00\x1b[31m")
WHY = "because of\r\na line break"

TLSA: tuple[TlsaLookup, ...] = (
    Usable(HOST, (RECORD,), (SPOILT,)),
    Unusable(HOST, (SPOILT,)),
    Absent(WHY),
    TlsaFailed(WHY),
    NotLookedUp(WHY),
)
POLICY = TlsPolicy(level=Level.DANE, asked=Level.DANE, rule=RULE, names=(LiteralName(HOST),), sni="mx.example.com")
WITHHELD = Withheld(
    status=EnhancedStatus(4, 7, 5),
    text="TLSA lookup error for mx.example.com:25",
    expected="an answer",
    found=WHY,
    rule=RULE,
    asked=Level.DANE,
    why=("relay.toml:3 asks for dane",),
)
DECISIONS: tuple[Decision, ...] = (
    POLICY,
    WITHHELD,
    TlsPolicy(level=Level.NONE, asked=Level.NONE, rule=RULE),
    TlsPolicy(level=Level.FINGERPRINT, asked=Level.FINGERPRINT, rule=RULE, fingerprints=("ab" * 32,), exclude="RC4"),
    TlsPolicy(level=Level.SECURE, asked=Level.SECURE, rule=RULE, tafiles=("/ca.pem",), why=("one", "two")),
)
LEAF = CertFacts(
    der=b"certificate",
    spki=b"key",
    subject="CN=mx.example.com",
    issuer="CN=CA",
    self_issued=False,
    dns_names=("mx.example.com", "evil\x1b]0;"),
    common_name="mx.example.com",
    not_before=datetime(2026, 1, 1, tzinfo=UTC),
    not_after=datetime(2027, 1, 1, tzinfo=UTC),
)
PEER = PeerFacts(chain=(LEAF,), protocol="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", bits=256, algorithm_bits=256)
HANDSHAKE = Handshake(word=Word.VERIFIED, peer=PEER, log=("Verified TLS connection established to mx", "another line"))
ANONYMOUS = Handshake(
    word=Word.ANONYMOUS,
    peer=PeerFacts(chain=(), protocol="TLSv1.2", cipher="ADH", bits=128, algorithm_bits=128),
    log=(),
)
TROUBLE = Trouble(
    status=EnhancedStatus(4, 7, 5),
    reason="Cannot start TLS",
    diagnostic=Local("Cannot start TLS"),
    relay=RELAY,
    tls="may?",
)
VERDICTS: tuple[Verdict, ...] = (
    Verified(matched="matched peername: mx.example.com"),
    Trusted(matched="trusted CA"),
    Encrypted(),
    Plaintext("STARTTLS not offered"),
    Refused(status=EnhancedStatus(4, 7, 5), text="no", expected="a", found="b", rule="c"),
)


def satisfied(verdict: Verdict, handshake: Handshake | NoHandshake = HANDSHAKE) -> Satisfied:
    offered = Extensions({"PIPELINING": "", "SIZE": "10\x1b[2J"})
    return Satisfied(relay=RELAY, verdict=verdict, handshake=handshake, extensions=offered, tls="dane")


SESSIONS: tuple[SessionStory, ...] = (
    NotTried("no session was asked for"),
    *map(satisfied, VERDICTS),
    satisfied(Encrypted(anonymous=True), ANONYMOUS),
    satisfied(Plaintext("off"), NoHandshake()),
    Failed(trouble=TROUBLE, handshake=HANDSHAKE),
    Failed(trouble=TROUBLE, handshake=NoHandshake(), in_clear_later=True),
)


def failing(result: Deferred | Bounced) -> WouldFail:
    outcome = Outcome(
        recipient=RecipientId(1),
        result=result,
        relay=NoHost(),
        delays=Delays(before_queue=0, in_queue=0, setup=0, transmission=0),
        tls="unknown?",
    )
    return WouldFail(
        outcome=outcome, log="NOQUEUE: to=<postmaster@example.com>", report=(("Action", "failed"),), lookups_only=False
    )


DEFERRED = failing(Deferred(status=EnhancedStatus(4, 7, 5), reason="wait", diagnostic=Local("wait")))
BOUNCED = failing(Bounced(status=EnhancedStatus(5, 1, 0), reason="never", diagnostic=Local("never")))
DISCARDED = WouldEnd(
    outcome=Outcome(
        recipient=RecipientId(1),
        result=Sent(status=EnhancedStatus(2, 0, 0), reply=Reply(250, ("2.0.0 silence",))),
        relay=NoHost(),
        delays=Delays(before_queue=0, in_queue=0, setup=0, transmission=0),
        tls="",
    ),
    log="NOQUEUE: to=<postmaster@example.com>, relay=none",
)
ENDINGS: tuple[Ending, ...] = (
    WouldSend(relay=RELAY, policy=POLICY, session=NotTried("no session was asked for")),
    WouldSend(relay=RELAY, policy=POLICY, session=satisfied(VERDICTS[0])),
    DEFERRED,
    BOUNCED,
    DISCARDED,
)


def story(
    *,
    tlsa: TlsaLookup = TLSA[0],
    decision: Decision = POLICY,
    session: SessionStory = SESSIONS[0],
    made: Tried | NotReached | None = None,
    addresses: tuple[AddressStory, ...] | LookupTrouble | NotReached | None = None,
    found: Destination | LookupTrouble | NotReached | None = None,
    ending: Ending = ENDINGS[0],
) -> Story:
    """One host with one address."""
    next_hop = NextHop.of_domain(DOMAIN, 25)
    address = HostAddress(RELAY.address, secure=True, canonical=Domain("real.example.net"))
    own = (AddressStory(address, made or Tried(tlsa=tlsa, decision=decision, session=session)),)
    hop = HopStory(
        next_hop=next_hop,
        entry=NoEntry(),
        rule=RULE,
        level="dane",
        configured=False,
        found=found or Destination(next_hop=next_hop, hosts=(HOST,), had_mx=True, mx_secure=True),
        hosts=(HostStory(HOST, own if addresses is None else addresses),),
    )
    return Story(
        recipient=Address("postmaster@example.com", DOMAIN),
        live=False,
        validation=Validation(True, "seen"),
        hops=(hop,),
        ending=ending,
    )


TROUBLED = LookupTrouble(status=EnhancedStatus(4, 4, 3), text="try again")
STORIES = (
    *(story(tlsa=each) for each in TLSA),
    *(story(decision=each) for each in DECISIONS),
    *(story(session=each) for each in SESSIONS),
    *(story(ending=each) for each in ENDINGS),
    story(made=NotReached("a limit")),
    story(addresses=TROUBLED),
    story(addresses=NotReached("a limit")),
    story(found=TROUBLED),
    story(found=NotReached("a limit")),
    story(found=Destination(next_hop=NextHop.of_domain(DOMAIN, 25), hosts=(DOMAIN,), had_mx=False, mx_secure=True)),
)
