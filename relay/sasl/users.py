"""The users who may log in at our front door: their file, and what a password is compared with. Pure.

A line is ``NAME {SCRYPT}N:r:p$SALT$HASH {SCRAM-SHA-256}ITERATIONS,SALT,STOREDKEY,SERVERKEY``, octets in base64; the second
is written as Dovecot writes it. One line ``* {SECRET}OCTETS`` has what the salts of users that do not exist are made of, so
that a stranger cannot tell who exists (RFC 5802 section 9 leaves that to the server). Errors name the line and never quote it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from relay.sasl.mechanism import MechanismFailed
from relay.sasl.prep import Unpreparable, saslprep
from relay.sasl.scram import MAX_ITERATIONS, MIN_ITERATIONS, ScramKeys, derive_keys
from relay.sasl.secret import Secret

MAX_NAME = 255
MAX_PASSWORD = 1024
SALT_OCTETS = 16
SECRET_OCTETS = 32
ITERATIONS = 10_000
"""Of SCRAM, in new lines and for users who do not exist."""
_SEED_NAME = "*"
_SCRYPT = "{SCRYPT}"
_SCRAM = "{SCRAM-SHA-256}"
_SEED = "{SECRET}"
_DIGEST_OCTETS = 32
# Memory that one scrypt may take, in octets: 128 * N * r.
_MAX_MEMORY = 64 * 1024 * 1024
_MAX_PARALLEL = 16


class BadUser(ValueError):  # noqa: N818 - it names what was found
    """A name, a password or a line that cannot be used; the message says why without quoting any of it."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one scrypt costs (RFC 7914): the default is 32 MiB and about a tenth of a second."""

    n: int = 2**15
    r: int = 8
    p: int = 1

    def hash(self, password: str, salt: bytes) -> bytes:
        """The hash of a prepared password."""
        memory = 128 * self.r * (self.n + self.p + 2) + 1024 * 1024
        return hashlib.scrypt(
            password.encode(), salt=salt, n=self.n, r=self.r, p=self.p, maxmem=memory, dklen=_DIGEST_OCTETS
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """One who may log in; ``salt`` and ``digest`` are of scrypt, ``keys`` of SCRAM."""

    name: str
    cost: Cost
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)
    keys: ScramKeys = field(repr=False)

    @property
    def line(self) -> str:
        """The user as a line of the file, without its end."""
        cost, keys = self.cost, self.keys
        scrypt = f"{_SCRYPT}{cost.n}:{cost.r}:{cost.p}${_text(self.salt)}${_text(self.digest)}"
        octets = ",".join(map(_text, (keys.salt, keys.stored_key, keys.server_key)))
        return f"{self.name} {scrypt} {_SCRAM}{keys.iterations},{octets}"


@dataclass(frozen=True, slots=True)
class Users:
    """All users of a file.

    :param secret: what is told of users who do not exist is made of it.
    """

    by_name: Mapping[str, User] = field(repr=False)
    secret: bytes = field(repr=False)

    def find(self, name: str) -> User | None:
        """The user of a name as a client gives it."""
        try:
            return self.by_name.get(saslprep(name))
        except Unpreparable:
            return None

    def keys(self, name: str) -> ScramKeys:
        """What SCRAM compares with; of a user who does not exist, always the same and right for no password."""
        user = self.find(name)
        if user is not None:
            return user.keys
        salt, stored, served = (self._made_up(use, name) for use in ("salt", "stored", "server"))
        return ScramKeys(salt=salt[:SALT_OCTETS], iterations=ITERATIONS, stored_key=stored, server_key=served)

    def is_password(self, name: str, password: Secret) -> bool:
        """Whether that is the user's password; takes as long for a user who does not exist. Slow, by intention."""
        user = self.find(name)
        cost, salt = (user.cost, user.salt) if user else (Cost(), self._made_up("salt", name)[:SALT_OCTETS])
        try:
            prepared, usable = saslprep(password.reveal()), user is not None
        except Unpreparable:
            prepared, usable = "", False
        right = hmac.compare_digest(cost.hash(prepared, salt), user.digest if user else b"")
        return right and usable

    def _made_up(self, use: str, name: str) -> bytes:
        with suppress(Unpreparable):
            name = saslprep(name)
        return hmac.digest(self.secret, f"{use}\0{name}".encode(), "sha256")


