from __future__ import annotations

from relay.smtpd import replies
from relay.smtpd.patience import Patience
from tests.unit.smtpd.front_end import options


def test_errors_wear_it_out() -> None:
    patience = Patience(options(soft_error_limit=2, hard_error_limit=4))
    for thin, exhausted in ((False, False), (False, False), (True, False), (True, True)):
        assert patience.ample == (not thin and not exhausted)  # is asked before
        patience.count("UNKNOWN", replies.NOT_RECOGNIZED)
        assert (patience.thin, patience.exhausted) == (thin, exhausted)
    short = Patience(options(soft_error_limit=9, hard_error_limit=1))
    assert not short.ample


def test_a_message_renews_it() -> None:
    patience = Patience(options(hard_error_limit=2))
    patience.count("MAIL", replies.BAD_SENDER)
    patience.renew()
    patience.count("MAIL", replies.BAD_SENDER)
    assert not patience.exhausted


def test_junk_beyond_the_limit_is_an_error() -> None:
    patience = Patience(options(junk_command_limit=3, hard_error_limit=2))
    for _ in range(4):
        patience.count("NOOP", replies.OK)
    assert not patience.exhausted
    patience.count("RSET", replies.OK)
    assert patience.exhausted


def test_too_many_recipients_are_borne_for_a_thousand() -> None:
    patience = Patience(options(hard_error_limit=1))
    for _ in range(1000):
        patience.count("RCPT", replies.TOO_MANY_RECIPIENTS)
    assert not patience.exhausted
    patience.count("RCPT", replies.TOO_MANY_RECIPIENTS)
    assert patience.exhausted


def test_commands_are_counted_as_postfix_logs_them() -> None:
    patience = Patience(options())
    for verb, reply in (
        ("EHLO", replies.OK),
        ("RCPT", replies.relay_denied("x@y")),
        ("RCPT", replies.RECIPIENT_OK),
        ("UNKNOWN", replies.NOT_RECOGNIZED),
    ):
        patience.count(verb, reply)
    assert patience.commands == {"ehlo": (1, 1), "rcpt": (1, 2), "unknown": (0, 1)}
    assert list(patience.commands) == ["ehlo", "rcpt", "unknown"]
