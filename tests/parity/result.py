"""Turning cases into maps, and what logs say into results that are the same on every machine."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from relay.lab.ca import fingerprint
from tests.parity.case import Group, Result

FILE = Path(__file__).with_name("postfix-3.7.json")
_ADDRESS = re.compile(r"\[127\.[0-9.]+\](?::[0-9]+)?")
_PLACE = re.compile(r"(?<=:)[0-9]{4,5}\b")
# Postfix says of a trust anchor file that it cannot read without naming the destination.
_PREFIX = re.compile(r"smtp_tls_policy_maps, next-hop destination \"[^\"]*\": |(?=error opening trust anchor file)")


def digests(leaf: x509.Certificate) -> dict[str, str]:
    """The SHA-256 digests of a certificate and of its public key, as fingerprints."""
    spki = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {"leaf": fingerprint(leaf), "key": hashlib.sha256(spki).hexdigest()}


def expanded(group: Group, places: Mapping[str, Mapping[str, str]], directory: Path) -> tuple[tuple[str, ...], Path]:
    """Write a group's maps; gives ``tls_policy_maps`` and the file of the transport map.

    :param places: what stands for what in lines and routes, by case.
    """
    lines, transport = directory / "tls_policy", directory / "transport"
    lines.write_text("".join(f"{_filled(line, places[case.name])}\n" for case in group.cases for line in case.lines))
    transport.write_text(
        "".join(f"{case.destination} {_filled(case.route, places[case.name])}\n" for case in group.cases if case.route)
    )
    for name, text in group.files.items():
        (directory / name).write_text(text)
    named = {"lines": str(lines), "directory": str(directory)}
    return tuple(_filled(spec, named) for spec in group.maps), transport


def _filled(text: str, places: Mapping[str, str]) -> str:
    """A line with its places filled in; other braces are Postfix's."""
    for name, value in places.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def without_addresses(reason: str) -> str:
    """The reason without what differs from run to run."""
    return _PLACE.sub("PORT", _ADDRESS.sub("[ADDRESS]", reason))


def told(warnings: Iterable[str]) -> tuple[str, ...]:
    """What warnings say of a line, once each."""
    return tuple(dict.fromkeys(filter(None, map(_told, warnings))))


def _told(warning: str) -> str:
    found = _PREFIX.match(warning)
    return without_addresses(warning[found.end() :]) if found else ""


def read_results(path: Path = FILE) -> dict[str, Result]:
    """The committed results."""
    return {
        name: Result(**{**row["postfix"], "warnings": tuple(row["postfix"]["warnings"])})
        for name, row in json.loads(path.read_text())["results"].items()
    }


def written(groups: Iterable[Group], results: Mapping[str, Result], how: str) -> str:
    """The file's text: each case beside what came of it, one line each."""
    rows = ",\n".join(_rows(groups, results))
    return f'{{"how": {json.dumps(how)},\n"results": {{\n{rows}\n}}}}\n'


def _rows(groups: Iterable[Group], results: Mapping[str, Result]) -> Iterator[str]:
    for group in groups:
        for case in group.cases:
            row = {
                "group": group.name,
                "lines": case.lines,
                "destination": case.destination,
                **({"route": case.route} if case.route else {}),
                "host": case.posture.value.words,
                "postfix": asdict(results[case.name]),
            }
            yield f"{json.dumps(case.name)}: {json.dumps(row)}"
