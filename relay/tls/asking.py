"""A server's TLS that asks clients for a certificate and takes any: who they are is decided later, by fingerprint.

The standard library cannot do that: its ``CERT_OPTIONAL`` ends the handshake where a certificate does not verify, as no
self-signed one does, and ``CERT_NONE`` does not ask. pyOpenSSL can; ``AskingContext`` gives it the shape that
``asyncio.sslproto.SSLProtocol`` uses of ``ssl.SSLContext`` and ``ssl.SSLObject``.

A client proves that it has the certificate's key (the handshake does that); dates, purposes and issuers are not looked at,
as with Postfix's ``permit_tls_clientcerts``. Sessions are never resumed: each handshake shows what the client has now.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto

T = TypeVar("T")

_PIECE = 65536
_OPTIONS = SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE


class AskingContext:
    """What ``SSLProtocol`` and the front door use of a context.

    :param plain: a context of the standard library that loaded the same files: its ciphers hold here too.
    :raises ssl.SSLError: if the files cannot be used, which ``plain`` should have told before.
    :raises OSError: if one cannot be read.
    """

    def __init__(self, cert_file: str, key_file: str, plain: ssl.SSLContext) -> None:
        self._ciphers = plain.get_ciphers()
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(_OPTIONS)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        names = ":".join(one["name"] for one in self._ciphers if one["protocol"] != "TLSv1.3")
        context.set_cipher_list(names.encode("ascii"))
        try:
            context.use_certificate_chain_file(cert_file)
            # A key behind a password is an error here, never a prompt.
            key = load_pem_private_key(Path(key_file).read_bytes(), password=None)
            context.use_privatekey(cast(rsa.RSAPrivateKey, key))  # other kinds that it cannot use are a TypeError
            context.check_privatekey()
        except (TypeError, ValueError, UnsupportedAlgorithm) as error:
            raise ssl.SSLError(str(error)) from None
        except (SSL.Error, crypto.Error) as error:
            raise ssl.SSLError(_reason(error)) from None
        context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        self._context = context

    def get_ciphers(self) -> list[dict[str, object]]:
        """As ``ssl.SSLContext.get_ciphers``."""
        return [dict(one) for one in self._ciphers]

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = True,
        server_hostname: str | None = None,
    ) -> AskingObject:
        """As ``ssl.SSLContext.wrap_bio``, for a server."""
        del server_hostname
        if not server_side:
            raise ValueError("a client is not asked for anything by this context")
        return AskingObject(SSL.Connection(self._context, None), incoming, outgoing)


class AskingObject:
    """What ``SSLProtocol`` and the front door use of a session; errors are those of ``ssl.SSLObject``."""

    def __init__(self, connection: SSL.Connection, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        connection.set_accept_state()
        self._connection = connection
        self._incoming = incoming
        self._outgoing = outgoing

    def do_handshake(self) -> None:
        """Go on with the handshake."""
        self._run(self._connection.do_handshake)

    def read(self, size: int, buffer: memoryview | None = None) -> bytes | int:
        """Octets of the client, or how many were put into the buffer; none at the end."""
        try:
            if buffer is None:
                return self._run(lambda: self._connection.recv(size))
            return self._run(lambda: self._connection.recv_into(buffer, size))
        except ssl.SSLZeroReturnError:
            return b"" if buffer is None else 0

    def write(self, octets: bytes | bytearray | memoryview) -> int:
        """Send octets; returns how many were taken."""
        # What came stays where SSLProtocol counts it, so that it stops reading from a client that is not listened to.
        return self._run(lambda: self._connection.send(octets), take=False)

    def unwrap(self) -> None:
        """End TLS, from both sides."""
        if not self._run(self._connection.shutdown):
            raise ssl.SSLWantReadError("the other side has not ended TLS yet")

    def version(self) -> str:
        """``TLSv1.3``, ``TLSv1.2``."""
        return self._connection.get_protocol_version_name()

    def cipher(self) -> tuple[str, str, int] | None:
        """Name, version and secret bits."""
        name = self._connection.get_cipher_name()
        if name is None:
            return None
        return name, self._connection.get_cipher_version() or "", self._connection.get_cipher_bits() or 0

    def compression(self) -> None:
        """There is none."""

    def getpeercert(self) -> None:
        """Nothing: what the standard library gives here are verified names."""

    def peer_certificate(self) -> bytes:
        """The client's own certificate, DER; empty if it showed none."""
        certificate = self._connection.get_peer_certificate()
        return b"" if certificate is None else crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)

    def _run(self, step: Callable[[], T], *, take: bool = True) -> T:
        """Take a step, with what came if ``take``, and hand out what is to be sent, whatever becomes of it."""
        while take and (octets := self._incoming.read(_PIECE)):
            self._connection.bio_write(octets)
        try:
            return step()
        except SSL.WantReadError:
            if self._incoming.eof:
                raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the client ended the connection within TLS") from None
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "more is to come") from None
        except SSL.ZeroReturnError:
            raise ssl.SSLZeroReturnError(ssl.SSL_ERROR_ZERO_RETURN, "the client ended TLS") from None
        except SSL.Error as error:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, _reason(error)) from None
        finally:
            self._hand_out()

    def _hand_out(self) -> None:
        while True:
            try:
                self._outgoing.write(self._connection.bio_read(_PIECE))
            except SSL.WantReadError:
                return


def _reason(error: Exception) -> str:
    """OpenSSL's own words, of which pyOpenSSL gives lists of library, function and reason."""
    try:
        return ", ".join(str(words[-1]) for words in error.args[0]) or "unknown error"
    except (IndexError, TypeError):
        return str(error) or "unknown error"
