"""Dialogues of AUTH, right ones and spoiled ones, line by line: what a client answers to the replies that it gets."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from hypothesis import strategies as st

from tests.unit.sasl.users_of_tests import PASSWORD, USER

_NONCE = "fyko+d2lbbFgONRv9qkxdawL"


class Door(Enum):
    """How a session begins."""

    CLEAR = auto()
    STARTTLS = auto()
    WRAPPED = auto()


@dataclass(frozen=True, slots=True)
class Proof:
    """The third message of SCRAM-SHA-256, which needs the server's nonce and salt (RFC 5802 section 3)."""

    user: str
    password: str

    def line(self, reply: bytes) -> bytes:
        """What answers the server's first message; something else where that is none."""
        try:
            challenge = base64.b64decode(reply.removeprefix(b"334 ")).decode()
            said = dict(part.split("=", 1) for part in challenge.split(","))
            key = _client_key(self.password, base64.b64decode(said["s"]), int(said["i"]))
        except (ValueError, KeyError):
            return b"NOOP"
        without_proof = f"c=biws,r={said['r']}"
        spoken = f"n={self.user},r={_NONCE},{challenge},{without_proof}".encode()
        signature = hmac.digest(hashlib.sha256(key).digest(), spoken, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
        return _b64(f"{without_proof},p={proof}")


@functools.lru_cache(maxsize=64)
def _client_key(password: str, salt: bytes, iterations: int) -> bytes:
    return hmac.digest(hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations), b"Client Key", "sha256")


Line = bytes | Proof


@dataclass(frozen=True, slots=True)
class Edit:
    """What becomes of one line.

    :param place: its number, counted around.
    :param begin: where ``octets`` stand instead of what is there up to ``end``.
    """

    place: int
    begin: int
    end: int
    octets: bytes

    def apply(self, line: bytes) -> bytes:
        """The line after it, still one line."""
        edited = line[: self.begin] + self.octets + line[self.end :]
        return edited.replace(b"\r", b"").replace(b"\n", b"")


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A door, the lines that are said there after EHLO, and what is changed in them."""

    door: Door
    lines: Sequence[Line]
    right: bool
    edits: Sequence[Edit] = ()

    def said(self, number: int, reply: bytes) -> tuple[bytes, bool]:
        """One line without its end, and whether it is as it was meant."""
        line = self.lines[number]
        meant = line.line(reply) if isinstance(line, Proof) else line
        spoiled = meant
        for edit in self.edits:
            if edit.place % len(self.lines) == number:
                spoiled = edit.apply(spoiled)
        return spoiled, spoiled == meant


def _b64(text: str | bytes) -> bytes:
    return base64.b64encode(text.encode() if isinstance(text, str) else text)


def _right_ways(user: str, password: str) -> list[list[Line]]:
    plain, first = _b64(f"\0{user}\0{password}"), _b64(f"n,,n={user},r={_NONCE}")
    return [
        [b"AUTH PLAIN " + plain],
        [b"auth plain", plain],
        [b"AUTH LOGIN", _b64(user), _b64(password)],
        [b"AUTH LOGIN " + _b64(user), _b64(password)],
        [b"AUTH SCRAM-SHA-256 " + first, Proof(user, password), b""],
        [b"AUTH SCRAM-SHA-256", first, Proof(user, password), b""],
    ]


SECRETS = (PASSWORD.encode(), _b64(PASSWORD), _b64(f"\0{USER}\0{PASSWORD}"))
"""What no event may have in it."""
_wrong = st.sampled_from([(USER, "wrong"), ("nobody", PASSWORD), ("nobody", "x"), (USER, ""), ("", PASSWORD), ("", "")])
_octets = st.one_of(
    st.sampled_from([b"*", b"=", b"", b" ", b"\0", b"\xff", b"A" * 600, b"A" * 13_000, _b64("n,,n=x,r="), b"QUIT"]),
    st.binary(max_size=30),
    st.binary(max_size=60).map(_b64),
)
_edit = st.builds(
    lambda place, begin, length, octets: Edit(place, begin, begin + length, octets),
    st.integers(0, 3),
    st.integers(0, 40),
    st.one_of(st.just(10_000), st.integers(0, 10)),
    _octets,
)
_lines = st.one_of(
    st.sampled_from(_right_ways(USER, PASSWORD)).map(lambda lines: (lines, True)),
    _wrong.flatmap(lambda pair: st.sampled_from(_right_ways(*pair))).map(lambda lines: (lines, False)),
)
dialogues = st.builds(
    lambda door, lines, edits: Dialogue(door, lines[0], lines[1], edits),
    st.sampled_from([Door.STARTTLS, Door.WRAPPED, Door.CLEAR]),
    _lines,
    st.one_of(st.just([]), st.lists(_edit, max_size=3)),
)
RIGHT = [Dialogue(door, lines, True) for door in Door for lines in _right_ways(USER, PASSWORD)]
