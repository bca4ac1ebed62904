"""Reads the relay's log as anyone can: Postfix's status lines and TLS summary lines. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_STATUS = re.compile(
    r": (?P<queue_id>[0-9A-Za-z]{6,}): to=<(?P<recipient>[^>]*)>,(?: orig_to=<[^>]*>,)? relay=(?P<relay>[^,]+),"
    r"(?: conn_use=\d+,)? delay=[\d.]+, delays=[\d./]+,(?: tls=(?P<tls>[^,]+),)? dsn=(?P<dsn>\d\.\d+\.\d+),"
    r" status=(?P<status>[A-Za-z]+) \((?P<reason>.*)\)$"
)
_SESSION = re.compile(
    r": (?P<word>Verified|Trusted|Untrusted|Anonymous) TLS connection (?:established|reused) to"
    r" (?P<host>[^\[\s]+)\[(?P<address>[^\]]+)\]:(?P<port>\d+): (?P<protocol>\S+) with cipher (?P<cipher>\S+)"
)


@dataclass(frozen=True, slots=True)
class StatusLine:
    """What became of one recipient; ``relay`` is the host's name alone, or ``none``."""

    queue_id: str
    recipient: str
    relay: str
    tls: str
    dsn: str
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class SessionLine:
    """A TLS session was judged: Postfix's word for it."""

    word: str
    host: str
    address: str
    protocol: str
    cipher: str


def read_log(lines: Iterable[str]) -> Iterator[StatusLine | SessionLine]:
    """Every status and session line, in order; others say nothing about an outcome and are passed over."""
    for line in lines:
        if found := _STATUS.search(line):
            yield StatusLine(
                found["queue_id"],
                found["recipient"],
                found["relay"].partition("[")[0],
                found["tls"] or "",
                found["dsn"],
                found["status"],
                found["reason"],
            )
        elif found := _SESSION.search(line):
            yield SessionLine(found["word"], found["host"], found["address"], found["protocol"], found["cipher"])
