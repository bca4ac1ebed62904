"""What a client is called: its verified reverse name, or ``unknown``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from relay.mail.names import IpAddress

NameOf = Callable[[IpAddress], Awaitable[str]]
"""The verified reverse name of a client address, or ``unknown``; bounded in time and never raises."""


async def name_without_dns(address: IpAddress) -> str:
    """``localhost`` for loopback, ``unknown`` for all others."""
    return "localhost" if address.is_loopback else "unknown"
