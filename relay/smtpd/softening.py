"""``soft_bounce``: what would be refused for good is refused for now (postfix smtpd_chat.c, smtpd_check.c). Pure."""

from __future__ import annotations

import re
from dataclasses import replace

from relay.log.events import Event, Observer, Rejected
from relay.mail.reply import Reply, Severity

_PERMANENT = re.compile(r"^5(?=\.\d)", re.ASCII)


def softened(reply: Reply) -> Reply:
    """The same reply as a 4xx, code and enhanced status, where it is a 5xx."""
    if reply.severity is not Severity.PERMANENT:
        return reply
    return Reply(reply.code - 100, tuple(_PERMANENT.sub("4", text) for text in reply.lines))


def softly(observe: Observer) -> Observer:
    """Tells of refusals as the clients hear them."""

    def tell(event: Event) -> None:
        observe(replace(event, reply=softened(event.reply)) if isinstance(event, Rejected) else event)

    return tell