def new_user(name: str, password: Secret, salts: tuple[bytes, bytes], cost: Cost | None = None) -> User:
    """A user for the file.

    :param salts: random octets for scrypt and for SCRAM, ``SALT_OCTETS`` of each.
    :raises BadUser: if the name or the password cannot be used.
    """
    cost = cost or Cost()
    check_name(name)
    if not 0 < len(password.reveal()) <= MAX_PASSWORD:
        raise BadUser(f"a password has 1 to {MAX_PASSWORD} characters")
    try:
        prepared = saslprep(password.reveal())
        keys = derive_keys(password, salts[1], ITERATIONS)
    except (Unpreparable, MechanismFailed):
        raise BadUser("the password has characters that may not stand in one (RFC 4013)") from None
    return User(name=name, cost=cost, salt=salts[0], digest=cost.hash(prepared, salts[0]), keys=keys)


def check_name(name: str) -> None:
    """Whether somebody may be called that.

    :raises BadUser: if not.
    """
    try:
        fits = 0 < len(name) <= MAX_NAME and saslprep(name) == name and not any(map(str.isspace, name))
    except Unpreparable:
        fits = False
    if not fits or name.startswith(("*", "#")):
        raise BadUser(f"a user's name has 1 to {MAX_NAME} characters, no blanks and no * or # in front (RFC 4013)")


def read_users(text: str) -> tuple[Users, tuple[tuple[int, str], ...]]:
    """Read a file of users.

    :returns: the users, and (line, what is wrong with it) of each line that cannot be used; 0 is the file as a whole.
    """
    by_name: dict[str, User] = {}
    secret = b""
    wrong: list[tuple[int, str]] = []
    for number, words in _lines(text):
        try:
            if words[0] == _SEED_NAME:
                secret = _read_secret(words)
                continue
            user = _read_user(words)
            if user.name in by_name:
                raise BadUser("a second line of one user; take one of them out")
            by_name[user.name] = user
        except BadUser as error:
            wrong.append((number, str(error)))
    if not secret and not wrong:
        wrong.append((0, "there is no line of *; let `dane-relay user add` write the file"))
    return Users(by_name, secret), tuple(wrong)


def with_user(text: str, user: User, secret: bytes) -> str:
    """The file with a user added, or changed where the name has a line; whatever else stands there stays.

    :param secret: random octets, ``SECRET_OCTETS`` of them, for a file that has none.
    """
    lines = without_user(text, user.name).splitlines()
    if not any(words[0] == _SEED_NAME for _, words in _lines(text)):
        lines.append(f"{_SEED_NAME} {_SEED}{_text(secret)}")
    return "\n".join((*lines, user.line)) + "\n"


def without_user(text: str, name: str) -> str:
    """The file without a user."""
    kept = [line for line in text.splitlines() if line.split()[:1] != [name]]
    return "".join(f"{line}\n" for line in kept)


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words and not words[0].startswith("#"):
            yield number, words


def _read_secret(words: list[str]) -> bytes:
    if len(words) != 2 or not words[1].startswith(_SEED):
        raise BadUser(f"expected * {_SEED} and octets in base64")
    secret = _octets(words[1].removeprefix(_SEED))
    if len(secret) < SALT_OCTETS:
        raise BadUser(f"a secret of less than {SALT_OCTETS} octets")
    return secret


def _read_user(words: list[str]) -> User:
    if len(words) != 3 or not words[1].startswith(_SCRYPT) or not words[2].startswith(_SCRAM):
        raise BadUser(f"expected a name, {_SCRYPT}... and {_SCRAM}...; `dane-relay user add` writes such lines")
    check_name(words[0])
    scrypt = words[1].removeprefix(_SCRYPT).split("$")
    scram = words[2].removeprefix(_SCRAM).split(",")
    if len(scrypt) != 3 or len(scram) != 4:
        raise BadUser("a hash that is cut off or has too many parts")
    salt, digest = map(_octets, scrypt[1:])
    scram_salt, stored, served = map(_octets, scram[1:])
    if not salt or not scram_salt or {len(digest), len(stored), len(served)} != {_DIGEST_OCTETS}:
        raise BadUser("a salt or a hash of the wrong length")
    iterations = _number(scram[0])
    if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
        raise BadUser(f"SCRAM iterations outside of {MIN_ITERATIONS} to {MAX_ITERATIONS}")
    keys = ScramKeys(salt=scram_salt, iterations=iterations, stored_key=stored, server_key=served)
    return User(name=words[0], cost=_cost(scrypt[0]), salt=salt, digest=digest, keys=keys)


def _cost(text: str) -> Cost:
    n, r, p = ([_number(part) for part in text.split(":")] + [0, 0, 0])[:3]
    if n < 2 or n & (n - 1) or not r or 128 * n * r > _MAX_MEMORY or not 0 < p <= _MAX_PARALLEL:
        raise BadUser(f"scrypt cost that is none, or more than {_MAX_MEMORY // 2**20} MiB or p = {_MAX_PARALLEL}")
    return Cost(n, r, p)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


def _octets(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise BadUser("a part that is no base64") from None
