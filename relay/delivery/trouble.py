"""Why a host did not take mail, and what that means for the recipients it leaves without an answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from relay.mail.reply import EnhancedStatus
from relay.outcome.result import Diagnostic, Relay
from relay.tls.peer import NOT_SEEN, Seen

CONNECTION_TROUBLE = EnhancedStatus(4, 4, 2)


class Kind(Enum):
    """What a trouble means for the recipients it leaves without an answer."""

    SOFT = "try the next host, then defer"
    HARD = "bounce at once"
    HARD_IF_LAST = "try the next host, then bounce"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why one host did not take mail.

    :param tls: the ``tls=`` feature as far as it got.
    :param throttles: whether the destination itself failed, not the message (postfix smtp_trouble.c).
    :param handshake: whether the TLS handshake failed after STARTTLS, which at ``may`` allows a retry in the clear.
    :param seen: what the session showed, as far as it got to a verdict.
    :param verdict_reached: whether a session stood that could carry mail: it counts towards ``mx_session_limit``, which
        a host that fails before that does not (postfix smtp_connect.c).
    :param reused: how many messages the session had carried before.
    """

    status: EnhancedStatus
    reason: str
    diagnostic: Diagnostic
    relay: Relay
    tls: str
    kind: Kind = Kind.SOFT
    throttles: bool = True
    handshake: bool = False
    verdict_reached: bool = False
    seen: Seen = NOT_SEEN
    reused: int = 0
