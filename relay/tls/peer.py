"""What a handshake showed of the peer, before anything is judged. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from relay.mail.reply import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class CertFacts:
    """One certificate as presented.

    :param der: the whole certificate.
    :param spki: its SubjectPublicKeyInfo, the raw slice of the DER (never re-encoded, so that digests are the peer's).
    :param subject: for people, RFC 4514 form, control characters escaped, bounded.
    :param dns_names: dNSName SANs as written, lower case; empty if there are none.
    :param common_name: the last CN of the subject, empty if there is none.
    :param server_auth: whether extended key usage, if present, allows TLS servers.
    """

    der: bytes
    spki: bytes
    subject: str
    issuer: str
    self_issued: bool
    dns_names: tuple[str, ...]
    common_name: str
    not_before: datetime
    not_after: datetime
    server_auth: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFacts:
    """One TLS session's facts; what could not be learnt is empty or 0.

    :param chain: the certificates exactly as sent, leaf first; empty for an anonymous peer.
    :param bits: used key bits of the cipher; ``algorithm_bits`` those of its algorithm.
    :param key_exchange: ``X25519`` or ``ECDHE (P-256)``; only for TLS 1.3, as in Postfix's summary line.
    :param signature: ``RSA-PSS (2048 bits)`` or ``ECDSA (prime256v1)``; only for TLS 1.3.
    :param digest: ``SHA256``; empty where it is not known or not separate.
    """

    chain: tuple[CertFacts, ...]
    protocol: str
    cipher: str
    bits: int
    algorithm_bits: int
    key_exchange: str = ""
    signature: str = ""
    digest: str = ""
    sni: str = ""

    @property
    def leaf(self) -> CertFacts | None:
        """The server's own certificate."""
        return self.chain[0] if self.chain else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """What a chain must lead to.

    The configured CA store (``store`` True), or only the certificates and keys given here: trust anchor files, or the
    certificates that TLSA records matched. With anchors of our own an intermediate is anchor enough (partial chain).

    :param files: ``tafile`` paths, whose contents the chain checker read beforehand; an unreadable one fails the chain.
    :param keys: bare SubjectPublicKeyInfo in DER (``2 1 0`` records): a certificate that one of them signed is trusted.
    """

    store: bool = False
    files: tuple[str, ...] = ()
    certificates: tuple[bytes, ...] = ()
    keys: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class ChainOk:
    """A path was found; DER certificates from the leaf to the anchor.

    :param key: the bare key that signed the last certificate of the path; empty if that certificate is itself the anchor.
    :param leaf_listed: a trust anchor file holds the leaf itself, or its key: neither dates nor names count then.
    """

    path: tuple[bytes, ...]
    key: bytes = b""
    leaf_listed: bool = False


@dataclass(frozen=True, slots=True)
class ChainFailed:
    """No path: OpenSSL's verify error, the depth it names, its text, and the issuer of the certificate at that depth."""

    code: int
    depth: int
    text: str
    issuer: str = ""


NO_PATH = frozenset((2, 18, 19, 20, 21, 27))
"""Codes of ``ChainFailed`` that only say that nothing led to an anchor (X509_V_ERR_*, x509_vfy.h)."""

ChainResult = ChainOk | ChainFailed

CheckChain = Callable[[tuple[bytes, ...], Anchors, datetime], ChainResult]
"""(presented certificates in DER, anchors, now) -> whether a path exists: dates, CA bits and server purpose, no names."""


@dataclass(frozen=True, slots=True)
class InClear:
    """A session without TLS: ``why``, and what the host said to STARTTLS if that was it."""

    why: str
    reply: Reply | None = None


@dataclass(frozen=True, slots=True)
class NotSeen:
    """Nothing was tried: TLS was off, or the session ended before."""


NOT_SEEN = NotSeen()
Seen = PeerFacts | InClear | NotSeen
"""What one session showed."""
