"""Attacks on destinations of a running lab, and how its parts learn of them: a file that says what is under attack now.

``dane-relay lab attack`` and ``heal`` write the file; who plays hosts or serves zones looks at it and follows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from relay.lab.ca import Authority, CertificateKind
from relay.lab.destination import Destination
from relay.lab.mx import Receiver
from relay.lab.script import Script, StartTls

LOOK_SECONDS = 0.2
_WANTED, _DONE = "attacks.json", "attacks.done.json"


class Attack(Enum):
    """What an attacker between relay and host, or whoever runs the host badly, does."""

    STRIP = "strip"
    SWAP = "swap"
    EXPIRE = "expire"
    BOGUS = "bogus"
    INJECT = "inject"

    @property
    def meaning(self) -> str:
        """In a few words."""
        return _MEANING[self]


_MEANING: Mapping[Attack, str] = {
    Attack.STRIP: "STARTTLS is no longer offered",
    Attack.SWAP: "another certificate is presented",
    Attack.EXPIRE: "an expired certificate is presented",
    Attack.BOGUS: "the signatures of the zone are wrong",
    Attack.INJECT: "a reply in the clear is slipped in behind the 220 to STARTTLS",
}
_SCRIPTS: Mapping[Attack, StartTls] = {Attack.STRIP: StartTls.ABSENT, Attack.INJECT: StartTls.INJECTED}
_CERTIFICATES: Mapping[Attack, CertificateKind] = {
    Attack.SWAP: CertificateKind.UNKNOWN_CA,
    Attack.EXPIRE: CertificateKind.EXPIRED,
}

Attacks = Mapping[str, Attack]
"""What is under attack, by the name of the destination."""


@dataclass(frozen=True, slots=True)
class Board:
    """Where attacks are written down, in the lab's directory."""

    directory: Path

    def wanted(self) -> Attacks:
        """What is to be under attack; a file that cannot be read says nothing."""
        return _read(self.directory / _WANTED)

    def done(self) -> Attacks:
        """What is under attack, as far as those who play the lab have followed."""
        return _read(self.directory / _DONE)

    def want(self, attacks: Attacks) -> None:
        """Say what is to be under attack from now on."""
        _write(self.directory / _WANTED, attacks)

    def follow(self, attacks: Attacks) -> None:
        """Say that it is done."""
        _write(self.directory / _DONE, attacks)


def _read(path: Path) -> Attacks:
    try:
        return {str(name): Attack(word) for name, word in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _write(path: Path, attacks: Attacks) -> None:
    """Whole or not at all: others may be reading."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps({name: attack.value for name, attack in attacks.items()}) + "\n")
    temporary.replace(path)


def prepare(authority: Authority, names: Mapping[str, Path], directory: Path) -> None:
    """Issue what attacked hosts present, beside what they present now.

    :param names: PEM file by host name.
    :param directory: takes the files; see ``credential``.
    """
    directory.mkdir(exist_ok=True)
    for attack, kind in _CERTIFICATES.items():
        for name in names:
            authority.issue(kind, name, credential(directory, name, attack))


def credential(directory: Path, host: str, attack: Attack) -> Path:
    """The PEM file that a host presents under an attack."""
    return directory / f"{host}.{attack.value}.pem"


@dataclass(slots=True)
class Stage:
    """A host that can be attacked.

    :param script: how it behaves in peace.
    :param pem_file: what it presents then.
    :param attackers: the directory with what it presents under attack.
    """

    receiver: Receiver
    script: Script
    pem_file: Path
    attackers: Path

    def play(self, attack: Attack | None) -> None:
        """Behave so from the next session on."""
        starttls = _SCRIPTS.get(attack) if attack is not None else None
        self.receiver.script = replace(self.script, starttls=starttls) if starttls is not None else self.script
        swapped = attack is not None and attack in _CERTIFICATES
        self.receiver.pem_file = (
            credential(self.attackers, self.receiver.host, attack) if swapped and attack is not None else self.pem_file
        )


def play(attacks: Attacks, destinations: Mapping[str, Destination], stages: Mapping[str, Stage]) -> None:
    """Let every host of every destination behave as its destination's attack says."""
    for destination in destinations.values():
        for host in destination.hosts:
            if host.name in stages:
                stages[host.name].play(attacks.get(destination.name))
