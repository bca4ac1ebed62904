"""Destinations that are verified, and then say no, not yet, or nothing (RFC 5321 section 4.2, RFC 6531, RFC 6152)."""

from __future__ import annotations

from relay.lab.destination import Asked, Destination, Ending, Host, MessageKind, Session
from relay.lab.record import Reach
from relay.lab.scenarios.build import TLSA_EE, bounced, deferred, host, mx, one_host, sent
from relay.lab.script import Rcpt, Script, Stage


def _reply(
    name: str,
    script: Script,
    shows: str,
    rule: str,
    *endings: Ending,
    reach: Reach,
    message: MessageKind = MessageKind.PLAIN,
) -> Destination:
    return Destination(
        name=name,
        shows=shows,
        rule=rule,
        hosts=(host(name, TLSA_EE, script=script),),
        endings=endings,
        reach=reach,
        tlsa=Asked.YES,
        message=message,
    )


REPLIES = (
    _reply(
        "greylist",
        Script(rcpt=Rcpt.GREYLISTED),
        "greylisting: deferred, then delivered",
        "RFC 6647",
        deferred("greylist", "4.2.0", "said: 450 4.2.0 greylisted", "dane", Session.VERIFIED),
        sent("greylist", Session.VERIFIED, "dane"),
        reach=Reach.DELIVERED,
    ),
    _reply(
        "no-such-user",
        Script(rcpt=Rcpt.REJECTED),
        "550 to RCPT: bounced, the sender is told",
        "RFC 5321 section 3.6.3",
        bounced("no-such-user", "5.1.1", "said: 550 5.1.1", "dane", Session.VERIFIED),
        reach=Reach.ENVELOPE,
    ),
    _reply(
        "no-content",
        Script(end_of_data="554 5.6.0 not this message"),
        "554 at the end of DATA: bounced",
        "RFC 5321 section 4.2.1",
        bounced("no-content", "5.6.0", "(in reply to end of DATA command)", "dane", Session.VERIFIED),
        reach=Reach.CONTENT,
    ),
    _reply(
        "full-disk",
        Script(end_of_data="452 4.3.1 disk full"),
        "452 at the end of DATA: deferred",
        "RFC 5321 section 4.2.1",
        deferred("full-disk", "4.3.1", "(in reply to end of DATA command)", "dane", Session.VERIFIED),
        reach=Reach.CONTENT,
    ),
    _reply(
        "busy",
        Script(greeting="421 4.3.2 too busy"),
        "421 greeting",
        "RFC 5321 section 3.8",
        deferred("busy", "4.3.2", "refused to talk to me: 421 4.3.2 too busy", "dane?"),
        reach=Reach.NOTHING,
    ),
    _reply(
        "silent",
        Script(hang=Stage.GREETING),
        "connects and says nothing",
        "RFC 5321 section 4.5.3.2",
        deferred("silent", "4.4.2", "timed out while receiving the initial server greeting", "dane?"),
        reach=Reach.NOTHING,
    ),
    one_host(
        Host(name=mx("closed"), tlsa=(TLSA_EE,), listens=False),
        "nobody listens",
        "RFC 5321 section 4.5.4.1",
        deferred("closed", "4.4.1", "connect to mx.closed.lab.test", "dane?", relay="none"),
    ),
    _reply(
        "no-8bit",
        Script(extensions=("PIPELINING", "SIZE 67108864", "ENHANCEDSTATUSCODES")),
        "8-bit content, host without 8BITMIME: converted",
        "RFC 6152 section 3",
        sent("no-8bit", Session.VERIFIED, "dane"),
        reach=Reach.DELIVERED,
        message=MessageKind.EIGHT_BIT,
    ),
    _reply(
        "no-utf8",
        Script(extensions=("PIPELINING", "SIZE 67108864", "8BITMIME", "ENHANCEDSTATUSCODES")),
        "UTF-8 address, host without SMTPUTF8",
        "RFC 6531 section 3.2",
        bounced("no-utf8", "5.6.7", "message requires SMTPUTF8", "dane", Session.VERIFIED),
        reach=Reach.NOTHING,
        message=MessageKind.UTF8_ADDRESS,
    ),
)
