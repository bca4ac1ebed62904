"""``regexp:`` and ``pcre:`` tables: ordered rules, the first that matches answers (regexp_table(5), pcre_table(5)).

Keys come from the network and may be made to keep a pattern busy. A look-up has a time limit, and one that is over it
fails; Postfix's libraries give up after some backtracking, and the next rule is tried.
"""

from __future__ import annotations

import string
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import regex

from relay.maps.dialect import Translated, from_pcre, from_posix
from relay.maps.notation import BadNotation, read_template
from relay.maps.rules import Groups, RuleRead, Rules, TooSlow, no_groups, read_rules, signs
from relay.maps.table import Answer, Failed, MapProblem, Row

LIMIT_SECONDS = 0.05
"""What one look-up may take in all; the patterns of a mail server need a thousandth of it."""
MAX_KEY = 1000
"""Characters of the longest key; addresses and names are shorter (RFC 5321 section 4.5.3.1)."""
_TOO_SLOW = TooSlow(f"the patterns up to this one took longer than {LIMIT_SECONDS * 1000:.0f} ms")
_FLAGS = {"regexp": "imx", "pcre": "imsxAEX"}


@dataclass(frozen=True, slots=True)
class Pattern:
    """One expression.

    :param negated: whether it holds where it does not match.
    """

    expression: regex.Pattern[str]
    negated: bool

    def groups(self, key: str, seconds: float) -> Groups | None:
        """The groups of its match if it holds.

        :raises TooSlow: if this takes longer.
        """
        try:
            found = self.expression.search(key, timeout=seconds)
        except TimeoutError:
            raise _TOO_SLOW from None
        if self.negated:
            return no_groups if found is None else None
        return None if found is None else found.group


@dataclass(frozen=True, slots=True)
class Both:
    """``/one/!/two/``: the first holds and the second does not match (regexp tables only)."""

    first: Pattern
    second: Pattern


Condition = Pattern | Both


@dataclass(frozen=True, slots=True)
class PatternTable:
    """A table of patterns; a look-up tries them in order."""

    name: str
    rules: Rules[Condition]
    takes_partial_keys: bool = False

    @property
    def problems(self) -> tuple[MapProblem, ...]:
        """What is wrong with its rules, in order."""
        return self.rules.problems

    def lookup(self, key: str) -> Answer:
        """Find the first rule that holds for a key."""
        if len(key) > MAX_KEY:
            return Failed(f"a key of {len(key)} characters, more than {MAX_KEY}", f"{self.name}:1")
        end = time.monotonic() + LIMIT_SECONDS

        def holds(condition: Condition) -> Groups | None:
            if isinstance(condition, Pattern):
                return condition.groups(key, _until(end))
            first = condition.first.groups(key, _until(end))
            return None if first is None or condition.second.groups(key, _until(end)) is None else first

        return self.rules.first(holds)

    def rows(self) -> Iterator[Row]:
        """Every result as it is written, in order."""
        return self.rules.rows()

    def keys(self) -> Collection[str]:
        """None: it compares nothing."""
        return ()

    def may_say(self, _word: str) -> bool:
        """It is soon looked through."""
        return True

    def __len__(self) -> int:
        return len(self.rules)


def _until(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise _TOO_SLOW
    return left


def read_patterns(text: str, name: str, kind: str) -> PatternTable:
    """Read a ``regexp`` or ``pcre`` table."""

    def read_rule(line: str) -> RuleRead[Condition]:
        if line[0].isalnum():
            raise BadNotation('unrecognized request: expected "/pattern/flags result", "if /pattern/" or "endif"')
        source, rest = _cut(line, kind)
        second, rest = _cut(rest, kind) if kind == "regexp" and rest.startswith("!") else (None, rest)
        value = rest.strip()
        if not value:
            raise BadNotation("no replacement text")
        # The longest match decides what $1 is in POSIX; without references any match will do, and is found sooner.
        pattern = _compiled(source, kind, longest="$" in value)
        result = read_template(value, pattern.expression.groups)
        if pattern.negated and any(isinstance(part, int) for part in result):
            raise BadNotation("$number found in negative match replacement text")
        if second is None:
            return pattern, result
        return Both(pattern, _compiled(second, kind)), result

    def read_condition(text: str) -> Condition:
        source, rest = _cut(text, kind)
        if rest.strip():
            raise BadNotation("text after the IF pattern; do not indent the rules between IF and ENDIF")
        return _compiled(source, kind)

    return PatternTable(name, read_rules(text, name, read_rule=read_rule, read_condition=read_condition))


@dataclass(frozen=True, slots=True)
class _Source:
    """A pattern as written: what stands between the delimiters, and the flags behind."""

    text: str
    flags: str
    negated: bool


def _cut(text: str, kind: str) -> tuple[_Source, str]:
    """Take ``!/pattern/flags`` from the beginning; any sign may stand for the slash.

    :raises BadNotation: in Postfix's words.
    """
    negated, text = signs(text)
    if not text:
        raise BadNotation("no regexp")
    delimiter, position = text[0], 1
    begin = position
    while position < len(text) and text[position] != delimiter:
        position += 2 if text[position] == "\\" else 1
    if position >= len(text):
        raise BadNotation(f'no closing regexp delimiter "{delimiter}"')
    behind = text[position + 1 :]
    rest = behind.lstrip(string.ascii_letters)
    if rest and not rest[0].isspace() and not (kind == "regexp" and rest[0] == "!"):
        raise BadNotation(f'unknown regexp option "{rest[0]}"')
    flags = behind[: len(behind) - len(rest)]
    unknown = flags.strip(_FLAGS[kind])
    if unknown:
        raise BadNotation(f'unknown regexp option "{unknown[0]}"')
    return _Source(text[begin:position], flags, negated), rest


def _compiled(source: _Source, kind: str, *, longest: bool = False) -> Pattern:
    on = {letter for letter in _FLAGS[kind] if source.flags.count(letter) % 2}
    if kind == "regexp":
        if "x" in on:
            raise BadNotation("basic regular expressions (flag x) are not understood; write an extended one")
        translated = from_posix(source.text)
        flags = int(regex.MULTILINE if "m" in on else regex.DOTALL) | (regex.POSIX if longest else 0)
    else:
        translated = from_pcre(source.text, extended="x" in on)
        flags = _pcre_flags(on, translated)
    ignoring = (("i" not in on) or "i" in translated.on) and "i" not in translated.off
    flags |= regex.VERSION0 | regex.ASCII | (regex.IGNORECASE if ignoring else 0)
    text = rf"\A(?:{translated.text})" if "A" in on else translated.text
    try:
        return Pattern(regex.compile(text, flags, cache_pattern=False), source.negated)
    except (regex.error, OverflowError, RecursionError, ValueError) as error:
        raise BadNotation(f"error in regex: {error}") from None


def _pcre_flags(on: set[str], translated: Translated) -> int:
    flags = 0
    for letter, flag, normally in (
        ("m", regex.MULTILINE, False),
        ("s", regex.DOTALL, True),
        ("x", regex.VERBOSE, False),
    ):
        wanted = normally != (letter in on)
        if (wanted or letter in translated.on) and letter not in translated.off:
            flags |= flag
    return int(flags)
