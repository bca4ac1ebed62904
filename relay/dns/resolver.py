"""The seam between the relay and whatever answers its DNS questions."""

from __future__ import annotations

from typing import Protocol

from relay.dns.answer import Answer, RRType
from relay.mail.names import Domain


class Resolver(Protocol):
    """Answers one question at a time; safe to call from many tasks at once.

    An implementation follows CNAMEs, retries, and falls back to TCP by itself, has its own deadline, and never raises for
    anything that the network did: each such end is a member of ``Answer``.
    """

    async def query(self, name: Domain, rrtype: RRType) -> Answer:
        """Look up the records of one type at one name.

        :param name: absolute; search lists do not apply.
        """
        ...
