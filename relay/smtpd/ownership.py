"""Which sender addresses a user who has logged in may use: ``smtpd.sender_login_maps``. Pure.

As with Postfix's ``reject_authenticated_sender_login_mismatch``: an address that no map names belongs to nobody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from relay.mail.envelope import NullSender, Sender
from relay.mail.reply import Reply
from relay.maps.table import Failed, Found, LookupTable, MapProblem, find
from relay.routing.relayhosts import lookup_keys
from relay.smtpd import replies

_BETWEEN_NAMES = re.compile(r"[,\s]+")


@dataclass(frozen=True, slots=True)
class Owners:
    """The maps, in order; without any, everybody may use every address."""

    tables: tuple[LookupTable, ...] = ()

    def refuses(self, sender: Sender, user: str) -> Reply | None:
        """Why the user may not be that sender, or None; reports have none and belong to all.

        :param user: empty for a client that has not logged in, which these maps do not concern.
        """
        if not self.tables or not user or isinstance(sender, NullSender):
            return None
        for number, key in enumerate(lookup_keys(sender)):
            match find(self.tables, key, partial=number > 0):
                case Found(value):
                    names = {name.casefold() for name in _BETWEEN_NAMES.split(value)}
                    return None if user.casefold() in names else replies.not_owned(sender.text, user)
                case Failed():
                    return replies.lookup_failed(sender.text)
                case _:
                    continue
        return replies.not_owned(sender.text, user)

    @property
    def problems(self) -> tuple[MapProblem, ...]:
        """What is wrong with lines of the maps."""
        return tuple(problem for table in self.tables for problem in table.problems)


NO_OWNERS = Owners()
