"""Who is inside: the sessions of a server, counted by client address, and asked to leave when it closes."""

from __future__ import annotations

import asyncio
from collections import Counter
from enum import Enum
from typing import Protocol

from relay.mail.names import IpAddress
from relay.smtpd.access import may_relay
from relay.smtpd.options import SmtpdOptions


class Admission(Enum):
    """Whether a new session may begin."""

    ADMITTED = "admitted"
    TOO_MANY_OF_CLIENT = "too many sessions of this client address"
    TOO_MANY = "too many sessions"


class Guest(Protocol):
    """A session as the lobby sees it."""

    def stop(self) -> None:
        """End with a 421 as soon as nothing is half done."""
        ...

    def abort(self) -> None:
        """End now."""
        ...


class Lobby:
    """Admits sessions within ``client_connection_count_limit`` and ``connection_limit``."""

    def __init__(self, options: SmtpdOptions) -> None:
        self._options = options
        self._guests: dict[Guest, IpAddress] = {}
        self._by_address: Counter[IpAddress] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()
        self._closing = False

    def __len__(self) -> int:
        return len(self._guests)

    def enter(self, guest: Guest, address: IpAddress) -> Admission:
        """Count a session in, unless a limit is reached; who is counted in must ``leave``."""
        options = self._options
        if 0 < options.connection_limit <= len(self._guests):
            return Admission.TOO_MANY
        of_client = options.client_connection_count_limit
        if 0 < of_client <= self._by_address[address] and not may_relay(address, options.client_event_limit_exceptions):
            return Admission.TOO_MANY_OF_CLIENT
        self._guests[guest] = address
        self._by_address[address] += 1
        self._empty.clear()
        if self._closing:
            guest.stop()
        return Admission.ADMITTED

    def leave(self, guest: Guest) -> None:
        """Count a session out; one that was not admitted is none."""
        if guest not in self._guests:
            return
        address = self._guests.pop(guest)
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
        if not self._guests:
            self._empty.set()

    async def close(self, *, grace: float) -> None:
        """Ask every session to stop, wait for that, and end those that did not.

        :param grace: seconds.
        """
        self._closing = True
        for guest in tuple(self._guests):
            guest.stop()
        try:
            async with asyncio.timeout(grace):
                await self._empty.wait()
        except TimeoutError:
            for guest in tuple(self._guests):
                guest.abort()
            await self._empty.wait()
