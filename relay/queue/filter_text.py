"""The filter language of the queue commands, read into ``relay.queue.filter``. Pure.

``domain:example.com and (age>2d or status:4.7) and not sender:boss@example.org``: terms joined by ``and`` (also by nothing),
``or``, ``not`` and parentheses; ``docs/queue.md`` lists the terms. Errors say where in the text they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from relay.mail.envelope import QueueId
from relay.mail.names import BadName, Domain, IpLiteral
from relay.queue.filter import (
    Age,
    And,
    At,
    Everything,
    Filter,
    FromDomain,
    FromSender,
    HasId,
    InDomain,
    IsRecipient,
    LastStatus,
    Not,
    Or,
    ReasonHas,
    ReasonLike,
    Sign,
    Size,
    Term,
    ToDestination,
    ascii_lower,
)
from relay.queue.store import EntryState

MAX_FILTER = 200_000
MAX_TERMS = 100
MAX_DEPTH = 50
MAX_IDS = 10_000
MAX_PATTERN = 200
# Seconds or octets; a million times as much still fits into a database integer.
MAX_AMOUNT = 10**12
EVERYTHING = "ALL"

_TOKEN = re.compile(r"""\s*(?:(?P<paren>[()])|(?P<word>(?:"(?:[^"\\]|\\.)*"|[^\s()"])+)|(?P<bad>"))""", re.DOTALL)
_TERM = re.compile(r"(?P<key>[a-z]+)(?P<sign>:~|:|>=|<=|>|<)(?P<value>.*)", re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
# Without a digit it is a word that somebody mistook for a term; the IDs that we give begin with one.
_ID = re.compile(r"(?=[A-Za-z]*[0-9])[0-9A-Za-z]{1,64}", re.ASCII)
_STATUS = re.compile(r"[245](?:\.\d{1,3}){0,2}", re.ASCII)
_AMOUNT = re.compile(r"(\d{1,15})([A-Za-z]*)", re.ASCII)
_SECONDS: Mapping[str, int] = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_OCTETS: Mapping[str, int] = {
    "": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}


class FilterError(ValueError):
    """A filter that cannot be understood.

    :param position: of the fault, in characters from the start of the filter.
    """

    def __init__(self, position: int, why: str) -> None:
        super().__init__(f"filter, position {position + 1}: {why}")
        self.position = position


def parse_filter(text: str) -> Filter:
    """Read a filter.

    :raises FilterError: if it cannot be understood; an empty one does not mean everything.
    """
    if len(text) > MAX_FILTER:
        raise FilterError(MAX_FILTER, f"longer than {MAX_FILTER} characters")
    return _Parser(text).parse()


@dataclass(frozen=True, slots=True)
class _Token:
    """A parenthesis or a word, quotes and all, and where it begins."""

    text: str
    position: int


class _Parser:
    """Recursive descent over the tokens: or, then and, then not, then terms; depth and number of terms are bounded."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._next = 0
        self._end = len(text)
        self._terms = 0

    def parse(self) -> Filter:
        where = self._or(0)
        if self._next < len(self._tokens):
            token = self._tokens[self._next]
            raise FilterError(token.position, f"expected a term, and or or, found {token.text[:40]}")
        return where

    def _or(self, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise FilterError(self._position, f"more than {MAX_DEPTH} parentheses or nots within each other")
        found = [self._and(depth)]
        while self._take("or"):
            found.append(self._and(depth))
        return found[0] if len(found) == 1 else Or(tuple(found))

    def _and(self, depth: int) -> Filter:
        found = [self._not(depth)]
        while self._take("and") or self._word not in {"or", ")", ""}:
            found.append(self._not(depth))
        return found[0] if len(found) == 1 else And(tuple(found))

    def _not(self, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise FilterError(self._position, f"more than {MAX_DEPTH} parentheses or nots within each other")
        if self._take("not"):
            return Not(self._not(depth + 1))
        if self._take("("):
            opened = self._position
            inner = self._or(depth + 1)
            if not self._take(")"):
                raise FilterError(self._position, f"expected ) for the ( before position {opened + 1}")
            return inner
        return self._term()

    def _term(self) -> Filter:
        if self._word in {"", "and", "or", ")"}:
            raise FilterError(
                self._position, f"expected a term such as domain:example.com, found {self._word or 'the end'}"
            )
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise FilterError(self._position, f"more than {MAX_TERMS} terms")
        token = self._tokens[self._next]
        self._next += 1
        if token.text == EVERYTHING:
            return Everything()
        term = _TERM.fullmatch(token.text)
        if term is not None:
            return _term(token, term["key"], term["sign"], term["value"])
        if not _ID.fullmatch(token.text):
            raise FilterError(token.position, f"expected a term such as domain:example.com, found {token.text[:40]}")
        ids = [token]
        while _ID.fullmatch(self._word) and self._word not in {
            "and",
            "or",
            "not",
            EVERYTHING,
        }:  # IDs in a row: any of them
            ids.append(self._tokens[self._next])
            self._next += 1
        return _ids(token, [each.text for each in ids])

    @property
    def _word(self) -> str:
        return self._tokens[self._next].text if self._next < len(self._tokens) else ""

    @property
    def _position(self) -> int:
        return self._tokens[self._next].position if self._next < len(self._tokens) else self._end

    def _take(self, word: str) -> bool:
        taken = self._word == word
        self._next += taken
        return taken


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        token = _TOKEN.match(text, position)
        if token is None or token["bad"]:
            raise FilterError(position, 'a " without its end')
        start = token.start("paren") if token["paren"] else token.start("word")
        found.append(_Token(token["paren"] or token["word"], start))
        position = token.end()
    return found


def _term(token: _Token, key: str, sign: str, value: str) -> Term:
    read = _READERS.get((key, sign if sign in {":", ":~"} else ">"))
    value_at = token.position + len(key) + len(sign)
    if read is None:
        known = sorted({name for name, _ in _READERS})
        if key in known:
            raise FilterError(token.position + len(key), f"{key} is not written with {sign}")
        raise FilterError(token.position, f"no term is called {key}; there are {', '.join(known)}")
    value = _QUOTED.sub(lambda found: re.sub(r'\\(["\\])', r"\1", found[1]), value)
    if not value:
        raise FilterError(value_at, f"{key}{sign} needs a value")
    return read(value, value_at, sign)


def _domain(value: str, position: int) -> str:
    try:
        return str(IpLiteral.parse(value[1:-1]) if value.startswith("[") else Domain.parse(value))
    except BadName as error:
        raise FilterError(position, f"expected a domain, found {value[:80]}: {error}") from None


def _in_domain(value: str, position: int, _: str) -> Term:
    return InDomain(_domain(value.removeprefix("."), position), below=value.startswith("."))


def _recipient(value: str, position: int, _: str) -> Term:
    if value.startswith("@"):
        return InDomain(_domain(value[1:], position))
    return IsRecipient(_address(value, position))


def _sender(value: str, position: int, _: str) -> Term:
    if value in {"<>", "MAILER-DAEMON"}:
        return FromSender("")
    if value.startswith("@"):
        return FromDomain(_domain(value[1:], position))
    return FromSender(_address(value, position))


def _address(value: str, position: int) -> str:
    if "@" not in value[1:]:
        raise FilterError(position, f"expected an address or @domain, found {value[:80]}")
    return ascii_lower(value)


def _age(value: str, position: int, sign: str) -> Term:
    return Age(Sign(sign), _amount(value, position, _SECONDS, "an age such as 90s, 5m, 2h, 3d or 1w"))


def _size(value: str, position: int, sign: str) -> Term:
    return Size(Sign(sign), _amount(value, position, _OCTETS, "a size such as 5000, 10kB, 1MiB"))


def _amount(value: str, position: int, units: Mapping[str, int], expected: str) -> int:
    amount = _AMOUNT.fullmatch(value)
    if amount is None or amount[2].lower() not in units:
        raise FilterError(position, f"expected {expected}, found {value[:40]}")
    number = int(amount[1]) * units[amount[2].lower()]
    if number > MAX_AMOUNT:
        raise FilterError(position, f"expected {expected}, found one beyond all bounds")
    return number


def _status(value: str, position: int, _: str) -> Term:
    if _STATUS.fullmatch(value):
        return LastStatus(value)
    try:
        return At(EntryState(value.lower()))
    except ValueError:
        words = ", ".join(place.value for place in EntryState)
        raise FilterError(position, f"expected {words}, or a code such as 4.7.5 or 4.7, found {value[:40]}") from None


def _reason_like(value: str, position: int, _: str) -> Term:
    try:
        re.compile(value)
    except (re.error, RecursionError) as error:
        raise FilterError(position, f"not a regular expression: {error}") from None
    if len(value) > MAX_PATTERN:
        raise FilterError(position, f"a regular expression of more than {MAX_PATTERN} characters")
    return ReasonLike(value, position)


def _ids(token: _Token, words: list[str]) -> HasId:
    if len(words) > MAX_IDS:
        raise FilterError(token.position, f"more than {MAX_IDS} queue IDs")
    for word in words:
        if not _ID.fullmatch(word):
            raise FilterError(token.position, f"expected queue IDs, found {word[:40]}")
    return HasId(frozenset(map(QueueId, words)))


_READERS: Mapping[tuple[str, str], Callable[[str, int, str], Term]] = {
    ("domain", ":"): _in_domain,
    ("rcpt", ":"): _recipient,
    ("sender", ":"): _sender,
    ("destination", ":"): lambda value, position, sign: ToDestination(value),
    ("age", ">"): _age,
    ("size", ">"): _size,
    ("status", ":"): _status,
    ("reason", ":"): lambda value, position, sign: ReasonHas(ascii_lower(value)),
    ("reason", ":~"): _reason_like,
    ("id", ":"): lambda value, position, sign: _ids(_Token(value, position), value.split(",")),
}
