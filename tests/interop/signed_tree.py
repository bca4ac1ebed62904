"""The model of a signed tree of zones: what is in them, how they were damaged, and what that makes true of every name.

Pure. Truth is not found by validating anything: it follows from how the tree was built. Names are lower-case text without
a dot at the end, the root is the empty text, as in ``relay.mail.names.Domain``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import Final

import dns.rdata

from relay.dns.answer import RRType

TOO_MANY_ITERATIONS: Final = 1000
"""Of the NSEC3 hash: more than anybody computes."""

Records = Mapping[str, tuple[str, ...]]
"""RDATA in the notation of master files, names absolute, by the type's name."""


class Security(Enum):
    """What a validator that knows the root's key can say of a zone."""

    SECURE = auto()
    INSECURE = auto()
    BOGUS = auto()
    UNREACHABLE = auto()


class State(Enum):
    """How a zone stands to the DS record above it, and what became of its signatures."""

    SIGNED = Security.SECURE, auto()
    LYING = Security.SECURE, auto()  # no signature over an NSEC or NSEC3 record verifies: nothing can be denied
    UNSIGNED = Security.INSECURE, auto()
    ISLAND = Security.INSECURE, auto()  # signed, but the parent has no DS record
    UNKNOWN_ALGORITHM = Security.INSECURE, auto()  # RFC 4035 section 5.2
    UNKNOWN_DIGEST = Security.INSECURE, auto()  # RFC 4509 section 3
    EXPIRED = Security.BOGUS, auto()
    NOT_YET = Security.BOGUS, auto()
    WRONG_DS = Security.BOGUS, auto()
    STRIPPED = Security.BOGUS, auto()  # DS above, nothing of DNSSEC below
    NO_SIGNATURES = Security.BOGUS, auto()  # DNSKEY and NSEC records are there, RRSIG records are not
    TAMPERED = Security.BOGUS, auto()  # one bit of each signature below the key set is wrong
    REFUSED = Security.UNREACHABLE, auto()
    SERVFAIL = Security.UNREACHABLE, auto()
    DEAD = Security.UNREACHABLE, auto()  # nobody listens at the address
    SILENT = Security.UNREACHABLE, auto()  # somebody does, and never answers

    @property
    def security(self) -> Security:
        """Of the zone below a secure parent."""
        return self.value[0]


class Denial(Enum):
    """How a zone proves what it does not have."""

    NSEC = auto()
    NSEC3 = auto()
    OPT_OUT = auto()  # NSEC3, with insecure delegations left out (RFC 5155 section 6)


class Damage(Enum):
    """What was done to the signature over one RRset of a good zone."""

    MISSING = auto()
    TAMPERED = auto()
    EXPIRED = auto()
    NOT_YET = auto()
    FOREIGN_KEY = auto()  # made with a key that the zone does not publish
    ALTERED = auto()  # the signature is true, and the records are others


@dataclass(slots=True)
class Zone:
    """A zone, first filled and then served.

    :param records: what it has beside SOA, NS, DNSSEC and its delegations, by owner; owners may begin with ``*.``.
    :param damages: by owner and type.
    :param iterations: of the NSEC3 hash.
    :param absent: names that it is asked for and does not have, or only by a wildcard.
    """

    name: str
    state: State
    algorithm: str
    signer: str
    denial: Denial
    iterations: int = 0
    records: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    damages: dict[tuple[str, str], Damage] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)

    def owner(self, label: str) -> str:
        """The absolute name of a relative one, ``@`` for the zone itself."""
        return self.name if label == "@" else f"{label}.{self.name}"

    def add(self, label: str, rrtype: str, *rdata: str, damage: Damage | None = None) -> None:
        """Put an RRset into the zone."""
        self.records.setdefault(self.owner(label), {})[rrtype] = rdata
        if damage is not None:
            self.damages[self.owner(label), rrtype] = damage

    def contains(self, name: str) -> bool:
        """Whether a name is the zone's own or below it."""
        return name == self.name or not self.name or name.endswith(f".{self.name}")

    def find(self, name: str) -> tuple[Records, bool] | None:
        """The RRsets of a name, and whether a wildcard gave them; None if the name does not exist (RFC 4592)."""
        if name in self.records or name == self.name:
            return self.records.get(name, {}), False
        if self._has_below(name):
            return {}, False  # an empty non-terminal
        encloser = name.partition(".")[2]
        while encloser not in self.records and encloser != self.name and not self._has_below(encloser):
            encloser = encloser.partition(".")[2]
        wildcard = self.records.get(f"*.{encloser}")
        return None if wildcard is None else (wildcard, True)

    def _has_below(self, name: str) -> bool:
        return any(owner.endswith(f".{name}") for owner in self.records)


