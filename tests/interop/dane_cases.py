"""Cases for judge() and OpenSSL: a chain, and one to four TLSA records that mean to describe one of its certificates.

Every kind of record is aimed at every depth in turn, half of the time so that it should be accepted.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.interop.dane_chains import MAX_DEPTH, Chain, Chains, KeyPool
from tests.pki import Cert

CASES_PER_CHAIN: Final = 4
# How often a cell's turn comes, against cells in which nothing can be accepted: the higher, the more can go wrong below.
_TURNS: Final = {(3, 0): 1.7, (2, 1): 1.5, (2, 2): 1.6, (2, 3): 2.0, (2, 4): 2.4}


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """A kind of record, and the depth of the certificate that it is about."""

    usage: int
    selector: int
    matching: int
    depth: int

    @property
    def can_be_accepted(self) -> bool:
        """Whether such a record can match there: usage 3 at the leaf, usage 2 above it."""
        return (self.usage == 3) is (self.depth == 0)

    def __str__(self) -> str:
        return f"{self.usage} {self.selector} {self.matching} at depth {self.depth}"


CELLS: Final = tuple(
    Cell(usage, selector, matching, depth)
    for usage in (2, 3)
    for selector in (0, 1)
    for matching in (0, 1, 2)
    for depth in range(MAX_DEPTH + 1)
)


@dataclass(frozen=True, slots=True)
class Case:
    """One question to both.

    :param rdatas: of the TLSA records, in wire format, of any quality.
    :param cell: what the first thought of the records was about.
    """

    number: int
    chain: Chain
    rdatas: tuple[bytes, ...]
    cell: Cell
    thought: str

    @property
    def presented(self) -> tuple[bytes, ...]:
        """The certificates as sent, in DER."""
        return tuple(cert.der for cert in self.chain.presented)

    def __str__(self) -> str:
        records = [f"{each[:3].hex(' ')} …{each[-3:].hex()} ({len(each)} octets)" for each in self.rdatas]
        return f"case {self.number}: {self.cell}, {self.thought}; {', '.join(self.chain.quirks) or 'sound'}; {records}"


def rdata(cert: Cert, usage: int, selector: int, matching: int) -> bytes:
    """The record that describes a certificate."""
    selected = cert.spki if selector else cert.der
    digest = {0: selected, 1: hashlib.sha256(selected).digest(), 2: hashlib.sha512(selected).digest()}
    return bytes((usage, selector, matching)) + digest[matching]


def cases(seed: int, count: int, keys: KeyPool) -> Iterator[Case]:
    """The first ``count`` cases of a seed."""
    chains, records = Chains(seed, keys), _Records(random.Random(seed + 1))
    made: Counter[Cell] = Counter()
    number = 0
    while number < count:
        chain = chains.make()
        possible = [cell for cell in CELLS if cell.depth <= chain.depth]
        for _ in range(min(CASES_PER_CHAIN, count - number)):
            cell = min(possible, key=lambda cell: (_urgency(made, cell), records.random.random()))
            made[cell] += 1
            rdatas, thought = records.about(chain, cell)
            yield Case(number, chain, rdatas, cell, thought)
            number += 1


def _urgency(made: Counter[Cell], cell: Cell) -> float:
    return made[cell] / _TURNS.get((cell.usage, cell.depth), 1.0)


class _Records:
    """Makes sets of records."""

    def __init__(self, random_: random.Random) -> None:
        self.random = random_

    def about(self, chain: Chain, cell: Cell) -> tuple[tuple[bytes, ...], str]:
        """One to four records in any order, and the thought behind them."""
        right = rdata(chain.line[cell.depth], cell.usage, cell.selector, cell.matching)
        thought = "right"
        if self.random.random() < (0.75 if cell.can_be_accepted and cell.usage == 2 else 0.4):
            rdatas = [right]
        else:
            thought = self.random.choice(("wrong", "stronger", "weaker", "malformed", "of another", "PKIX", "wrong"))
            rdatas = self._spoilt(thought, right, chain, cell)
        for _ in range(self.random.choices((0, 1, 2), (60, 30, 10))[0]):
            rdatas.append(self._extra(chain))
        self.random.shuffle(rdatas)
        return tuple(rdatas[:4]), thought

    def _spoilt(self, how: str, right: bytes, chain: Chain, cell: Cell) -> list[bytes]:
        """Records of which at most a part is right."""
        fields = (cell.usage, cell.selector)
        subject = chain.line[cell.depth]
        match how:
            case "stronger":  # a wrong one beside a right one: digest agility
                return [rdata(subject, *fields, 1), bytes((*fields, 2)) + self.random.randbytes(64)]
            case "weaker":
                return [rdata(subject, *fields, 2), bytes((*fields, 1)) + self.random.randbytes(32)]
            case "malformed":
                return [self._malformed(right)]
            case "of another":
                others = (*chain.beside, *chain.line)
                return [rdata(self.random.choice(others), *fields, cell.matching)]
            case "PKIX":
                return [bytes((cell.usage - 2,)) + right[1:]]
            case _:
                return [self._wrong(right, chain)]

    def _wrong(self, right: bytes, chain: Chain) -> bytes:
        """Of the same kind: the whole of another certificate, or as long as the right one with one bit flipped."""
        if right[2] == 0 and self.random.random() < 0.6:
            return rdata(self.random.choice((*chain.beside, *chain.line)), *right[:3])
        at = self.random.randrange(3, len(right))
        return right[:at] + bytes((right[at] ^ 1 << self.random.randrange(8),)) + right[at + 1 :]

    def _malformed(self, right: bytes) -> bytes:
        forms: Sequence[bytes] = (
            right[: self.random.randrange(4)],
            right[:-1],
            right + b"\0",
            right[:1] + b"\x02" + right[2:],
            right[:2] + self.random.choice((b"\x03", b"\xff")) + right[3:],
            right[:2] + b"\0" + self.random.randbytes(40),
            b"\xff" + right[1:],
        )
        return self.random.choice(forms)

    def _extra(self, chain: Chain) -> bytes:
        """A record that need not have anything to do with the others."""
        cert = self.random.choice((*chain.line, *chain.beside))
        record = rdata(cert, self.random.choice((2, 2, 3)), self.random.randrange(2), self.random.randrange(3))
        draw = self.random.random()
        if draw < 0.4:
            return self._wrong(record, chain)
        if draw < 0.55:
            return self._malformed(record)
        return bytes((record[0] - 2,)) + record[1:] if draw < 0.65 else record
