"""Private names of libraries that the relay leans on: these fail when a new version moves them."""

from __future__ import annotations

import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from OpenSSL._util import lib
from OpenSSL.crypto import FILETYPE_ASN1, X509Store, X509StoreContext, X509StoreContextError, load_certificate

from relay.tls.transcript import SERVER_HELLO, server_hello_group
from tests import pki


def shaken_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> ssl.SSLObject:
    """The client's side of a handshake in memory."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname="mx.example")
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (ours, theirs) * 2:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return ours


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    server.load_cert_chain(*pki.make("mx.example").write(tmp_path))
    return client, server


class TestSsl:
    """Used in relay/tls/handshake.py."""

    @pytest.mark.skipif(sys.version_info >= (3, 13), reason="public from Python 3.13 on")
    def test_the_presented_chain(self, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
        import _ssl

        ours = shaken_hands(*contexts)
        (leaf,) = vars(ours)["_sslobj"].get_unverified_chain()
        assert leaf.public_bytes(_ssl.ENCODING_DER) == ours.getpeercert(True)

    @pytest.mark.skipif(sys.version_info < (3, 13), reason="private before Python 3.13")
    def test_the_presented_chain_is_public(self, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
        ours = shaken_hands(*contexts)
        public = getattr(ours, "get_unverified_chain")  # noqa: B009 - the stubs of older versions do not know it
        assert list(public()) == [ours.getpeercert(True)]

    def test_handshake_messages(self, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
        import _ssl

        client, server = contexts
        seen: list[tuple[object, bytes]] = []

        def note(conn: object, direction: str, _version: object, content: object, kind: object, data: bytes) -> None:
            if direction == "read" and content == 22 and kind == SERVER_HELLO:
                seen.append((conn, data))

        raw: Any = getattr(_ssl._SSLContext, "_msg_callback", None)
        raw.__set__(client, note)
        ours = shaken_hands(client, server)
        ((conn, data),) = seen
        assert conn is ours
        assert server_hello_group(data) != 0


class TestPyOpenSsl:
    """Used in relay/tls/chain.py."""

    def test_the_purpose_of_a_store(self) -> None:
        root = pki.authority()
        client_only = root.issue("mx.example", eku=[pki.CLIENT_AUTH])
        store = X509Store()
        assert lib.X509_STORE_set_purpose(store._store, lib.X509_PURPOSE_SSL_SERVER) == 1
        store.set_time(pki.NOW)
        store.add_cert(load_certificate(FILETYPE_ASN1, root.der))
        leaf = load_certificate(FILETYPE_ASN1, client_only.der)
        with pytest.raises(X509StoreContextError) as caught:
            X509StoreContext(store, leaf).verify_certificate()
        assert caught.value.errors[0] == lib.X509_V_ERR_INVALID_PURPOSE

    def test_dates_are_left_out_by_flag(self) -> None:
        root = pki.authority(dates=pki.EXPIRED)
        store = X509Store()
        store.set_time(datetime(2040, 1, 1, tzinfo=UTC))
        store.set_flags(0x200000)
        store.add_cert(load_certificate(FILETYPE_ASN1, root.der))
        X509StoreContext(store, load_certificate(FILETYPE_ASN1, root.der)).verify_certificate()
