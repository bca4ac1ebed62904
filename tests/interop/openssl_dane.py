"""OpenSSL's own DANE verification as an oracle, run without a handshake.

By ctypes on the system's shared libssl and libcrypto, public functions only. It repeats what OpenSSL does with the
certificates of a handshake (ssl_verify_cert_chain, ssl/ssl_cert.c) on an ``SSL`` that was never connected, with the
settings of Postfix (tls_client.c, tls_dane.c): security level 1, no partial wildcards, no name checks under DANE-EE.
tests/interop/test_openssl_dane.py holds it against real handshakes of ``openssl s_client``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_int, c_long, c_size_t, c_ubyte, c_uint, c_ulong, c_void_p
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

from tests.interop.servers import UnavailableError, leave_out, require

SECURITY_LEVEL: Final = 1  # postfix tls_client.c: 80 bits for peers that must match
_NO_PARTIAL_WILDCARDS: Final = 0x4
_NO_DANE_EE_NAMECHECKS: Final = 1
_USABLE_USAGES: Final = (2, 3)  # postfix tls_dane.c never gives 0 and 1 to OpenSSL
_KEPT_CERTIFICATES: Final = 20_000

# name: (library, result, arguments); c_void_p stands for every pointer to one of OpenSSL's own types.
_SSL: Final = {
    "TLS_client_method": (c_void_p, ()),
    "SSL_CTX_new": (c_void_p, (c_void_p,)),
    "SSL_CTX_free": (None, (c_void_p,)),
    "SSL_CTX_dane_enable": (c_int, (c_void_p,)),
    "SSL_CTX_dane_set_flags": (c_ulong, (c_void_p, c_ulong)),
    "SSL_CTX_set_security_level": (None, (c_void_p, c_int)),
    "SSL_new": (c_void_p, (c_void_p,)),
    "SSL_free": (None, (c_void_p,)),
    "SSL_get_security_level": (c_int, (c_void_p,)),
    "SSL_get0_param": (c_void_p, (c_void_p,)),
    "SSL_set_hostflags": (None, (c_void_p, c_uint)),
    "SSL_add1_host": (c_int, (c_void_p, c_char_p)),
    "SSL_dane_enable": (c_int, (c_void_p, c_char_p)),
    "SSL_dane_tlsa_add": (c_int, (c_void_p, c_ubyte, c_ubyte, c_ubyte, c_char_p, c_size_t)),
    "SSL_get0_dane": (c_void_p, (c_void_p,)),
    "SSL_set_verify_result": (None, (c_void_p, c_long)),
    "SSL_get0_dane_authority": (c_int, (c_void_p, POINTER(c_void_p), POINTER(c_void_p))),
    "SSL_get0_dane_tlsa": (
        c_int,
        (c_void_p, POINTER(c_ubyte), POINTER(c_ubyte), POINTER(c_ubyte), POINTER(c_void_p), POINTER(c_size_t)),
    ),
}
_CRYPTO: Final = {
    "d2i_X509": (c_void_p, (c_void_p, POINTER(c_char_p), c_long)),
    "X509_free": (None, (c_void_p,)),
    "OPENSSL_sk_new_null": (c_void_p, ()),
    "OPENSSL_sk_push": (c_int, (c_void_p, c_void_p)),
    "OPENSSL_sk_free": (None, (c_void_p,)),
    "X509_STORE_new": (c_void_p, ()),
    "X509_STORE_free": (None, (c_void_p,)),
    "X509_STORE_CTX_new": (c_void_p, ()),
    "X509_STORE_CTX_free": (None, (c_void_p,)),
    "X509_STORE_CTX_init": (c_int, (c_void_p, c_void_p, c_void_p, c_void_p)),
    "X509_STORE_CTX_get0_param": (c_void_p, (c_void_p,)),
    "X509_STORE_CTX_set0_dane": (None, (c_void_p, c_void_p)),
    "X509_STORE_CTX_set_default": (c_int, (c_void_p, c_char_p)),
    "X509_STORE_CTX_get_error": (c_int, (c_void_p,)),
    "X509_STORE_CTX_get_error_depth": (c_int, (c_void_p,)),
    "X509_VERIFY_PARAM_set_auth_level": (None, (c_void_p, c_int)),
    "X509_VERIFY_PARAM_set_time": (None, (c_void_p, c_long)),
    "X509_VERIFY_PARAM_set1": (c_int, (c_void_p, c_void_p)),
    "X509_verify_cert": (c_int, (c_void_p,)),
    "X509_verify_cert_error_string": (c_char_p, (c_long,)),
    "OpenSSL_version": (c_char_p, (c_int,)),
    "ERR_clear_error": (None, ()),
}


@dataclass(frozen=True, slots=True)
class Accepted:
    """OpenSSL found a match.

    :param rdata: the TLSA record.
    :param depth: of the certificate that matched or, with ``bare_key``, that the record's key signed.
    """

    rdata: bytes
    depth: int
    bare_key: bool


@dataclass(frozen=True, slots=True)
class Rejected:
    """OpenSSL's verify error (X509_V_ERR_*), the depth it names, and its text."""

    code: int
    depth: int
    text: str


