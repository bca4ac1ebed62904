"""TLS contexts for a policy, and what a finished handshake showed. Nothing is verified here: ``judge`` does that.

Sessions are never resumed: a resumed one shows no certificates.

Private names of the standard library used here (tests/unit/test_private_names.py):

* ``SSLObject._sslobj.get_unverified_chain`` and ``_ssl.ENCODING_DER`` on Python 3.11 and 3.12; later versions have a
  public ``SSLObject.get_unverified_chain``.
* ``_ssl._SSLContext._msg_callback``, for the key exchange and signature of TLS 1.3 in the log; where it is missing, or where
  ``SSLObject.group`` and ``server_sigalg`` exist (3.15), they are left out or taken from there. Not the property of the same
  name in ``ssl.SSLContext``, which makes enumerations of all that is said for each record of a session.
"""

from __future__ import annotations

import ssl
import warnings
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from relay.policy.parameters import InvalidTlsParameter, TlsVersion, cipher_list, enabled_versions
from relay.policy.policy import TlsPolicy
from relay.tls.certificate import cert_facts
from relay.tls.own_certificate import ClientCertificate
from relay.tls.peer import CertFacts, PeerFacts
from relay.tls.transcript import (
    CERTIFICATE_VERIFY,
    SERVER_HELLO,
    Scheme,
    certificate_verify_scheme,
    group_shown,
    scheme_of,
    server_hello_group,
)

MAX_PRESENTED: Final = 64
"""Certificates looked at; OpenSSL itself refuses certificate messages above 100 KiB. What comes later is not there: a
trust anchor behind it is not found, and the session is refused where one is needed."""
MAX_PRESENTED_OCTETS: Final = 128 * 1024
MAX_CONTEXTS: Final = 128
_HANDSHAKE: Final = 22  # content type of handshake messages, RFC 8446 section 5.1
_NO_VERSION: Final = {
    TlsVersion.TLS1: ssl.Options.OP_NO_TLSv1,
    TlsVersion.TLS1_1: ssl.Options.OP_NO_TLSv1_1,
    TlsVersion.TLS1_2: ssl.Options.OP_NO_TLSv1_2,
    TlsVersion.TLS1_3: ssl.Options.OP_NO_TLSv1_3,
}


@dataclass(slots=True)
class _Noted:
    """What messages of one connection showed; 0 is nothing yet."""

    group: int = 0
    scheme: int = 0


class ClientContext(ssl.SSLContext):
    """A client context that verifies nothing and remembers, for each connection, how keys were exchanged."""

    noted: weakref.WeakKeyDictionary[ssl.SSLObject, _Noted]
    algorithm_bits: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Parameters:
    versions: tuple[TlsVersion, ...]
    ciphers: str


class ClientContexts:
    """Makes and keeps TLS contexts, one for each set of parameters.

    :param cert_file: PEM file with our certificate and its chain, shown to hosts that ask for one; empty for none.
    :param key_file: PEM file with its key, not encrypted; empty if it is in ``cert_file``.
    :raises ClientCertificateError: if one of them cannot be read; they are read here, and never again.
    """

    def __init__(self, *, cert_file: str = "", key_file: str = "") -> None:
        self._certificate = ClientCertificate(cert_file, key_file)
        self._contexts: OrderedDict[_Parameters, ClientContext] = OrderedDict()

    def check(self) -> None:
        """Try the client certificate, so that a wrong one is known before a session needs it.

        :raises ClientCertificateError: if it cannot be used.
        """
        self._certificate.check()

    def client_context(self, policy: TlsPolicy) -> ssl.SSLContext:
        """The context for a session under a policy.

        :raises InvalidTlsParameter: if its protocols or ciphers cannot be used.
        :raises ClientCertificateError: if the client certificate cannot be used.
        """
        level = policy.level
        ciphers = cipher_list(
            policy.ciphers, policy.exclude or "", mandatory=level.requires_tls, must_match=level.requires_match
        )
        # Postfix's security levels (tls_client.c): anything goes where nothing is proved.
        parameters = _Parameters(
            enabled_versions(policy.protocols), f"{ciphers}:@SECLEVEL={1 if level.requires_match else 0}"
        )
        context = self._contexts.get(parameters)
        if context is None:
            context = self._contexts[parameters] = self._make(parameters)
            if len(self._contexts) > MAX_CONTEXTS:
                self._contexts.popitem(last=False)
        self._contexts.move_to_end(parameters)
        return context

    def _make(self, parameters: _Parameters) -> ClientContext:
        context = ClientContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with warnings.catch_warnings():
            # Python deprecates versions before 1.2; an administrator may still ask for them where nothing is proved.
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion(parameters.versions[0])
            context.maximum_version = ssl.TLSVersion(parameters.versions[-1])
            for version, option in _NO_VERSION.items():
                if version not in parameters.versions and parameters.versions[0] < version < parameters.versions[-1]:
                    context.options |= option
        context.options |= ssl.OP_NO_TICKET
        try:
            context.set_ciphers(parameters.ciphers)
        except ssl.SSLError as error:
            raise InvalidTlsParameter(f'invalid cipher list: "{parameters.ciphers}": {error.args[-1]}') from None
        context.algorithm_bits = {cipher["name"]: cipher["alg_bits"] for cipher in context.get_ciphers()}
        self._certificate.load(context)
        _take_notes(context)
        return context


