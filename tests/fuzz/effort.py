"""How much is tried: a bounded number of examples, the same each time, in every run, and many in ``make test-long``."""

from __future__ import annotations

from typing import Final

from hypothesis import HealthCheck, settings

QUICK: Final = settings(
    max_examples=1_000, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
LONG: Final = settings(max_examples=200_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