class Kind(StrEnum):
    """What a look-up comes to."""

    RECORDS = "records"
    NODATA = "nodata"
    NXDOMAIN = "nxdomain"
    BOGUS = "bogus"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is true of a name and a type, or what somebody says is.

    :param canonical: where CNAME and DNAME records lead; empty for bogus and failure.
    :param rdata: wire octets in hexadecimal digits, sorted.
    """

    kind: Kind
    secure: bool = False
    canonical: str = ""
    rdata: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.kind in (Kind.BOGUS, Kind.FAILURE):
            return str(self.kind)
        return f"{'secure' if self.secure else 'insecure'} {self.kind} at {self.canonical}, {len(self.rdata)} records"


@dataclass(frozen=True, slots=True, order=True)
class Question:
    """A name and a type."""

    name: str
    rrtype: RRType

    def __str__(self) -> str:
        return f"{self.name} {self.rrtype.name}"


@dataclass(frozen=True, slots=True)
class Tree:
    """The zones, by name."""

    zones: Mapping[str, Zone]

    def zone_of(self, name: str) -> Zone:
        """The zone that a name is in."""
        while name not in self.zones:
            name = name.partition(".")[2]
        return self.zones[name]

    def children(self, zone: Zone) -> Iterator[Zone]:
        """The zones that this one delegates."""
        return (other for other in self.zones.values() if other.name and self.parent(other) is zone)

    def parent(self, zone: Zone) -> Zone:
        """The zone above; the root is its own."""
        return self.zone_of(zone.name.partition(".")[2])

    def security(self, zone: Zone) -> Security:
        """What is true of everything in a zone, but for damage to single RRsets and denials."""
        if not zone.name or zone.state.security is Security.UNREACHABLE:
            return zone.state.security
        parent = self.parent(zone)
        above = self.security(parent)
        if above is not Security.SECURE:
            return above
        unvouched = zone.state in (State.UNSIGNED, State.ISLAND)
        return Security.BOGUS if unvouched and parent.state is State.LYING else zone.state.security

    def truth(self, question: Question) -> Outcome:
        """What a perfect resolver would say; a chain of aliases that leads nowhere is a failure."""
        name, secure = question.name, True
        seen: set[str] = set()
        while name not in seen:
            seen.add(name)
            zone = self.zone_of(name)
            security = self.security(zone)
            if security is Security.UNREACHABLE:
                return Outcome(kind=Kind.FAILURE)
            if security is Security.BOGUS:
                return Outcome(kind=Kind.BOGUS)
            step = self._step(zone, name, question.rrtype.name)
            if step.damaged and security is Security.SECURE:
                return Outcome(kind=Kind.BOGUS)
            secure = secure and security is Security.SECURE and not step.unproved
            if not step.target:
                return Outcome(kind=step.kind, secure=secure, canonical=name, rdata=step.rdata)
            name = step.target
        return Outcome(kind=Kind.FAILURE)

    def _step(self, zone: Zone, name: str, rrtype: str) -> _Step:
        """What one zone says of one name."""
        lies = zone.state is State.LYING
        above = name.partition(".")[2]
        while zone.contains(above):
            alias = zone.records.get(above, {}).get("DNAME")
            if alias and name not in zone.records:
                target = f"{name.removesuffix(above)}{alias[0].removesuffix('.')}"
                return _Step(target=target, damaged=(above, "DNAME") in zone.damages)
            if not above:
                break
            above = above.partition(".")[2]
        found = zone.find(name)
        # Proofs with the Opt-Out flag leave room for what they deny (RFC 5155 section 9.2); where hashing was to be a
        # burden, validators do not look at the proof (RFC 9276 section 3.2).
        heavy = zone.iterations >= TOO_MANY_ITERATIONS
        optional = zone.denial is Denial.OPT_OUT or heavy
        if found is None:
            return _Step(Kind.NXDOMAIN, damaged=lies, unproved=optional)
        rrsets, expanded = found
        kept = rrtype if rrtype in rrsets else "CNAME"
        if kept not in rrsets:
            return _Step(Kind.NODATA, damaged=lies, unproved=heavy or (optional and expanded))
        damaged = (name, kept) in zone.damages or (lies and expanded)
        if kept != rrtype:
            return _Step(target=rrsets[kept][0].removesuffix("."), damaged=damaged, unproved=optional and expanded)
        rdata = tuple(sorted(wire(rrtype, text) for text in rrsets[rrtype]))
        return _Step(Kind.RECORDS, rdata=rdata, damaged=damaged, unproved=optional and expanded)


@dataclass(frozen=True, slots=True)
class _Step:
    """What one zone says of one name: an answer, or another name to ask for.

    :param damaged: whether a validator must find fault with it.
    :param unproved: whether its proof is valid and leaves the thing open.
    """

    kind: Kind = Kind.RECORDS
    rdata: tuple[str, ...] = ()
    target: str = ""
    damaged: bool = False
    unproved: bool = False


def wire(rrtype: str, text: str) -> str:
    """RDATA as uncompressed wire octets in hexadecimal digits."""
    octets = dns.rdata.from_text("IN", rrtype, text).to_wire()
    assert octets is not None
    return octets.hex()