def peer_facts(ssl_object: ssl.SSLObject, context: ssl.SSLContext, sni: str) -> PeerFacts:
    """What a finished handshake showed.

    :param ssl_object: of the connection, ``transport.get_extra_info("ssl_object")``; read it before the session closes.
    :param context: that the handshake was made with; one of ``ClientContexts`` knows the most.
    :param sni: the server name that was sent, empty for none.
    """
    chain = _facts_of(_presented(ssl_object))
    name, _, bits = ssl_object.cipher() or ("", "", 0)
    protocol = ssl_object.version() or ""
    group, scheme = "", scheme_of(0)
    if protocol == "TLSv1.3":
        group, scheme = _exchange(ssl_object, context)
    return PeerFacts(
        chain=chain,
        protocol=protocol,
        cipher=name,
        bits=bits or 0,
        algorithm_bits=_algorithm_bits(context, name, bits or 0),
        key_exchange=group,
        signature=scheme.signed_with(_rsa_bits(chain)),
        digest=scheme.digest,
        sni=sni,
    )


def _facts_of(presented: list[bytes]) -> tuple[CertFacts, ...]:
    facts: list[CertFacts] = []
    octets = 0
    for der in presented[:MAX_PRESENTED]:
        octets += len(der)
        if octets > MAX_PRESENTED_OCTETS:
            break
        facts.append(cert_facts(der))
    return tuple(facts)


def _presented(ssl_object: ssl.SSLObject) -> list[bytes]:
    """The chain as sent, in DER; empty for an anonymous peer."""
    public: Any = getattr(ssl_object, "get_unverified_chain", None)
    if public is not None:
        return list(public() or ())
    import _ssl  # only Python 3.11 and 3.12 come here

    private: Any = vars(ssl_object)["_sslobj"]
    return [certificate.public_bytes(_ssl.ENCODING_DER) for certificate in private.get_unverified_chain() or ()]


def _exchange(ssl_object: ssl.SSLObject, context: ssl.SSLContext) -> tuple[str, Scheme]:
    """Group and signature scheme of a TLS 1.3 session, empty where they cannot be learnt."""
    public_group: Any = getattr(ssl_object, "group", None)
    public_scheme: Any = getattr(ssl_object, "server_sigalg", None)
    group, scheme = "", scheme_of(0)
    try:
        group = group_shown(public_group() or "") if public_group is not None else ""
        scheme = scheme_of(public_scheme() or "") if public_scheme is not None else scheme
    except (NotImplementedError, ValueError, ssl.SSLError):
        pass  # an older OpenSSL beside a newer Python: the notes have it
    noted = context.noted.get(ssl_object) if isinstance(context, ClientContext) else None
    if noted is not None:
        group = group or group_shown(noted.group)
        scheme = scheme if scheme.signature else scheme_of(noted.scheme)
    return group, scheme


def _algorithm_bits(context: ssl.SSLContext, cipher: str, bits: int) -> int:
    return context.algorithm_bits.get(cipher, bits) if isinstance(context, ClientContext) else bits


def _rsa_bits(chain: tuple[CertFacts, ...]) -> int:
    if not chain:
        return 0
    try:
        key = load_der_public_key(chain[0].spki)
    except (ValueError, UnsupportedAlgorithm):
        return 0
    return key.key_size if isinstance(key, rsa.RSAPublicKey) else 0


def _take_notes(context: ClientContext) -> None:
    """Let the context note group and scheme of each connection; a callback must not raise, that would end the handshake."""
    notes: weakref.WeakKeyDictionary[ssl.SSLObject, _Noted] = weakref.WeakKeyDictionary()
    context.noted = notes

    def note(conn: object, direction: str, _version: object, content: object, kind: object, data: object) -> None:
        # Called for every record of a session: the first question must answer most calls.
        if content != _HANDSHAKE or direction != "read" or not isinstance(data, bytes):
            return
        if not isinstance(conn, ssl.SSLObject):
            return
        if kind == SERVER_HELLO:
            notes.setdefault(conn, _Noted()).group = server_hello_group(data)
        elif kind == CERTIFICATE_VERIFY:
            notes.setdefault(conn, _Noted()).scheme = certificate_verify_scheme(data)

    import _ssl

    raw: Any = getattr(_ssl._SSLContext, "_msg_callback", None)
    if raw is not None:
        raw.__set__(context, note)
