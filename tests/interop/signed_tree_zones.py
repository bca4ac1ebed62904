"""The tree that the validators are asked about: three top-level domains with the same zones, signed in three ways.

Everything follows from one seed. Every zone of ``grow`` stands for one thing that can be right or wrong.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Final

from relay.dns.answer import RRType
from tests.interop.signed_tree import TOO_MANY_ITERATIONS, Damage, Denial, Kind, Question, Security, State, Tree, Zone

SEED: Final = 7672
CHAINS: Final = 12
"""Random alias chains below each top-level domain."""
MAIL_TYPES: Final = (RRType.MX, RRType.A, RRType.AAAA)


@dataclass(frozen=True, slots=True)
class Variant:
    """How one top-level domain and all below it is signed."""

    name: str
    algorithm: str
    denial: Denial
    iterations: int
    signer: str


VARIANTS: Final = (
    Variant("ec", "ECDSAP256SHA256", Denial.NSEC, 0, "ldns-signzone"),
    Variant("rsa", "RSASHA256", Denial.NSEC3, 5, "dnssec-signzone"),
    Variant("ed", "ED25519", Denial.OPT_OUT, 0, "ldns-signzone"),
)

NAME_SERVERS: Final = {
    "root.infra": "198.51.100.1",
    "top.infra": "198.51.100.2",
    "leaf.infra": "198.51.100.3",
    "poor.infra": "198.51.100.4",  # answers SERVFAIL or REFUSED
    "dead.infra": "198.51.100.5",
    "silent.infra": "198.51.100.6",
}


def server_of(zone: Zone) -> str:
    """The name of the server that the zone is delegated to."""
    match zone.state:
        case State.REFUSED | State.SERVFAIL:
            return "poor.infra"
        case State.DEAD:
            return "dead.infra"
        case State.SILENT:
            return "silent.infra"
        case _:
            if not zone.name:
                return "root.infra"
            return "leaf.infra" if "." in zone.name else "top.infra"


def grow(seed: int = SEED) -> tuple[Tree, tuple[Question, ...]]:
    """The tree and what is asked about it; the same seed gives the same."""
    forest = _Forest(random.Random(seed))
    for variant in VARIANTS:
        forest.plant(variant)
    forest.tangle()
    tree = Tree({zone.name: zone for zone in forest.zones})
    return tree, tuple(dict.fromkeys(question for zone in forest.zones for question in _questions(tree, zone)))


class _Forest:
    """The zones while they are being filled."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._hosts = count(1)
        root = Variant("", "ECDSAP256SHA256", Denial.NSEC, 0, "ldns-signzone")
        self.zones = [_zone(root, "", State.SIGNED), _zone(root, "infra", State.SIGNED)]
        for server, address in NAME_SERVERS.items():
            self.zones[1].add(server.removesuffix(".infra"), "A", address)

    def plant(self, variant: Variant) -> None:
        """One top-level domain with its zones."""
        top = _zone(variant, variant.name, State.SIGNED)
        top.absent += ["nope", "_25._tcp.nope"]
        self.zones.append(top)

        def zone(label: str, state: State) -> Zone:
            made = _zone(variant, f"{label}.{variant.name}", state)
            if made.denial is Denial.OPT_OUT and label != "optout":
                made.denial = Denial.NSEC3  # Opt-Out is for zones with many delegations
            self.zones.append(made)
            return made

        self._furnish(zone("good", State.SIGNED))
        self._furnish(plain := zone("plain", State.UNSIGNED))
        plain.add("outsourced", "MX", f"10 mx1.good.{variant.name}.")
        self._furnish(zone("optout", State.SIGNED))
        self._wild(zone("wild", State.SIGNED))
        self._wild(zone("wildplain", State.UNSIGNED))
        self._sick(zone("sick", State.SIGNED))
        for label, state in (
            ("sub.good", State.SIGNED),
            ("open.good", State.UNSIGNED),
            ("signed.plain", State.SIGNED),  # a chain of trust that is cut above
            ("expired.plain", State.EXPIRED),
            ("liar", State.LYING),
            ("child.liar", State.UNSIGNED),
            ("trusty.liar", State.SIGNED),
            ("wild.optout", State.UNSIGNED),
        ):
            self._mail(zone(label, state))
        for state in State:
            if state not in (State.SIGNED, State.UNSIGNED, State.LYING):
                self._mail(zone(state.name.lower().replace("_", "-"), state))
        many = zone("iterations", State.SIGNED)
        many.denial, many.iterations, many.signer = Denial.NSEC3, TOO_MANY_ITERATIONS, "ldns-signzone"
        self._mail(many)
        liar = next(one for one in self.zones if one.name == f"liar.{variant.name}")
        liar.add("*.wild", "A", self._address())
        liar.absent.append("any.wild")
        self._aliases(zone("alias", State.SIGNED), variant.name)

    def _address(self) -> str:
        return f"192.0.2.{next(self._hosts) % 250 + 1}"

    def _tlsa(self, matching: int = 1) -> str:
        return f"3 1 {matching} {self._rng.randbytes(32 * matching).hex()}"

    def _host(self, zone: Zone, label: str, *, tlsa: int = 1) -> None:
        zone.add(label, "A", self._address())
        if self._rng.random() < 0.5:
            zone.add(label, "AAAA", f"2001:db8::{self._rng.randrange(1, 65536):x}")
        if tlsa:
            zone.add(f"_25._tcp.{label}", "TLSA", *(self._tlsa() for _ in range(tlsa)))

    def _mail(self, zone: Zone) -> None:
        """The least that a mail domain has."""
        zone.add("@", "MX", f"10 mx1.{zone.name}.")
        self._host(zone, "mx1")
        zone.absent += ["nope"]

    def _furnish(self, zone: Zone) -> None:
        """Hosts with everything, with a large TLSA RRset, and with every way of having no TLSA record."""
        zone.add("@", "MX", f"10 mx1.{zone.name}.", f"20 mx2.{zone.name}.")
        self._host(zone, "@", tlsa=0)
        self._host(zone, "mx1", tlsa=2)
        self._host(zone, "mx2", tlsa=0)
        zone.add("_443._tcp.mx2", "TLSA", self._tlsa())  # _tcp.mx2 is empty, _25._tcp.mx2 does not exist
        zone.add("mx3", "AAAA", "2001:db8::3")
        zone.add("_25._tcp.mx3", "TXT", '"no TLSA record"')
        self._host(zone, "big", tlsa=0)
        zone.add("_25._tcp.big", "TLSA", *(self._tlsa(2) for _ in range(60)))
        zone.add("null", "MX", "0 .")
        self._host(zone, "implicit")
        zone.add("deep.a.b", "A", self._address())  # a.b and b are empty
        zone.add("_25._tcp.alias", "CNAME", f"_25._tcp.mx1.{zone.name}.")
        zone.add("alias", "CNAME", f"mx1.{zone.name}.")
        zone.add("fallback", "CNAME", f"mx2.{zone.name}.")  # TLSA at the alias alone (RFC 7672 section 2.2.2)
        zone.add("_25._tcp.fallback", "TLSA", self._tlsa())
        zone.absent += ["nope", "nope.mx1", "a.b", "b", "_tcp.mx2", "other.a.b"]

    def _wild(self, zone: Zone) -> None:
        """Wildcards, and what stands in their way (RFC 4592)."""
        zone.add("*", "MX", f"10 mx1.hosts.{zone.name}.")
        zone.add("*.hosts", "A", self._address())
        zone.add("exists.hosts", "TXT", '"in the way of the wildcard"')
        zone.add("*.alias", "CNAME", f"mx1.hosts.{zone.name}.")
        zone.add("*._tcp.mx", "TLSA", self._tlsa())
        zone.add("*.tlsa", "TLSA", self._tlsa())
        zone.add("mx", "A", self._address())
        zone.absent += ["any", "two.labels", "x.hosts", "y.z.hosts", "under.exists.hosts", "some.alias", "any.mx"]
        zone.absent += ["_25._tcp.tlsa", "_25._tcp.x.tlsa", "hosts", "_tcp.mx", "_25._tcp.mx", "_465._tcp.mx"]

    def _sick(self, zone: Zone) -> None:
        """One RRset of each host damaged, all others sound."""
        zone.add("@", "MX", f"10 fine.{zone.name}.", f"20 missing.{zone.name}.")
        self._host(zone, "fine")
        for damage in Damage:
            label = damage.name.lower().replace("_", "-")
            zone.add(label, "A", self._address(), damage=damage)
            zone.add(f"mail.{label}", "MX", f"10 fine.{zone.name}.", damage=damage)
            zone.add(f"host.{label}", "A", self._address())
            zone.add(f"_25._tcp.host.{label}", "TLSA", self._tlsa(), damage=damage)
            zone.add(f"alias.{label}", "CNAME", f"fine.{zone.name}.", damage=damage)

    def _aliases(self, zone: Zone, top: str) -> None:
        """Aliases towards every kind of zone, a long chain, a loop and a DNAME."""
        for other in [one for one in self.zones if one.name.endswith(f".{top}")]:
            if f"mx1.{other.name}" in other.records:
                label = f"to-{other.name.removesuffix(f'.{top}').replace('.', '-')}"
                zone.add(label, "CNAME", f"mx1.{other.name}.")
                zone.add(f"_25._tcp.{label}", "CNAME", f"_25._tcp.mx1.{other.name}.")
        for target in ("nope.good", "mx3.good", "_25._tcp.mx3.good", "x.hosts.wild", "nope.plain", "nope.optout"):
            zone.add(f"to-{target.replace('.', '-').lstrip('_')}", "CNAME", f"{target}.{top}.")
        zone.add("domain", "CNAME", f"good.{top}.")
        zone.add("hosted", "CNAME", f"mx1.plain.{top}.")  # insecure, but its first step is secure
        zone.add("_25._tcp.hosted", "TLSA", self._tlsa())
        for number in range(8):
            zone.add(f"long{number}", "CNAME", f"long{number + 1}.{zone.name}.")
        zone.add("long8", "CNAME", f"mx1.good.{top}.")
        zone.add("loop1", "CNAME", f"loop2.{zone.name}.")
        zone.add("loop2", "CNAME", f"loop1.{zone.name}.")
        zone.add("moved", "DNAME", f"good.{top}.")
        zone.add("moved-out", "DNAME", f"plain.{top}.")
        for moved in ("moved", "moved-out"):
            zone.absent += [f"mx1.{moved}", f"_25._tcp.mx1.{moved}", f"nope.{moved}"]

    def tangle(self) -> None:
        """Random chains of aliases through secure and insecure zones of all top-level domains, to any end.

        At most the last zone is bogus or dead: which of two faults a resolver meets first is its own affair.
        """
        tree = Tree({zone.name: zone for zone in self.zones})
        ends = sorted(
            owner
            for zone in self.zones
            if "." in zone.name
            for owner in (*zone.records, *map(zone.owner, zone.absent))
            if "*" not in owner and not owner.startswith(("loop", "_")) and zone.state is not State.SILENT
        )
        sound = [
            zone
            for zone in self.zones
            if "." in zone.name
            and tree.security(zone) in (Security.SECURE, Security.INSECURE)
            and zone.state is not State.LYING
            and zone.iterations != TOO_MANY_ITERATIONS
            and "*" + f".{zone.name}" not in zone.records
        ]
        for number in range(CHAINS * len(VARIANTS)):
            end = self._rng.choice(ends)
            path = [(self._rng.choice(sound), f"r{number}x{step}") for step in range(self._rng.randint(1, 4))]
            for (zone, label), (after, next_label) in pairwise(path):
                zone.add(label, "CNAME", f"{next_label}.{after.name}.")
                zone.add(f"_25._tcp.{label}", "CNAME", f"_25._tcp.{next_label}.{after.name}.")
            zone, label = path[-1]
            zone.add(label, "CNAME", f"{end}.")
            zone.add(f"_25._tcp.{label}", "CNAME", f"_25._tcp.{end}.")


