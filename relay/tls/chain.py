"""Path building outside the handshake, with OpenSSL's verifier: presented certificates to a CA store or to given anchors.

Two laws:

* The configured store is used as TLS libraries use it: a path ends at a self-signed certificate of the store. Anchors of
  our own (trust anchor files, what TLSA records matched) replace the store, and an intermediate is anchor enough.
* The leaf is never the anchor of its own path (RFC 7671 section 5.2.2 puts a DANE-TA above it); only a trust anchor
  file may list the leaf as such, and then nothing but that counts (Postfix makes usage 3 records of it as well).

Private names of pyOpenSSL used here, for want of a public setter of the purpose (tests/unit/test_private_names.py):
``OpenSSL._util.lib.X509_STORE_set_purpose``, ``OpenSSL._util.lib.X509_PURPOSE_SSL_SERVER``, ``X509Store._store``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from OpenSSL._util import lib
from OpenSSL.crypto import (
    FILETYPE_ASN1,
    X509,
    Error,
    X509Store,
    X509StoreContext,
    X509StoreContextError,
    X509StoreFlags,
    dump_certificate,
    load_certificate,
)

from relay.tls.authorities import read_authorities
from relay.tls.certificate import cert_facts, cut_spki, issuer_line
from relay.tls.peer import NO_PATH, Anchors, CertFacts, ChainFailed, ChainOk, ChainResult
from relay.tls.signature import signed_by, weakness
from relay.tls.trust_anchors import TrustAnchors, UnreadableAnchors, read_trust_anchors

MAX_DEPTH: Final = 9  # postfix smtp_tls_scert_verifydepth
MAX_BARE_KEYS: Final = 16  # each costs a public key operation per presented certificate
MAX_ANCHORS_ALONE: Final = 16  # each costs a search for a path
_NO_CHECK_TIME: Final = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of x509_vfy.h, which pyOpenSSL does not name

UNSPECIFIED: Final = 1
SIGNATURE_FAILURE: Final = 7
NOT_YET_VALID: Final = 9
HAS_EXPIRED: Final = 10
CHAIN_TOO_LONG: Final = 22
UNTRUSTED: Final = 27
_DATES: Final = (NOT_YET_VALID, HAS_EXPIRED, 13, 14)  # the last two: dates that cannot be read


@dataclass(frozen=True, slots=True)
class _OwnAnchors:
    certificates: tuple[bytes, ...]
    keys: tuple[bytes, ...]


class ChainChecker:
    """Tells whether presented certificates lead to an anchor: a ``CheckChain`` (relay/tls/peer.py).

    Everything that needs reading is read by ``load``; calling it does no I/O. Calls may come from several threads.
    """

    def __init__(
        self, authorities: Iterable[X509] = (), files: Mapping[str, TrustAnchors | UnreadableAnchors] | None = None
    ) -> None:
        self._authorities = tuple(authorities)
        self._files = dict(files or {})
        self._lock = threading.Lock()
        self._store = X509Store()
        self._store_second = 0

    @classmethod
    def load(cls, *, cafile: str = "", capath: str = "", tafiles: Iterable[str] = ()) -> ChainChecker:
        """Read CA certificates and trust anchor files.

        :param cafile: PEM file; without ``capath`` and ``cafile`` the system's own store is taken.
        :param capath: directory made by ``openssl rehash``.
        :param tafiles: every ``tafile`` that a policy names; an unreadable one fails the chains that need it.
        :raises CaStoreError: if CAfile or CApath cannot be read.
        """
        return cls(read_authorities(cafile, capath), {path: read_trust_anchors(path) for path in tafiles})

    def __call__(self, presented: tuple[bytes, ...], anchors: Anchors, now: datetime) -> ChainResult:
        """Look for a path (see ``CheckChain``).

        :param presented: DER certificates, leaf first, the others in any order and possibly unrelated.
        :param now: aware time at which dates must hold.
        """
        if not presented:
            return ChainFailed(UNSPECIFIED, 0, "no certificate presented")
        if anchors.store:
            if anchors.files or anchors.certificates or anchors.keys:
                raise ValueError("anchors of our own replace the CA store: ask for one or the other")
            return _checked(_find_path(self._store_at(now), presented))
        leaf = presented[0]
        own = self._own_anchors(anchors)
        if isinstance(own, ChainFailed):
            return own
        if anchors.files and self._lists_leaf(anchors.files, leaf):
            return ChainOk((leaf,), leaf_listed=True)
        return _checked(_own_path(presented, own, now))

    def _store_at(self, now: datetime) -> X509Store:
        """The CA store for one second: OpenSSL takes the time of a store once, later ``set_time`` calls change nothing."""
        second = int(now.timestamp())
        with self._lock:
            if second != self._store_second:
                self._store = _new_store(now, self._authorities)
                self._store_second = second
            return self._store

    def _own_anchors(self, anchors: Anchors) -> _OwnAnchors | ChainFailed:
        certificates, keys = list(anchors.certificates), list(anchors.keys)
        for path in anchors.files:
            contents = self._files.get(path)
            if contents is None:
                return ChainFailed(UNSPECIFIED, 0, f"trust anchor file was not loaded: {path}")
            if isinstance(contents, UnreadableAnchors):
                return ChainFailed(UNSPECIFIED, 0, contents.reason)
            certificates += contents.certificates
            keys += contents.keys
        return _OwnAnchors(tuple(dict.fromkeys(certificates)), tuple(dict.fromkeys(keys))[:MAX_BARE_KEYS])

    def _lists_leaf(self, files: tuple[str, ...], leaf: bytes) -> bool:
        spki = cut_spki(leaf)
        listed = [self._files[path] for path in files]
        return any(
            isinstance(contents, TrustAnchors)
            and (leaf in contents.certificates or (bool(spki) and spki in contents.keys))
            for contents in listed
        )


def _own_path(presented: tuple[bytes, ...], own: _OwnAnchors, now: datetime) -> ChainResult:
    """A path to anchors of our own: certificates above the leaf, or what a bare key signed directly."""
    leaf = presented[0]
    certificates = [der for der in own.certificates if der != leaf]
    by_certificate = _path_to(certificates, certificates, presented, now)
    if not own.keys or isinstance(by_certificate, ChainOk):
        return by_certificate
    # Bare keys are the last resort of OpenSSL too. A certificate anchor that did sign but fails, say by its dates, is not
    # helped by its own key.
    did_not_sign = by_certificate.code in NO_PATH or by_certificate.code == SIGNATURE_FAILURE
    failed_keys = () if did_not_sign else tuple(map(cut_spki, certificates))
    keys = [key for key in own.keys if key not in failed_keys]
    signers = {
        der: key
        for der in dict.fromkeys(presented[: MAX_DEPTH + 1])
        if der not in certificates
        for key in keys
        if signed_by(der, key)
    }
    by_key = _path_to([*certificates, *signers], certificates, presented, now) if signers else by_certificate
    return ChainOk(by_key.path, key=signers.get(by_key.path[-1], b"")) if isinstance(by_key, ChainOk) else by_key


def _path_to(anchors: list[bytes], dateless: list[bytes], presented: tuple[bytes, ...], now: datetime) -> ChainResult:
    """A path to one of ``anchors``; the dates of those in ``dateless`` do not count unless they are self-issued.

    That is how OpenSSL treats what TLSA records name (internal_verify), though not what is in a store for partial chains.
    """
    if not anchors:
        return ChainFailed(UNTRUSTED, 0, "certificate not trusted")
    together = _path_to_any(anchors, dateless, presented, now)
    if isinstance(together, ChainFailed) and len(anchors) > 1:
        # OpenSSL follows the first issuer that fits by name. An anchor that is of no use must not hide one that is.
        for anchor in anchors[:MAX_ANCHORS_ALONE]:
            alone = _path_to_any([anchor], dateless, presented, now)
            if isinstance(alone, ChainOk):
                return alone
    return together


def _path_to_any(
    anchors: list[bytes], dateless: list[bytes], presented: tuple[bytes, ...], now: datetime
) -> ChainResult:
    loaded = [certificate for certificate in map(_load, anchors) if certificate is not None]
    strict = _find_path(_new_store(now, loaded, X509StoreFlags.PARTIAL_CHAIN), presented)
    if isinstance(strict, ChainFailed) and strict.code in _DATES:
        # Once dates do not count, nothing would keep OpenSSL from an issuer that is out of date: leave those out.
        in_date = (presented[0], *(der for der in presented[1:] if _is_in_date(cert_facts(der), now)))
        lax = _find_path(_new_store(now, loaded, X509StoreFlags.PARTIAL_CHAIN | _NO_CHECK_TIME), in_date)
        if isinstance(lax, ChainOk) and _path_in_date(lax.path, dateless, now):
            return lax
    return strict


def _path_in_date(path: tuple[bytes, ...], dateless: list[bytes], now: datetime) -> bool:
    facts = [cert_facts(der) for der in path]
    if path[-1] in dateless and not facts[-1].self_issued:
        facts.pop()
    return all(_is_in_date(each, now) for each in facts)


def _is_in_date(facts: CertFacts, now: datetime) -> bool:
    return facts.not_before <= now <= facts.not_after


def _find_path(store: X509Store, presented: tuple[bytes, ...]) -> ChainResult:
    leaf, *others = (_load(der) for der in presented)
    if leaf is None:
        return ChainFailed(UNSPECIFIED, 0, "the certificate cannot be parsed")
    try:
        found = X509StoreContext(store, leaf, [other for other in others if other is not None]).get_verified_chain()
    except X509StoreContextError as error:
        code, depth, text = error.errors
        return ChainFailed(code, depth, text, issuer_line(_dump(error.certificate)))
    except Error as error:
        return ChainFailed(UNSPECIFIED, 0, f"verification did not work: {_reason(error)}")
    path = tuple(map(_dump, found))
    if path[0] != presented[0] or b"" in path:
        # OpenSSL puts a trusted certificate of the same name in the place of a self-signed leaf.
        return ChainFailed(UNTRUSTED, 0, "certificate not trusted")
    return ChainOk(path)


def _checked(result: ChainResult) -> ChainResult:
    if isinstance(result, ChainFailed):
        return result
    if len(result.path) - 1 > MAX_DEPTH:
        return ChainFailed(CHAIN_TOO_LONG, len(result.path) - 1, "certificate chain too long")
    return weakness(result.path) or result


def _new_store(now: datetime, anchors: Iterable[X509], flags: int = 0) -> X509Store:
    """A store for TLS servers at one time."""
    store = X509Store()
    if lib.X509_STORE_set_purpose(store._store, lib.X509_PURPOSE_SSL_SERVER) != 1:
        raise RuntimeError("OpenSSL refuses the purpose sslserver")
    store.set_time(now.astimezone(UTC))
    store.set_flags(flags)
    for anchor in anchors:
        store.add_cert(anchor)
    return store


def _load(der: bytes) -> X509 | None:
    try:
        return load_certificate(FILETYPE_ASN1, der)
    except Error:
        return None


def _dump(certificate: X509) -> bytes:
    """Its octets; none if OpenSSL, which has read it, cannot write it again (a key that does not parse)."""
    try:
        return dump_certificate(FILETYPE_ASN1, certificate)
    except Error:
        return b""


def _reason(error: Error) -> str:
    return "; ".join(str(part[-1]) for part in error.args[0]) if error.args and error.args[0] else "unknown reason"
