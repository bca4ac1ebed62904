"""The section ``[bounce]``: reports about mail that could not be delivered, and the postmaster's copies of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from relay.config.kinds import SIZE, Kind, found, items_of, notation, toml_list
from relay.config.section import Section, option
from relay.mail.names import BadName, Domain

OF_INCIDENTS = ("policy", "protocol", "resource", "software")
CLASSES = ("bounce", "2bounce", "delay", *OF_INCIDENTS)
_LOCAL_PART = re.compile(r"[!#-'*+\-/-9=?A-Z^-~]+(?:\.[!#-'*+\-/-9=?A-Z^-~]+)*")


def _mailbox(text: str) -> str:
    local, at, domain = text.rpartition("@")
    if text and not (at and _LOCAL_PART.fullmatch(local)):
        raise ValueError("it must be local-part@domain")
    try:
        return f"{local}@{Domain.parse(domain)}" if text else ""
    except BadName as error:
        raise ValueError(str(error)) from None


_MAILBOX = notation(_mailbox, 'a mail address such as "postmaster@example.org", or "" for none')


def _read_classes(raw: object, _base: Path) -> tuple[str, ...]:
    expected = f"some of {', '.join(CLASSES)}"
    words = tuple(word.lower() for word in items_of(raw, expected))
    for word in words:
        if word not in CLASSES:
            raise ValueError(f"expected {expected}, {found(word)}")
    return tuple(dict.fromkeys(words))


class BounceSection(Section):
    """Reports on mail that was not delivered, or not yet."""

    size_limit: Annotated[int, SIZE] = option(
        50_000,
        "Octets of an undeliverable message that goes back to its sender whole; of a larger one, the header does.",
    )
    notify_classes: Annotated[tuple[str, ...], Kind(_read_classes, toml_list)] = option(
        (),
        "What the postmaster gets copies of: bounce (mail returned to its sender), 2bounce (a report that could not be "
        "delivered), delay (mail whose delay its sender is told of). And what it is told of: policy (transcripts of sessions "
        "in which a client was refused), protocol (of those in which a client said something that is no SMTP), resource "
        "(mail could not be taken for want of space or for a broken disk), software (internal errors); one message in ten "
        "minutes at most.",
    )
    postmaster: Annotated[str, _MAILBOX] = option("", "Who gets the copies where the options below name nobody.")
    notice_recipient: Annotated[str, _MAILBOX] = option("", 'Who gets those of class bounce; "" for postmaster.')
    double_bounce_notice_recipient: Annotated[str, _MAILBOX] = option(
        "", 'Who gets those of class 2bounce (2bounce_notice_recipient in Postfix); "" for postmaster.'
    )
    delay_notice_recipient: Annotated[str, _MAILBOX] = option("", 'Who gets those of class delay; "" for postmaster.')
    error_notice_recipient: Annotated[str, _MAILBOX] = option(
        "", 'Who is told of policy, protocol, resource and software; "" for postmaster.'
    )

    def reader(self, notify_class: str) -> str:
        """Who gets the copies of a class, whether or not they are wanted; empty for nobody."""
        own = {
            "bounce": self.notice_recipient,
            "2bounce": self.double_bounce_notice_recipient,
            "delay": self.delay_notice_recipient,
        }
        return own.get(notify_class, self.error_notice_recipient) or self.postmaster
