"""Chains of every kind that a server might present, from a seed: sound ones, and ones in which one or two things are odd.

Keys come from a small pool. A seed gives the same octets each time, so that a difference found once can be found again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from tests import pki
from tests.pki import Cert, PrivateKey

MAX_DEPTH: Final = 4
NAMES: Final = ("mx1.mail.example", "example.org")
"""Reference identifiers of most cases: the TLSA base domain and the next-hop."""

OTHER_NAMES: Final = (("mx_1.mail.example", "example.org"), ("xn--fa-hia.example", "example.net"))
ANY_PURPOSE: Final = x509.ObjectIdentifier("2.5.29.37.0")
UNKNOWN_EXTENSION: Final = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")
_KEY_USAGES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def key_usage(*allowed: str) -> x509.KeyUsage:
    """The extension that allows just these."""
    return x509.KeyUsage(**{usage: usage in allowed for usage in _KEY_USAGES})


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """What a server presents, and how it came about.

    :param presented: as sent, leaf first.
    :param line: the certificates that were made one by the other, leaf first: ``line[depth]``; not all may be presented.
    :param beside: the others that were made: junk, twins, cross-signed ones and who signed them.
    :param quirks: what is odd about it, for people.
    """

    presented: tuple[Cert, ...]
    line: tuple[Cert, ...]
    beside: tuple[Cert, ...]
    names: tuple[str, ...]
    quirks: tuple[str, ...]

    @property
    def depth(self) -> int:
        """Of the last certificate of the line; 0 for a leaf that signed itself."""
        return len(self.line) - 1


class KeyPool:
    """Keys to be used again and again: what they are does not matter, making them takes time."""

    def __init__(self) -> None:
        self._usual: list[PrivateKey] = [
            *(ec.derive_private_key(1000 + number, ec.SECP256R1()) for number in range(40)),
            *(ec.derive_private_key(2000 + number, ec.SECP384R1()) for number in range(4)),
            *(ed25519.Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(8)),
        ]
        self.rsa: list[rsa.RSAPrivateKey] = [rsa_key(number, bits) for number, bits in enumerate((1024, 1024, 2048))]
        self.small = pki.small_rsa_key()

    def choose(self, random_: random.Random) -> PrivateKey:
        """Any sound key; two certificates may well get the same."""
        return random_.choice(self.rsa) if random_.random() < 0.06 else random_.choice(self._usual)


def rsa_key(seed: int, bits: int) -> rsa.RSAPrivateKey:
    """The same key each time, which the library cannot make."""
    primes: list[int] = []
    random_ = random.Random(seed)
    while len(primes) < 2:
        candidate = random_.getrandbits(bits // 2) | 3 << bits // 2 - 2 | 1
        if all(candidate % small for small in range(3, 2000, 2)) and pow(2, candidate - 1, candidate) == 1:
            primes.append(candidate)
    p, q = primes
    d = rsa.rsa_recover_private_exponent(65537, p, q)
    public = rsa.RSAPublicNumbers(65537, p * q)
    exponents = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
    return rsa.RSAPrivateNumbers(p, q, d, *exponents, public).private_key()


@dataclass(slots=True)
class _Plan:
    """How one certificate is to be made, before it is."""

    common_names: tuple[str, ...]
    san: list[x509.GeneralName] = field(default_factory=list)
    dates: tuple[datetime, datetime] = pki.VALID
    ca: bool | None = None
    path_length: int | None = None
    eku: tuple[x509.ObjectIdentifier, ...] = ()
    extensions: list[x509.ExtensionType] = field(default_factory=list)
    critical: list[x509.ExtensionType] = field(default_factory=list)
    key: PrivateKey | None = None
    forged: bool = False
    sha1: bool = False


_Fault = Callable[[_Plan, "Chains"], None]


def _set(**values: Any) -> _Fault:  # fields of _Plan: ``setattr`` takes anything
    def change(plan: _Plan, _: Chains) -> None:
        for name, value in values.items():
            setattr(plan, name, value)

    return change


def _add(extension: x509.ExtensionType) -> _Fault:
    def change(plan: _Plan, _: Chains) -> None:
        others = [each for each in plan.extensions if each.oid != extension.oid]
        plan.extensions = [*others, extension]

    return change


def _small_key(plan: _Plan, chains: Chains) -> None:
    plan.key = chains.keys.small


_ANYWHERE: Final[dict[str, _Fault]] = {
    "expired": _set(dates=pki.EXPIRED),
    "not yet valid": _set(dates=pki.FUTURE),
    "for clients only": _set(eku=(pki.CLIENT_AUTH,)),
    "for any purpose": _set(eku=(ANY_PURPOSE,)),
    "for servers and clients": _set(eku=(pki.SERVER_AUTH, pki.CLIENT_AUTH)),
    "small key": _small_key,
    "forged": _set(forged=True),
    "signed with SHA-1": _set(sha1=True),
    "unknown critical extension": _set(critical=[UNKNOWN_EXTENSION]),
}
_LEAF: Final[dict[str, _Fault]] = {
    "leaf is a CA": _set(ca=True),
    "leaf is no CA": _set(ca=False),
    "key usage for signatures": _add(key_usage("digital_signature")),
    "key usage for certificates only": _add(key_usage("key_cert_sign")),
    "key usage for nothing known": _add(key_usage("data_encipherment")),
}
_CA: Final[dict[str, _Fault]] = {
    "no basic constraints": _set(ca=None),
    "no basic constraints, but key usage": _set(ca=None, extensions=[key_usage("key_cert_sign")]),
    "no CA": _set(ca=False),
    "path length 0": _set(path_length=0),
    "path length 1": _set(path_length=1),
    "key usage for certificates": _add(key_usage("key_cert_sign", "crl_sign")),
    "key usage without certificates": _add(key_usage("digital_signature")),
    "name constraints met": _add(x509.NameConstraints([x509.DNSName("example"), x509.DNSName("example.org")], None)),
    "name constraints not met": _add(x509.NameConstraints([x509.DNSName("elsewhere.test")], None)),
    "names excluded": _add(x509.NameConstraints(None, [x509.DNSName("mail.example")])),
}


class Chains:
    """Makes chains from one seed."""

    def __init__(self, seed: int, keys: KeyPool) -> None:
        self.random = random.Random(seed)
        self.keys = keys
        self._made = 0
        self._junk: list[Cert] = []
        for number in range(6):
            root = self._issue(_Plan((f"Junk {number}",), ca=True, key=keys.choose(self.random)), None)
            leaf = _Plan((), [x509.DNSName("junk.example")], key=keys.choose(self.random))
            self._junk += [root, self._issue(leaf, root)]

    def make(self) -> Chain:
        """One more chain."""
        depth = self.random.choices(range(MAX_DEPTH + 1), (4, 18, 22, 24, 32))[0]
        names = NAMES if self.random.random() < 0.9 else self.random.choice(OTHER_NAMES)
        self._made += 1
        plans, quirks = self._plans(depth, names)
        line = self._line(plans)
        presented, beside, more = self._presented(line, plans)
        return Chain(tuple(presented), tuple(line), tuple(beside), names, tuple(quirks + more))

    def _plans(self, depth: int, names: Sequence[str]) -> tuple[list[_Plan], list[str]]:
        """A plan for each certificate of a line, leaf first, with up to two faults."""
        leaf, quirk = self._leaf(names)
        quirks = [quirk] if quirk else []
        plans = [leaf]
        plans += [_Plan((f"CA {self._made}.{above}",), ca=True) for above in range(1, depth + 1)]
        for plan in plans:
            plan.key = self.keys.choose(self.random)
            if self.random.random() < 0.2 and plan is not leaf:
                plan.extensions.append(x509.SubjectKeyIdentifier.from_public_key(plan.key.public_key()))
        for _ in range(self.random.choices((0, 1, 2), (60, 30, 10))[0]):
            at = self.random.randrange(depth + 1)
            faults = _ANYWHERE | (_CA if at else _LEAF)
            name = self.random.choice(sorted(faults))
            faults[name](plans[at], self)
            if plans[at].sha1 and at < depth:
                plans[at + 1].key = self.random.choice(self.keys.rsa)
            quirks.append(f"{name} at depth {at}")
        return plans, quirks

    def _leaf(self, names: Sequence[str]) -> tuple[_Plan, str]:
        """The plan of a leaf, and what is odd about its names."""
        base, next_hop = names
        parent = base.partition(".")[2]
        kinds: dict[str, tuple[Sequence[str], Sequence[str]]] = {
            "next-hop": (["x"], [next_hop]),
            "wildcard": ([], [f"*.{parent}"]),
            "wildcard of the next-hop": ([], [f"*.{next_hop}"]),
            "partial wildcard": ([], [f"{base[:2]}*.{parent}", f"*{base[2:]}"]),
            "wildcard too high": ([], ["*.org", "*.net", "*.*.example", "*"]),
            "wildcard in the middle": ([], [f"{base.partition('.')[0]}.*.example"]),
            "CN only": ([base], []),
            "wildcard CN only": ([f"*.{parent}"], []),
            "CN beside another SAN": ([base], ["other.example"]),
            "wrong CN only": (["other.example"], []),
            "wrong names": ([], ["other.example", "mail.example", f"x.{base}"]),
            "no names": ([], []),
            "upper case": ([], [base.upper()]),
            "trailing dot": ([], [base + "."]),
            "several CNs, the last right": (["other.example", base], []),
            "several CNs, the first right": ([base, "other.example"], []),
            "empty SAN": ([base], [""]),
        }
        if self.random.random() < 0.75:
            return _Plan(("leaf",), [x509.DNSName("other.example"), x509.DNSName(base)]), ""
        kind = self.random.choice(sorted(kinds))
        common_names, dns = kinds[kind]
        plan = _Plan(tuple(common_names), [x509.DNSName(name) for name in dns])
        if self.random.random() < 0.1:
            plan.san.append(x509.RFC822Name("postmaster@example.org"))
            kind += " and an address"
        return plan, f"leaf: {kind}"

    def _line(self, plans: Sequence[_Plan]) -> list[Cert]:
        """Certificates by their plans, each signed by the next one."""
        line: list[Cert] = []
        above: Cert | None = None
        for plan in reversed(plans):
            above = self._issue(plan, above)
            line.insert(0, above)
        return line

    def _issue(self, plan: _Plan, issuer: Cert | None) -> Cert:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in plan.common_names])
        extensions = list(plan.extensions)
        if plan.san:
            extensions.append(x509.SubjectAlternativeName(plan.san))
        if plan.ca is not None:
            extensions.append(x509.BasicConstraints(ca=plan.ca, path_length=plan.path_length if plan.ca else None))
        if issuer is not None and self.random.random() < 0.15:
            extensions.append(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()))
        signer = issuer
        if plan.forged and issuer is not None:  # by another key under the issuer's name
            signer = Cert(issuer.certificate, self.keys.choose(self.random))
        cert = pki.make(
            subject=subject,
            issuer=signer,
            dates=plan.dates,
            eku=plan.eku,
            key=plan.key,
            extensions=extensions,
            critical=plan.critical,
            serial=self.random.getrandbits(150) | 1 << 149,
        )
        if plan.sha1 and signer is not None and isinstance(signer.key, rsa.RSAPrivateKey):
            return Cert(x509.load_der_x509_certificate(pki.signed_with_sha1(cert, signer)), cert.key)
        return cert

    def _presented(self, line: list[Cert], plans: Sequence[_Plan]) -> tuple[list[Cert], list[Cert], list[str]]:
        """What is sent of a line, what else was made for that, and what is odd about it."""
        sent, beside, quirks = list(line), list[Cert](), list[str]()
        odds = (
            (0.15, "another issuer of the same name", self._cross),
            (0.14, "a twin of an issuer with another key", self._twin),
            (0.20, "junk", self._junk_among),
            (0.12, "a certificate twice", self._twice),
            (0.12, "one missing", self._missing),
            (0.18, "misordered", self._shuffled),
        )
        if len(line) > 1 and self.random.random() < 0.3:
            sent.pop()
            quirks.append("root not sent")
        for chance, name, change in odds:
            if self.random.random() < chance and change(sent, line, plans, beside):
                quirks.append(name)
        return sent, beside, quirks

    def _place(self, sent: list[Cert], cert: Cert) -> None:
        sent.insert(self.random.randrange(1, len(sent) + 1), cert)

    def _cross(self, sent: list[Cert], line: list[Cert], plans: Sequence[_Plan], beside: list[Cert]) -> bool:
        """An authority has a second certificate, by another root, of other dates or by itself."""
        if len(line) < 2:
            return False
        at = self.random.randrange(1, len(line))
        plan = _Plan(plans[at].common_names, ca=True, key=line[at].key)
        plan.dates = self.random.choice((pki.VALID, pki.VALID, pki.EXPIRED, pki.FUTURE))
        root = _Plan((f"Other root {self._made}",), ca=True, key=self.keys.choose(self.random))
        other = self.random.choice((None, self._issue(root, None)))
        cross = self._issue(plan, other)
        beside.append(cross)
        self._place(sent, cross)
        if other is not None:
            beside.append(other)
            if self.random.random() < 0.6:
                self._place(sent, other)
        return True

    def _twin(self, sent: list[Cert], line: list[Cert], plans: Sequence[_Plan], beside: list[Cert]) -> bool:
        """Somebody else has the name of an authority."""
        if len(line) < 2:
            return False
        at = self.random.randrange(1, len(line))
        issuer = self.random.choice((None, *line[at + 1 : at + 2]))
        twin = self._issue(_Plan(plans[at].common_names, ca=True, key=self.keys.choose(self.random)), issuer)
        beside.append(twin)
        self._place(sent, twin)
        return True

    def _junk_among(self, sent: list[Cert], line: list[Cert], plans: Sequence[_Plan], beside: list[Cert]) -> bool:
        for junk in self.random.sample(self._junk, self.random.randint(1, 2)):
            beside.append(junk)
            self._place(sent, junk)
        return True

    def _twice(self, sent: list[Cert], line: list[Cert], plans: Sequence[_Plan], beside: list[Cert]) -> bool:
        self._place(sent, self.random.choice(sent))
        return True

    def _missing(self, sent: list[Cert], line: list[Cert], plans: Sequence[_Plan], beside: list[Cert]) -> bool:
        if len(sent) < 2:
            return False
        sent.pop(self.random.randrange(1, len(sent)))
        return True

    def _shuffled(self, sent: list[Cert], line: list[Cert], plans: Sequence[_Plan], beside: list[Cert]) -> bool:
        above = sent[1:]
        self.random.shuffle(above)
        sent[1:] = above
        return len(above) > 1
