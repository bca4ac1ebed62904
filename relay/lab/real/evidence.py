"""What the hosts of a lab saw, on disk: records of scripted hosts as JSON lines, mail of real ones in maildirs."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relay.lab.real.layout import Laid
from relay.lab.real.plan import Server
from relay.lab.record import Command, Received, SessionRecord, TlsSeen

_WITH = re.compile(rb"\bwith\s+(?P<protocol>[A-Za-z0-9]*SMTP[A-Za-z]*)", re.IGNORECASE)


class EvidenceFile:
    """One host's file, added to as its sessions go on; the last line of a session counts.

    :param run: sets the sessions of this run of the host apart from those of others.
    """

    def __init__(self, path: Path, run: str) -> None:
        self._path = path
        self._run = run

    def add(self, record: SessionRecord) -> None:
        """Write down what is known of a session by now."""
        with self._path.open("a") as file:
            file.write(json.dumps({"session": f"{self._run}/{record.number}", **_as_json(record)}) + "\n")


def _as_json(record: SessionRecord) -> dict[str, Any]:
    tls = record.tls
    return {
        "peer": list(record.peer),
        "commands": [[one.line, one.encrypted] for one in record.commands],
        "tls": [tls.version, tls.cipher, tls.sni] if tls is not None else None,
        "tls_error": record.tls_error,
        "received": [
            {
                "sender": one.sender,
                "recipients": list(one.recipients),
                "wire": base64.b64encode(one.wire).decode(),
                "encrypted": one.encrypted,
                "accepted": one.accepted,
            }
            for one in record.received
        ],
        "ended": record.ended,
    }


def _from_json(facts: Mapping[str, Any]) -> SessionRecord:
    return SessionRecord(
        peer=(facts["peer"][0], facts["peer"][1]),
        commands=[Command(line, encrypted) for line, encrypted in facts["commands"]],
        tls=TlsSeen(*facts["tls"]) if facts["tls"] is not None else None,
        tls_error=facts["tls_error"],
        received=[
            Received(
                one["sender"],
                tuple(one["recipients"]),
                base64.b64decode(one["wire"]),
                one["encrypted"],
                one["accepted"],
            )
            for one in facts["received"]
        ],
        ended=facts["ended"],
    )


def read_evidence(laid: Laid) -> Mapping[str, tuple[SessionRecord, ...]]:
    """What every host of a lab saw until now, by host name."""
    return {
        name: _scripted(laid, name) if server is Server.SCRIPTED else _mailbox(laid, name)
        for name, server in laid.plan.servers.items()
    }


def _scripted(laid: Laid, name: str) -> tuple[SessionRecord, ...]:
    path = laid.evidence / f"{name}.jsonl"
    sessions: dict[str, SessionRecord] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                facts = json.loads(line)
            except ValueError:
                continue  # the last line, half written
            sessions[facts["session"]] = _from_json(facts)
    return tuple(sessions.values())


def _mailbox(laid: Laid, name: str) -> tuple[SessionRecord, ...]:
    """A delivered message is all that a real server leaves behind; its Received field says how it came."""
    folder = laid.mailboxes / name / "new"
    files = sorted(folder.iterdir()) if folder.exists() else []
    return tuple(_delivered(file.read_bytes()) for file in files)


def _delivered(content: bytes) -> SessionRecord:
    lines = content.replace(b"\r\n", b"\n").split(b"\n")
    wire = b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines)
    found = _WITH.search(content)
    encrypted = found is not None and found["protocol"].upper().removesuffix(b"A").endswith(b"S")
    message = Received("", (), wire, encrypted, accepted=True)
    return SessionRecord(peer=("", 0), commands=[Command("MAIL", encrypted)], received=[message], ended=True)