@dataclass(frozen=True, slots=True)
class NoneUsable:
    """OpenSSL took none of the records."""


@dataclass(frozen=True, slots=True)
class NoHandshake:
    """A certificate is none to OpenSSL, so that no session would come about."""

    index: int


Outcome = Accepted | Rejected | NoneUsable | NoHandshake


class OpensslDane:
    """The oracle; a context manager. Not for several threads.

    :raises UnavailableError: if there is no shared OpenSSL 3 on this machine.
    """

    def __init__(self) -> None:
        self._call = _functions()
        self._parsed: dict[bytes, int] = {}
        self._store = self._call["X509_STORE_new"]()
        self._context = self._call["SSL_CTX_new"](self._call["TLS_client_method"]())
        if not self._store or not self._context or self._call["SSL_CTX_dane_enable"](self._context) <= 0:
            raise UnavailableError("libssl.so.3 gives no context with DANE")
        self._call["SSL_CTX_dane_set_flags"](self._context, _NO_DANE_EE_NAMECHECKS)
        self._call["SSL_CTX_set_security_level"](self._context, SECURITY_LEVEL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._forget()
        self._call["SSL_CTX_free"](self._context)
        self._call["X509_STORE_free"](self._store)

    @property
    def version(self) -> str:
        """What calls itself ``OpenSSL 3...``."""
        return bytes(self._call["OpenSSL_version"](0)).decode()

    def verify(self, chain: Sequence[bytes], rdatas: Iterable[bytes], names: Sequence[str], now: datetime) -> Outcome:
        """Verify a presented chain.

        :param chain: DER certificates as sent, leaf first.
        :param rdatas: RDATA of the TLSA records, in wire format.
        :param names: reference identifiers, the TLSA base domain first.
        """
        if len(self._parsed) >= _KEPT_CERTIFICATES:  # here, where nobody holds one
            self._forget()
        certificates = []
        for index, der in enumerate(chain):
            certificate = self._certificate(der)
            if not certificate:
                return NoHandshake(index)
            certificates.append(certificate)
        with self._ssl(names) as ssl:
            if not self._add(ssl, rdatas):
                return NoneUsable()
            code, depth = self._verify(ssl, certificates, now)
            return self._matched(ssl) if code == 0 else Rejected(code, depth, self._text(code))

    def usable(self, rdata: bytes) -> bool:
        """Whether OpenSSL, asked by Postfix, would take this record."""
        with self._ssl(["mx.example"]) as ssl:
            return bool(self._add(ssl, [rdata]))

    def is_certificate(self, der: bytes) -> bool:
        """Whether OpenSSL can read it."""
        return bool(self._certificate(der))

    @contextmanager
    def _ssl(self, names: Sequence[str]) -> Iterator[int]:
        ssl = self._call["SSL_new"](self._context)
        try:
            self._call["SSL_set_hostflags"](ssl, _NO_PARTIAL_WILDCARDS)
            base, *others = names
            assert self._call["SSL_dane_enable"](ssl, base.encode()) > 0
            for name in others:
                assert self._call["SSL_add1_host"](ssl, name.encode()) == 1
            yield ssl
        finally:
            self._call["SSL_free"](ssl)
            self._call["ERR_clear_error"]()

    def _add(self, ssl: int, rdatas: Iterable[bytes]) -> int:
        """How many of the records OpenSSL takes."""
        taken = 0
        for rdata in rdatas:
            if len(rdata) <= 3 or rdata[0] not in _USABLE_USAGES:  # truncated, or dropped by Postfix itself
                continue
            done = self._call["SSL_dane_tlsa_add"](ssl, *rdata[:3], rdata[3:], len(rdata) - 3)
            assert done >= 0, "OpenSSL had an internal error"
            taken += done
        return taken

    def _verify(self, ssl: int, certificates: Sequence[int], now: datetime) -> tuple[int, int]:
        """ssl_verify_cert_chain: the verify error, and its depth."""
        stack, context = self._call["OPENSSL_sk_new_null"](), self._call["X509_STORE_CTX_new"]()
        try:
            for certificate in certificates:
                self._call["OPENSSL_sk_push"](stack, certificate)
            assert self._call["X509_STORE_CTX_init"](context, self._store, certificates[0], stack) == 1
            parameters = self._call["X509_STORE_CTX_get0_param"](context)
            level = self._call["SSL_get_security_level"](ssl)
            self._call["X509_VERIFY_PARAM_set_auth_level"](parameters, level)
            self._call["X509_STORE_CTX_set0_dane"](context, self._call["SSL_get0_dane"](ssl))
            assert self._call["X509_STORE_CTX_set_default"](context, b"ssl_server") == 1
            assert self._call["X509_VERIFY_PARAM_set1"](parameters, self._call["SSL_get0_param"](ssl)) == 1
            self._call["X509_VERIFY_PARAM_set_time"](parameters, int(now.timestamp()))
            good = self._call["X509_verify_cert"](context) == 1
            code = self._call["X509_STORE_CTX_get_error"](context)
            assert good is (code == 0), f"X509_verify_cert and its error {code} disagree"
            self._call["SSL_set_verify_result"](ssl, code)
            return code, self._call["X509_STORE_CTX_get_error_depth"](context)
        finally:
            self._call["X509_STORE_CTX_free"](context)
            self._call["OPENSSL_sk_free"](stack)

    def _matched(self, ssl: int) -> Accepted:
        """Which record matched, and where."""
        certificate, key = c_void_p(), c_void_p()
        depth = self._call["SSL_get0_dane_authority"](ssl, byref(certificate), byref(key))
        usage, selector, matching, data, length = c_ubyte(), c_ubyte(), c_ubyte(), c_void_p(), c_size_t()
        self._call["SSL_get0_dane_tlsa"](
            ssl, byref(usage), byref(selector), byref(matching), byref(data), byref(length)
        )
        assert depth >= 0, "verified, but by no record"
        assert data.value is not None
        fields = bytes((usage.value, selector.value, matching.value))
        return Accepted(fields + ctypes.string_at(data.value, length.value), depth, bare_key=certificate.value is None)

    def _certificate(self, der: bytes) -> int:
        """The certificate, read once; 0 if it is none."""
        known = self._parsed.get(der)
        if known is None:
            at = c_char_p(der)
            known = self._call["d2i_X509"](None, byref(at), len(der)) or 0
            if known and self._left(at, der):
                self._call["X509_free"](known)
                known = 0
            self._call["ERR_clear_error"]()
            self._parsed[der] = known
        return known

    @staticmethod
    def _left(at: c_char_p, der: bytes) -> bool:
        """Whether something follows the certificate, which a handshake does not allow either."""
        start = ctypes.cast(c_char_p(der), c_void_p).value
        end = ctypes.cast(at, c_void_p).value
        assert start is not None
        assert end is not None
        return end - start != len(der)

    def _forget(self) -> None:
        for certificate in self._parsed.values():
            self._call["X509_free"](certificate)
        self._parsed.clear()

    def _text(self, code: int) -> str:
        return bytes(self._call["X509_verify_cert_error_string"](code)).decode()


def required() -> OpensslDane:
    """The oracle, for a test: skipped and counted (or failed, if all are required) where there is none."""
    try:
        return OpensslDane()
    except UnavailableError:
        require("openssl")  # whose package brings the library, if it may be installed
    try:
        return OpensslDane()
    except UnavailableError as error:
        leave_out("libssl3", str(error))


# Any: ctypes checks by the tables above what goes in, and what comes out is theirs too.
def _functions() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {}
    for name, table in (("libcrypto.so.3", _CRYPTO), ("libssl.so.3", _SSL)):
        try:
            library = ctypes.CDLL(name)
        except OSError as error:
            raise UnavailableError(f"{error}; install OpenSSL 3 with its shared libraries") from None
        for function, (result, arguments) in table.items():
            call = getattr(library, function)
            call.restype, call.argtypes = result, arguments
            found[function] = call
    return found