def _zone(variant: Variant, name: str, state: State) -> Zone:
    return Zone(
        name=name,
        state=state,
        algorithm=variant.algorithm,
        signer=variant.signer,
        denial=variant.denial,
        iterations=variant.iterations,
    )


def _questions(tree: Tree, zone: Zone) -> list[Question]:
    """What a mail relay asks: MX and addresses of a name, TLSA below it, CNAME of some aliases."""
    asked: list[Question] = []
    names = [owner for owner in zone.records if not owner.startswith("*")] + [zone.owner(one) for one in zone.absent]
    for name in names:
        if name.startswith("_"):
            asked.append(Question(name, RRType.TLSA))
        elif zone.state is State.SILENT:  # each of these takes as long as everybody's patience
            asked.append(Question(name, RRType.MX if name == zone.name else RRType.A))
        else:
            asked += [Question(name, rrtype) for rrtype in (MAIL_TYPES if name in zone.records else MAIL_TYPES[:2])]
            asked.append(Question(f"_25._tcp.{name}", RRType.TLSA))
            asked += [Question(name, RRType.CNAME)] if _alias_is_asked_for(tree, zone, name) else []
    return asked


def _alias_is_asked_for(tree: Tree, zone: Zone, name: str) -> bool:
    """Whether a relay may come to ask for the CNAME record itself: where the alias leads to something, or is damaged.

    (RFC 7672 section 2.1.3. Where an alias leads to a name that does not exist, Unbound 1.17 with ``qname-minimisation``
    answers CNAME and A questions that come at the same time with each other's records.)
    """
    if "CNAME" not in zone.records.get(name, {}):
        return False
    end = tree.truth(Question(name, RRType.A))
    return end.kind in (Kind.RECORDS, Kind.NODATA) or (name, "CNAME") in zone.damages
