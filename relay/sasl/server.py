"""The server's side of PLAIN, LOGIN and SCRAM-SHA-256 (RFC 4616, 5802, 7677), as octets in and decisions out. Pure.

Whoever drives an exchange says each ``Challenge`` to the client and gives the answer to ``next``, until there is a ``Claim``
(a password still to be compared, which is slow) or a ``Proved``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from relay.sasl.mechanism import MechanismFailed
from relay.sasl.scram import MECHANISM as SCRAM
from relay.sasl.scram import attributes, decoded, encoded, proof_is_right, server_signature
from relay.sasl.secret import Secret
from relay.sasl.users import MAX_NAME, MAX_PASSWORD, Users

MECHANISMS: Final = ("PLAIN", "LOGIN", SCRAM)
# What a client's nonce may be long: the challenge that repeats it has to fit into one line of a reply.
_MAX_NONCE = 200


@dataclass(frozen=True, slots=True)
class Challenge:
    """Octets to be said to the client."""

    octets: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Claim:
    """A user who shows a password."""

    user: str
    password: Secret


@dataclass(frozen=True, slots=True)
class Proved:
    """A user who has shown to know the password."""

    user: str


Step = Challenge | Claim | Proved


class Refused(Exception):  # noqa: N818 - it names what happened
    """The client is not who it says, or does not keep to the mechanism.

    :param user: as far as the client has said it.
    """

    def __init__(self, reason: str, user: str = "") -> None:
        super().__init__(reason)
        self.user = user


class ServerExchange(Protocol):
    """One exchange; ``speaks_first`` is what the server says to a client that sent no initial response."""

    @property
    def opening(self) -> bytes:
        """The challenge to a client without an initial response."""

    def next(self, response: bytes) -> Step:
        """What follows from what the client says.

        :raises Refused: if that ends the exchange.
        """


def begin(mechanism: str, users: Users, *, nonce: str) -> ServerExchange:
    """An exchange of one of ``MECHANISMS``.

    :param nonce: printable, no comma; fresh and unguessable.
    """
    match mechanism:
        case "PLAIN":
            return Plain()
        case "LOGIN":
            return Login()
        case _:
            return Scram(users, nonce)


class Plain:
    """``authzid NUL authcid NUL password``, all at once."""

    opening = b""

    def next(self, response: bytes) -> Step:
        """The claim, if it is one."""
        parts = _utf8(response).split("\0")
        if len(parts) != 3:
            raise Refused("a malformed PLAIN response")
        other, user, password = parts
        return _claim(user, password, other)


class Login:
    """The name, then the password (draft-murchison-sasl-login)."""

    opening = b"Username:"

    def __init__(self) -> None:
        self._user: str | None = None

    def next(self, response: bytes) -> Step:
        """The question for the password, then the claim."""
        text = _utf8(response)
        if self._user is None:
            self._user = text
            return Challenge(b"Password:")
        return _claim(self._user, text, "")


def _claim(user: str, password: str, other: str) -> Claim:
    if not 0 < len(user) <= MAX_NAME or not 0 < len(password) <= MAX_PASSWORD or "\0" in user + password:
        raise Refused("a name or a password that is empty or too long")
    if other not in ("", user):
        raise Refused("a user who wants to be another one", user)
    return Claim(user, Secret(password))


class Scram:
    """SCRAM-SHA-256 without channel binding: the password itself is never seen.

    :param nonce: ours, put behind the client's.
    """

    opening = b""

    def __init__(self, users: Users, nonce: str) -> None:
        self._users = users
        self._ours = nonce
        self._step = 0
        self._user = ""
        self._header = ""
        self._nonce = ""
        self._said = ""

    def next(self, response: bytes) -> Step:
        """The salt, then our own proof, then the end."""
        self._step += 1
        try:
            match self._step:
                case 1:
                    return self._first(_utf8(response))
                case 2:
                    return self._final(_utf8(response))
                case _:
                    if response:
                        raise Refused("a response after the end of SCRAM", self._user)
                    return Proved(self._user)
        except MechanismFailed as error:
            raise Refused(str(error), self._user) from None

    def _first(self, message: str) -> Challenge:
        binding, _, rest = message.partition(",")
        other, comma, bare = rest.partition(",")
        if binding not in ("n", "y") or not comma:
            raise Refused("a SCRAM message that wants channel binding, or is none")
        said = attributes(bare)
        self._user, nonce = _name(said.get("n", "")), said.get("r", "")
        if not bare.startswith("n=") or not 0 < len(self._user) <= MAX_NAME or not 0 < len(nonce) <= _MAX_NONCE:
            raise Refused("a SCRAM message without a name or a nonce, or with one that is too long")
        if not nonce.isascii() or not nonce.isprintable():
            raise Refused("a SCRAM nonce that is not printable", self._user)
        if other and (not other.startswith("a=") or _name(other[2:]) != self._user):
            raise Refused("a user who wants to be another one", self._user)
        self._header, self._nonce = f"{binding},{other},", nonce + self._ours
        self._keys = self._users.keys(self._user)
        first = f"r={self._nonce},s={encoded(self._keys.salt)},i={self._keys.iterations}"
        self._said = f"{bare},{first}"
        return Challenge(first.encode())

    def _final(self, message: str) -> Challenge:
        without_proof, found, proof = message.rpartition(",p=")
        said = attributes(message)
        if not found or decoded(said.get("c", "")) != self._header.encode() or said.get("r") != self._nonce:
            raise Refused("a SCRAM message that does not continue the exchange", self._user)
        spoken = f"{self._said},{without_proof}".encode()
        right = proof_is_right(decoded(proof), self._keys.stored_key, spoken)
        if not right or self._users.find(self._user) is None:
            raise Refused("authentication failure", self._user)
        return Challenge(f"v={encoded(server_signature(self._keys.server_key, spoken))}".encode())


def _name(escaped: str) -> str:
    """A ``saslname`` as it is meant."""
    if "=" in escaped.replace("=2C", "").replace("=3D", ""):
        raise MechanismFailed("a SCRAM name that is not escaped")
    return escaped.replace("=2C", ",").replace("=3D", "=")


def _utf8(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise Refused("a response that is no UTF-8") from None
