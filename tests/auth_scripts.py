"""Answers to AUTH for a ``RecordingSink``: hosts that take one user, and hosts that cheat."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable

from relay.sasl.scram import ScramKeys, attributes, decoded, derive_keys, encoded, proof_is_right, server_signature
from relay.sasl.secret import Secret

USER, PASSWORD = "joe@example.com", "correct horse"
TOKEN = "ya29.Good"
REFUSED = "535 5.7.8 Error: authentication failed"
TAKEN = "235 2.7.0 Authentication successful"
Answer = Callable[[bytes], str | None]


def b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def shows_credentials(lines: Iterable[bytes]) -> bool:
    """Whether any line has something of user, password or token, as it is or in base64, or begins to log in."""
    heard = list(lines)
    said = [*heard, *(_decoded(word) for line in heard for word in line.split())]
    words = (USER.encode(), PASSWORD.encode(), TOKEN.encode())
    return any(line.upper().startswith(b"AUTH") or any(word in line for word in words) for line in said)


def _decoded(word: bytes) -> bytes:
    try:
        return base64.b64decode(word)
    except ValueError:
        return b""


class Plain:
    """PLAIN and LOGIN; begins to speak where AUTH came without an initial response."""

    def __init__(self) -> None:
        self._expects: list[bytes] = []
        self._said: list[bytes] = []

    def __call__(self, line: bytes) -> str | None:
        if self._expects:
            self._said.append(base64.b64decode(line))
            self._expects.pop(0)
            return self._next()
        words = line.split()
        if words[:2] == [b"AUTH", b"PLAIN"]:
            self._said = [base64.b64decode(words[2])] if words[2:] else []
            self._expects = [] if words[2:] else [b""]
            return self._next()
        if words[:2] == [b"AUTH", b"LOGIN"]:
            self._said, self._expects = [], [b"User Name\0", b"Password\0"]
            return self._next()
        return None

    def _next(self) -> str:
        if self._expects:
            return f"334 {b64(self._expects[0])}".rstrip() if self._expects[0] else "334 "
        good = ([f"\0{USER}\0{PASSWORD}".encode()], [USER.encode(), PASSWORD.encode()])
        return TAKEN if self._said in good else REFUSED


class Scram:
    """SCRAM-SHA-256, honestly, or with a lie of one's choice.

    :param tamper: makes something else of a challenge before it is sent.
    :param early: says yes before it proved anything.
    """

    def __init__(self, tamper: Callable[[str], str] = lambda text: text, *, early: bool = False) -> None:
        self._keys: ScramKeys = derive_keys(Secret(PASSWORD), b"salt of the earth", 4096)
        self._tamper = tamper
        self._early = early
        self._transcript: list[str] = []

    def __call__(self, line: bytes) -> str | None:
        if line.startswith(b"AUTH SCRAM-SHA-256 "):
            client_first = base64.b64decode(line.split()[2]).decode()
            nonce = attributes(client_first.removeprefix("n,,"))["r"] + "server"
            first = self._tamper(f"r={nonce},s={encoded(self._keys.salt)},i={self._keys.iterations}")
            self._transcript = [client_first.removeprefix("n,,"), first]
            return f"334 {b64(first.encode())}"
        if len(self._transcript) == 2:
            if line == b"*":
                self._transcript = []
                return "501 5.5.2 cancelled"
            if self._early:
                return TAKEN
            without_proof, _, proof = base64.b64decode(line).decode().rpartition(",p=")
            message = ",".join([*self._transcript, without_proof]).encode()
            if not proof_is_right(decoded(proof), self._keys.stored_key, message):
                self._transcript = []
                return REFUSED
            self._transcript = ["proved"]
            final = self._tamper(f"v={encoded(server_signature(self._keys.server_key, message))}")
            return f"334 {b64(final.encode())}"
        if self._transcript == ["proved"]:
            self._transcript = []
            return TAKEN if line == b"" else REFUSED
        return None


class Bearer:
    """OAUTHBEARER and XOAUTH2: takes any token of a set, refuses others by the book."""

    def __init__(self, *tokens: str) -> None:
        self._tokens = tokens or (TOKEN,)
        self._waits = False

    def __call__(self, line: bytes) -> str | None:
        if self._waits:
            self._waits = False
            return REFUSED
        if line.startswith((b"AUTH OAUTHBEARER", b"AUTH XOAUTH2")):
            said = base64.b64decode(line.split()[2])
            if any(f"auth=Bearer {token}\x01\x01".encode() in said for token in self._tokens):
                return TAKEN
            self._waits = True
            return "334 " + b64(b'{"status":"invalid_token"}')
        return None
