"""Limits of one worker."""

from __future__ import annotations

from dataclasses import dataclass, field

from relay.scheduling.window import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """Limits of one worker.

    :param concurrency: attempts at a time.
    :param limits: those of each destination.
    :param recipient_limit: recipients of one transaction at most (``destination_recipient_limit``); 0 for no limit.
    """

    concurrency: int = 200
    limits: Limits = field(default_factory=Limits)
    recipient_limit: int = 50
