"""TLS for clients: what a session needs to begin it, and what there is to say of it afterwards."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl

from relay.mail.envelope import ClientCertificate, ClientTls, NoCertificate
from relay.smtpd.incoming import LOST, ClientGone
from relay.smtpd.options import SmtpdOptions
from relay.smtpd.server import CannotServe
from relay.tls.asking import AskingContext, AskingObject
from relay.tls.certificate import cert_facts, issuer_name, shown_name

ServerContext = ssl.SSLContext | AskingContext


def server_tls_context(options: SmtpdOptions) -> ServerContext | None:
    """What TLS needs, read once, certificate and key as a pair; None where no certificate is set (aiosmtpd's "not offered").

    :raises CannotServe: if a file is missing or is no PEM certificate with its key.
    """
    cert_file, key_file = options.tls_cert_file, options.tls_key_file or options.tls_cert_file
    if not cert_file:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert_file, key_file, password="")  # an encrypted key is an error, never a prompt
        return AskingContext(cert_file, key_file, context) if options.tls_ask_ccert else context
    except (ssl.SSLError, ValueError) as error:
        why = getattr(error, "reason", "") or str(error)
        raise CannotServe(
            f"[smtpd] tls_cert_file {cert_file} with tls_key_file {key_file}: {why}; expected a PEM certificate chain, "
            "our own certificate first, and its unencrypted private key"
        ) from None
    except OSError as error:
        missing = key_file if os.access(cert_file, os.R_OK) else cert_file
        raise CannotServe(f"[smtpd] cannot read the certificate file {missing}: {error.strerror}") from None


def client_tls(writer: asyncio.StreamWriter, context: ServerContext | None) -> ClientTls:
    """What there is to say of a client's TLS session.

    :raises ClientGone: if it went in the middle of the handshake.
    """
    session = writer.get_extra_info("ssl_object")
    if session is None or context is None:
        raise ClientGone(LOST)
    known = session.cipher()
    cipher, _, bits = known if known is not None else ("", "", 0)
    algorithm_bits = {one["name"]: int(str(one["alg_bits"])) for one in context.get_ciphers()}
    return ClientTls(
        protocol=session.version() or "unknown",
        cipher=cipher,
        bits=bits,
        algorithm_bits=algorithm_bits.get(cipher, bits),
        certificate=_certificate(session),
    )


def _certificate(session: ssl.SSLObject | AskingObject) -> ClientCertificate | NoCertificate:
    if not isinstance(session, AskingObject):
        return NoCertificate.NOT_REQUESTED
    der = session.peer_certificate()
    if not der:
        return NoCertificate.NOT_PRESENTED
    facts = cert_facts(der)
    return ClientCertificate(
        fingerprint=_fingerprint(der),
        key_fingerprint=_fingerprint(facts.spki),
        subject=shown_name(facts),
        issuer=issuer_name(der),
    )


def _fingerprint(octets: bytes) -> str:
    """In Postfix's notation; of nothing there is none."""
    return hashlib.sha256(octets).digest().hex(":").upper() if octets else ""
