"""Our client certificate and its key, read once: contexts made later show the pair that was checked, whatever the files say."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ClientCertificateError(ValueError):
    """The client certificate or its key cannot be used; the message names the files and says why."""


class ClientCertificate:
    """A certificate with its chain and key, or none.

    :param cert_file: PEM file with our certificate and its chain; empty for none.
    :param key_file: PEM file with its key, not encrypted; empty if it is in ``cert_file``.
    :raises ClientCertificateError: if a file cannot be read.
    """

    def __init__(self, cert_file: str, key_file: str) -> None:
        self._where = f"tls_cert_file {cert_file}" + (f" with key {key_file}" if key_file else "")
        self._certificate = self._read(cert_file)
        self._key = self._read(key_file)

    def check(self) -> None:
        """Try it.

        :raises ClientCertificateError: if it cannot be used.
        """
        self.load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def load(self, context: ssl.SSLContext) -> None:
        """Let a context show it.

        :raises ClientCertificateError: if it cannot be used.
        """
        if not self._certificate:
            return
        try:
            with _as_file(self._certificate) as certificate, _as_file(self._key) as key:
                # A password is never asked for: that would stop the relay at a prompt.
                context.load_cert_chain(certificate, key if self._key else None, password="")
        except (OSError, ValueError) as error:
            raise self._unusable(error) from None

    def _read(self, name: str) -> bytes:
        try:
            return Path(name).read_bytes() if name else b""
        except OSError as error:
            raise self._unusable(error) from None

    def _unusable(self, error: Exception) -> ClientCertificateError:
        return ClientCertificateError(f"{self._where}: cannot be used: {error}")


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A file for a library that reads nothing else; in memory where the system has such files, else private and short-lived."""
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("client certificate"), "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as private:
            private.write(content)
            private.flush()
            yield private.name
