"""``soft_bounce`` at the front end: what clients hear and what the log says of it."""

from __future__ import annotations

import pytest

from relay.log.events import Event, Noted, Program, Rejected
from relay.mail.envelope import Client
from relay.mail.names import IpLiteral
from relay.mail.reply import Reply
from relay.smtpd import replies
from relay.smtpd.softening import softened, softly


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (replies.NOT_RECOGNIZED, "400 4.5.2 Error: command not recognized"),
        (replies.CONTENT_TOO_BIG, "452 4.3.4 Error: message file too big"),
        (Reply(554, ("5.7.1 no", "5.7.1 never", "50.000 times no")), "454 4.7.1 no 4.7.1 never 50.000 times no"),
        (Reply(550, ("5 reasons",)), "450 5 reasons"),
        (replies.NO_SPACE, str(replies.NO_SPACE)),
        (replies.OK, str(replies.OK)),
    ],
)
def test_refused_for_now(reply: Reply, said: str) -> None:
    assert str(softened(reply)) == said


def test_the_log_says_what_the_client_hears() -> None:
    told: list[Event] = []
    observe = softly(told.append)
    client = Client(address=IpLiteral.parse("127.0.0.1").address)
    observe(Rejected(client=client, where="MAIL", reply=replies.DECLARED_TOO_BIG))
    observe(Noted(Program.SMTPD, "5.0.0"))
    refused, noted = told
    assert isinstance(refused, Rejected)
    assert str(refused.reply) == "452 4.3.4 Message size exceeds fixed limit"
    assert noted == Noted(Program.SMTPD, "5.0.0")
