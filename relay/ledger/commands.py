"""What commands ask of the ledger, the same of a running relay and of the file alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final

from relay.ledger.file import LedgerFile
from relay.ledger.findings import count_object
from relay.policy.ratchet import Best, Mark

AUDITS: Final = "policy audit"
FORGET_AUDITS: Final = "policy audit forget"
RATCHET: Final = "ratchet list"
FORGET_MARK: Final = "ratchet forget"
COMMANDS: Final = (AUDITS, FORGET_AUDITS, RATCHET, FORGET_MARK)


def answer(file: LedgerFile, command: str, destination: str) -> Sequence[Mapping[str, object]]:
    """Carry out a command.

    :param command: one of ``COMMANDS``.
    :param destination: a key of policy maps; empty for all.
    :raises LedgerUnavailable: if the file cannot be read or written.
    :raises ValueError: if there is no such command.
    """
    match command:
        case "policy audit":
            return [count_object(each) for each in file.audits() if destination in {"", each.destination}]
        case "policy audit forget":
            return [{"forgotten": file.forget_audits(destination)}]
        case "ratchet list":
            return [mark_object(key, best) for key, best in file.marks().items() if destination in {"", key}]
        case "ratchet forget":
            return [{"forgotten": file.forget_marks(destination)}]
        case _:
            raise ValueError(f"unknown command {command[:40]!r}")


def mark_object(destination: str, best: Best) -> dict[str, object]:
    """A mark for programs; keys are stable."""
    return {
        "destination": destination,
        "best": best.mark.name.lower(),
        "host": best.host,
        "since": str(best.since),
        "last": str(best.last),
    }


def best_of(made: Mapping[str, object]) -> Best:
    """Read what ``mark_object`` made.

    :raises ValueError: (or KeyError) if it did not make that.
    """
    return Best(
        mark=Mark[str(made["best"]).upper()],
        host=str(made["host"]),
        since=date.fromisoformat(str(made["since"])),
        last=date.fromisoformat(str(made["last"])),
    )
