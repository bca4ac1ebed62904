"""Tables of ordered rules with ``if`` … ``endif``: what ``regexp:``, ``pcre:`` and ``cidr:`` have in common. Pure.

The law: a rule that cannot be understood is no gap. Whatever comes as far as this rule fails there, and its mail waits;
Postfix skips the rule, and a later one or a default could take its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar, assert_never

from relay.maps.comments import NO_COMMENT, Comment
from relay.maps.lines import LogicalLine, fault_of, logical_lines
from relay.maps.notation import BadNotation, Template, fill
from relay.maps.table import MISSING, Answer, Failed, Found, MapProblem, Row

_WORD = re.compile(r"(if|endif)(?![A-Za-z0-9])\s*(.*)", re.IGNORECASE | re.DOTALL)
_SEPARATING = re.compile(r"""[\x00-\x20\x7f,:;|{}\[\]()<>"'\\$]""")
_SHOWN = 80

C = TypeVar("C")
"""What a rule asks of a key: a pattern, a network."""

Groups = Callable[[int], str | None]
"""The text of each group of a match."""


def no_groups(_number: int) -> str | None:
    """The groups of what holds without a match."""
    return None


class TooSlow(Exception):  # noqa: N818 - it names the fault, and never leaves this room
    """Whether a condition holds takes too long to find out; the message says how long that is."""


@dataclass(frozen=True, slots=True)
class Answering(Generic[C]):
    """A rule with a result."""

    place: str
    condition: C
    result: Template
    note: Comment = NO_COMMENT


@dataclass(frozen=True, slots=True)
class If(Generic[C]):
    """Where the condition does not hold, on goes the search at step ``otherwise``."""

    place: str
    condition: C
    otherwise: int = 0


@dataclass(frozen=True, slots=True)
class Endif:
    """The end of a block; ``place`` is for problems."""

    place: str


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that nobody understands."""

    place: str
    reason: str


Step = Answering[C] | If[C] | Endif | Broken


@dataclass(frozen=True, slots=True)
class Rules(Generic[C]):
    """The steps of a table, in order, and what is to be said about them."""

    steps: tuple[Step[C], ...]
    problems: tuple[MapProblem, ...]

    def first(self, holds: Callable[[C], Groups | None]) -> Answer:
        """The answer of the first rule that holds.

        :param holds: judges one condition; may raise TooSlow.
        """
        position = 0
        while position < len(self.steps):
            step = self.steps[position]
            position += 1
            match step:
                case Answering() | If():
                    try:
                        groups = holds(step.condition)
                    except TooSlow as error:
                        return Failed(str(error), step.place)
                    if isinstance(step, Answering):
                        if groups is not None:
                            return _filled(step, groups)
                    elif groups is None:
                        position = step.otherwise
                case Endif():
                    pass
                case Broken(place, reason):
                    return Failed(reason, place)
                case _:
                    assert_never(step)
        return MISSING

    def __len__(self) -> int:
        return sum(isinstance(step, Answering | Broken) for step in self.steps)

    def rows(self) -> Iterator[Row]:
        """Every result as it is written, in order."""
        for step in self.steps:
            if isinstance(step, Broken):
                yield Row("", Failed(step.reason, step.place))
            elif isinstance(step, Answering):
                yield Row("", Found(fill(step.result, "${{{}}}".format), step.place, step.note))


def _filled(step: Answering[C], groups: Groups) -> Found | Failed:
    for part in step.result:
        if isinstance(part, int) and _SEPARATING.search(groups(part) or ""):
            # A quoted local part may hold anything; what it brings must not become a word of its own.
            return Failed(f"${part} would bring {(groups(part) or '')[:_SHOWN]!a} into the result", step.place)
    value = fill(step.result, groups).strip()
    return Found(value, step.place, step.note) if value else Failed("the result is empty", step.place)


RuleRead = tuple[C, Template]
"""A condition and its result."""


def read_rules(
    text: str, name: str, *, read_rule: Callable[[str], RuleRead[C]], read_condition: Callable[[str], C]
) -> Rules[C]:
    """Read a table of rules.

    :param read_rule: a rule's condition and result; raises BadNotation.
    :param read_condition: the condition behind ``if``; raises BadNotation, also for what follows it: what looks like
        text behind a condition most likely is a rule that was indented and so became a part of this line.
    """
    steps: list[Step[C]] = []
    for line in logical_lines(text):
        place = f"{name}:{line.number}"
        try:
            steps.append(_step(line, place, read_rule, read_condition))
        except BadNotation as error:
            steps.append(Broken(place, str(error)))
    linked = _linked(steps)
    broken = (step for step in linked if isinstance(step, Broken))
    return Rules(linked, tuple(MapProblem(step.place, step.reason, is_error=True) for step in broken))


def _step(
    line: LogicalLine, place: str, read_rule: Callable[[str], RuleRead[C]], read_condition: Callable[[str], C]
) -> Step[C]:
    fault = fault_of(line.text)
    if fault:
        raise BadNotation(fault)
    text = line.text.strip()
    word = _WORD.fullmatch(text)
    if word is None:
        condition, result = read_rule(text)
        return Answering(place, condition, result, line.note)
    if word[1].lower() == "if":
        return If(place, read_condition(word[2]))
    if word[2]:
        raise BadNotation("text after ENDIF; do not indent the rules that follow it")
    return Endif(place)


def signs(text: str) -> tuple[bool, str]:
    """Whether an odd number of ``!`` stands before a condition, and the condition."""
    rest = text.lstrip("! \t\r\n\v\f")
    return bool(text[: len(text) - len(rest)].count("!") % 2), rest


def _linked(steps: list[Step[C]]) -> tuple[Step[C], ...]:
    """Join each ``if`` with its ``endif``; one without the other is a rule that nobody understands."""
    linked = list(steps)
    open_ones: list[int] = []
    for position, step in enumerate(steps):
        if isinstance(step, If):
            open_ones.append(position)
        elif isinstance(step, Endif):
            if not open_ones:
                linked[position] = Broken(step.place, "ENDIF without IF")
                continue
            opening = open_ones.pop()
            start = steps[opening]
            linked[opening] = replace(start, otherwise=position + 1) if isinstance(start, If) else start
    for position in open_ones:
        linked[position] = Broken(steps[position].place, "IF has no matching ENDIF")
    return tuple(linked)
