"""SCRAM-SHA-256: keys, proofs and messages, for both sides (RFC 5802, RFC 7677). Pure.

Without channel binding: Python gives no ``tls-exporter`` value, and our sessions are authenticated before AUTH anyway.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from relay.sasl.mechanism import MechanismFailed
from relay.sasl.prep import Unpreparable, saslprep
from relay.sasl.secret import Secret

MECHANISM: Final = "SCRAM-SHA-256"
GS2_HEADER: Final = "n,,"
"""No channel binding, no other identity to act as."""
MIN_ITERATIONS: Final = 4096
"""RFC 7677 section 4."""
MAX_ITERATIONS: Final = 1_000_000
"""Half a second of one core, or less; a peer that asks for more wants us busy."""
MAX_MESSAGE: Final = 2048
_HASH: Final = "sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScramKeys:
    """What a server needs to know of a password (RFC 5802 section 3).

    :param salt: octets.
    """

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


def salted_password(password: Secret, salt: bytes, iterations: int) -> bytes:
    """``Hi(Normalize(password), salt, i)``: the costly step, some milliseconds for every 10,000 iterations.

    :raises MechanismFailed: if the password has characters that may not stand in one.
    """
    try:
        prepared = saslprep(password.reveal())
    except Unpreparable as error:
        raise MechanismFailed(f"the password has {error}") from None
    return hashlib.pbkdf2_hmac(_HASH, prepared.encode(), salt, iterations)


def client_key(salted: bytes) -> bytes:
    """``ClientKey``, of which ``StoredKey`` is the hash."""
    return _hmac(salted, b"Client Key")


def server_key(salted: bytes) -> bytes:
    """``ServerKey``, by which a server proves that it knows the password."""
    return _hmac(salted, b"Server Key")


def derive_keys(password: Secret, salt: bytes, iterations: int) -> ScramKeys:
    """What a server keeps instead of a password.

    :raises MechanismFailed: if the password has characters that may not stand in one.
    """
    salted = salted_password(password, salt, iterations)
    return ScramKeys(
        salt=salt,
        iterations=iterations,
        stored_key=hashlib.sha256(client_key(salted)).digest(),
        server_key=server_key(salted),
    )


def client_proof(key: bytes, auth_message: bytes) -> bytes:
    """``ClientProof`` from the client key."""
    signature = _hmac(hashlib.sha256(key).digest(), auth_message)
    return bytes(one ^ other for one, other in zip(key, signature, strict=True))


def proof_is_right(proof: bytes, stored_key: bytes, auth_message: bytes) -> bool:
    """Whether a client's proof comes from the password that ``stored_key`` was made of."""
    signature = _hmac(stored_key, auth_message)
    if len(proof) != len(signature):
        return False
    key = bytes(one ^ other for one, other in zip(proof, signature, strict=True))
    return hmac.compare_digest(hashlib.sha256(key).digest(), stored_key)


def server_signature(key: bytes, auth_message: bytes) -> bytes:
    """``ServerSignature`` from the server key."""
    return _hmac(key, auth_message)


def attributes(message: str) -> Mapping[str, str]:
    """The attributes of a message, ``r=…,s=…,i=…``.

    :raises MechanismFailed: if it is none, is too long, names one twice or demands an extension (``m=``).
    """
    if len(message) > MAX_MESSAGE:
        raise MechanismFailed(f"a SCRAM message of more than {MAX_MESSAGE} characters")
    found: dict[str, str] = {}
    for part in message.split(","):
        name, equals, value = part.partition("=")
        if len(name) != 1 or not name.isalpha() or not name.isascii() or not equals or name in found:
            raise MechanismFailed("a malformed SCRAM message")
        found[name] = value
    if "m" in found:
        raise MechanismFailed("a SCRAM extension that nobody knows")
    return found


def encoded(octets: bytes) -> str:
    """Octets as they stand in a message."""
    return base64.b64encode(octets).decode("ascii")


def decoded(text: str) -> bytes:
    """Octets from a message.

    :raises MechanismFailed: if it is no base64.
    """
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise MechanismFailed("a SCRAM attribute that is no base64") from None


def escaped_name(user: str) -> str:
    """A user name as it stands in a message (``saslname``).

    :raises MechanismFailed: if it has characters that may not stand in one.
    """
    try:
        return saslprep(user).replace("=", "=3D").replace(",", "=2C")
    except Unpreparable as error:
        raise MechanismFailed(f"the user name has {error}") from None


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, _HASH)


class ScramClient:
    """The client's side of one exchange.

    :param nonce: printable, no comma; fresh and unguessable.
    """

    name = MECHANISM
    speaks_first = True

    def __init__(self, user: str, password: Secret, *, nonce: str) -> None:
        self._password = password
        self._nonce = nonce
        self._first_bare = f"n={escaped_name(user)},r={nonce}"
        self._expected = b""
        self._step = 0
        self.proved = False

    def first(self) -> bytes:
        """``client-first-message``."""
        return (GS2_HEADER + self._first_bare).encode()

    def next(self, challenge: bytes) -> bytes:
        """The answer to ``server-first-message``, then to ``server-final-message``.

        :raises MechanismFailed: if the server does not keep to the protocol, asks for too little or too much work, or does
            not prove that it knows the password.
        """
        try:
            message = challenge.decode()
        except UnicodeDecodeError:
            raise MechanismFailed("a SCRAM message that is no UTF-8") from None
        self._step += 1
        match self._step:
            case 1:
                return self._final(message)
            case 2:
                self._check(message)
                return b""
            case _:
                raise MechanismFailed("a challenge after the end of SCRAM")

    def _final(self, server_first: str) -> bytes:
        said = attributes(server_first)
        nonce, salt, count = said.get("r", ""), decoded(said.get("s", "")), said.get("i", "")
        if not nonce.startswith(self._nonce) or len(nonce) <= len(self._nonce):
            raise MechanismFailed("a SCRAM nonce that is not ours with the server's behind it")
        if not salt:
            raise MechanismFailed("a SCRAM message without a salt")
        iterations = int(count) if count.isascii() and count.isdigit() and len(count) < 10 else 0
        if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
            raise MechanismFailed(f"{iterations} SCRAM iterations, expected {MIN_ITERATIONS} to {MAX_ITERATIONS}")
        salted = salted_password(self._password, salt, iterations)
        without_proof = f"c={encoded(GS2_HEADER.encode())},r={nonce}"
        auth_message = f"{self._first_bare},{server_first},{without_proof}".encode()
        self._expected = server_signature(server_key(salted), auth_message)
        return f"{without_proof},p={encoded(client_proof(client_key(salted), auth_message))}".encode()

    def _check(self, server_final: str) -> None:
        said = attributes(server_final)
        if "e" in said:
            raise MechanismFailed(f"the server's SCRAM error {said['e'][:80]!a}")
        if not hmac.compare_digest(decoded(said.get("v", "")), self._expected):
            raise MechanismFailed("a server that does not prove that it knows the password")
        self.proved = True
