"""What all tests share: the count, with reasons, of those that were left out for want of a server."""

from __future__ import annotations

import signal
from collections import Counter

import pytest
from hypothesis import settings

LEFT_OUT = "left out: "


def pytest_configure() -> None:
    """Let SIGTERM interrupt the run as Ctrl-C does, so that servers which tests started are stopped."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings.register_profile("any machine", deadline=None)  # a slow one is no failure
    settings.load_profile("any machine")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which servers were left out, why, and how many tests went with them (DESIGN section 5.1)."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.getreports("skipped"):
        if isinstance(report.longrepr, tuple):
            reason = str(report.longrepr[2]).removeprefix("Skipped: ")
            if reason.startswith(LEFT_OUT):
                reasons[reason.removeprefix(LEFT_OUT)] += 1
    if reasons:
        terminalreporter.section("left out for want of a server")
        for reason, count in sorted(reasons.items()):
            terminalreporter.line(f"{count} {'test' if count == 1 else 'tests'}: {reason}")
