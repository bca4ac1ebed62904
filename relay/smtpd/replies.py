"""Every reply of the front end, in Postfix's words (smtpd/smtpd.c), and how a reply looks on the wire. Pure.

Clients, their log readers and their retry rules know these texts; no other file of this room words a reply. What comes
from a client is put in by ``wire_form``'s rules: no line ends, no control characters, bounded.
"""

from __future__ import annotations

import base64
import re
from functools import lru_cache
from typing import Final

from relay.mail.envelope import QueueId
from relay.mail.reply import Reply

# RFC 5321 section 4.5.3.1.5: the longest reply line is 512 octets with its CRLF.
MAX_REPLY_LINE_OCTETS = 510
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@lru_cache(maxsize=512)
def wire_form(reply: Reply) -> bytes:
    """The octets of a reply: ``CODE-`` and ``CODE `` lines, each ended by CRLF."""
    last = len(reply.lines) - 1
    return b"".join(
        _line(f"{reply.code}{' ' if number == last else '-'}{text}") for number, text in enumerate(reply.lines)
    )


def _line(text: str) -> bytes:
    octets = _UNPRINTABLE.sub("?", text).encode("utf-8", "replace")
    if len(octets) > MAX_REPLY_LINE_OCTETS:
        octets = octets[:MAX_REPLY_LINE_OCTETS].decode("utf-8", "ignore").encode()
    return octets + b"\r\n"


def _reply(code: int, text: str) -> Reply:
    return Reply(code, (text,))


# --- all is well ----------------------------------------------------------------------------------------------------

OK: Final = _reply(250, "2.0.0 Ok")
SENDER_OK: Final = _reply(250, "2.1.0 Ok")
RECIPIENT_OK: Final = _reply(250, "2.1.5 Ok")
START_DATA: Final = _reply(354, "End data with <CR><LF>.<CR><LF>")
START_TLS: Final = _reply(220, "2.0.0 Ready to start TLS")
BYE: Final = _reply(221, "2.0.0 Bye")
AUTHENTICATED: Final = _reply(235, "2.7.0 Authentication successful")


def greeting(hostname: str) -> Reply:
    """The banner of a new session."""
    return _reply(220, f"{hostname} ESMTP dane-relay")


def hello(hostname: str) -> Reply:
    """The answer to HELO."""
    return _reply(250, hostname)


def extensions(hostname: str, *, message_size_limit: int, starttls: bool, auth: tuple[str, ...] = ()) -> Reply:
    """The answer to EHLO: what we implement, in Postfix's order.

    :param message_size_limit: octets; 0 for no limit.
    :param starttls: whether TLS can be had and is not on yet.
    :param auth: the mechanisms of AUTH; empty where it cannot be had.
    """
    lines = [hostname, "PIPELINING", f"SIZE {message_size_limit}" if message_size_limit else "SIZE"]
    if starttls:
        lines.append("STARTTLS")
    if auth:
        lines.append(" ".join(("AUTH", *auth)))
    return Reply(250, (*lines, "ENHANCEDSTATUSCODES", "8BITMIME", "DSN", "SMTPUTF8", "CHUNKING"))


def challenge(octets: bytes) -> Reply:
    """What a mechanism of AUTH has to say."""
    return _reply(334, base64.b64encode(octets).decode("ascii"))


def queued(queue_id: QueueId) -> Reply:
    """The message is committed; from here on it is ours."""
    return _reply(250, f"2.0.0 Ok: queued as {queue_id}")


def chunk_taken(octets: int) -> Reply:
    """One BDAT chunk was taken, and more are to come."""
    return _reply(250, f"2.0.0 Ok: {octets} bytes")


def queued_in_chunks(reply: Reply, octets: int) -> Reply:
    """``queued`` as it is said after ``BDAT LAST``."""
    words = f" {octets} bytes queued as "
    return Reply(reply.code, tuple(line.replace(" queued as ", words) for line in reply.lines))


# --- the client said something wrong --------------------------------------------------------------------------------

BAD_SYNTAX: Final = _reply(500, "5.5.2 Error: bad syntax")
BAD_UTF8: Final = _reply(500, "5.5.2 Error: bad UTF-8 syntax")
LINE_TOO_LONG: Final = _reply(500, "5.5.2 Error: line too long")
NOT_RECOGNIZED: Final = _reply(500, "5.5.2 Error: command not recognized")
NOT_IMPLEMENTED: Final = _reply(502, "5.5.1 Error: command not implemented")
VRFY_DISABLED: Final = _reply(502, "5.5.1 VRFY command is disabled")
AUTH_DISABLED: Final = _reply(503, "5.5.1 Error: authentication not enabled")
HELLO_FIRST: Final = _reply(503, "5.5.1 Error: send HELO/EHLO first")
ALREADY_AUTHENTICATED: Final = _reply(503, "5.5.1 Error: already authenticated")
UNKNOWN_MECHANISM: Final = _reply(504, "5.5.4 Error: unknown authentication mechanism")
AUTH_NEEDS_TLS: Final = _reply(538, "5.7.0 Encryption required for requested authentication mechanism")
AUTH_FAILED: Final = _reply(535, "5.7.8 Error: authentication failed: authentication failure")
AUTH_ABORTED: Final = _reply(501, "5.7.0 Authentication aborted")
AUTH_BUSY: Final = _reply(454, "4.7.0 Temporary authentication failure")
BAD_BASE64: Final = _reply(501, "5.5.2 Error: invalid base64 data")
NESTED_MAIL: Final = _reply(503, "5.5.1 Error: nested MAIL command")
NEED_MAIL: Final = _reply(503, "5.5.1 Error: need MAIL command")
NEED_RCPT: Final = _reply(503, "5.5.1 Error: need RCPT command")
RCPT_AFTER_BDAT: Final = _reply(503, "5.5.1 Error: RCPT after BDAT")
DATA_AFTER_BDAT: Final = _reply(503, "5.5.1 Error: DATA after BDAT")
# What follows a BDAT that cannot be read is of unknown length, so these two end the session.
BDAT_SYNTAX: Final = _reply(521, "5.5.4 Syntax: BDAT count [LAST]")
BDAT_BEYOND_SKIPPING: Final = _reply(521, "5.3.4 Chunk exceeds message size limit")
NULL_BDAT: Final = _reply(551, "5.7.1 Null BDAT request")
CHUNK_TOO_BIG: Final = _reply(552, "5.3.4 Chunk exceeds message size limit")
NOT_SYNCHRONIZED: Final = _reply(554, "5.5.0 Error: SMTP protocol synchronization")
NO_VALID_RECIPIENTS: Final = _reply(554, "5.5.1 Error: no valid recipients")
MUST_START_TLS: Final = _reply(530, "5.7.0 Must issue a STARTTLS command first")
TLS_ALREADY_ACTIVE: Final = _reply(554, "5.5.1 Error: TLS already active")
IN_TRANSACTION: Final = _reply(503, "5.5.1 Error: MAIL transaction in progress")
BAD_SENDER: Final = _reply(501, "5.1.7 Bad sender address syntax")
BAD_RECIPIENT: Final = _reply(501, "5.1.3 Bad recipient address syntax")
BAD_SIZE: Final = _reply(501, "5.5.4 Bad message size syntax")
BAD_BODY: Final = _reply(501, "5.5.4 Bad BODY parameter syntax")
BAD_SMTPUTF8: Final = _reply(501, "5.5.4 Bad SMTPUTF8 parameter syntax")
BAD_RET: Final = _reply(501, "5.5.4 Bad RET parameter syntax")
BAD_ENVID: Final = _reply(501, "5.5.4 Bad ENVID parameter syntax")
BAD_AUTH: Final = _reply(501, "5.5.4 Bad AUTH parameter syntax")
BAD_NOTIFY: Final = _reply(501, "5.5.4 Error: Bad NOTIFY parameter syntax")
BAD_ORCPT: Final = _reply(501, "5.5.4 Error: Bad ORCPT parameter syntax")
UNDECLARED_UNICODE: Final = _reply(553, "5.6.7 Must declare SMTPUTF8 to send unicode address")
FORBIDDEN_COMMAND: Final = _reply(221, "2.7.0 Error: I can break rules, too. Goodbye.")


LAST_WORDS: Final = frozenset({BYE, FORBIDDEN_COMMAND, NOT_SYNCHRONIZED, BDAT_SYNTAX, BDAT_BEYOND_SKIPPING})
"""After these the session is over."""


def chunk_discarded(octets: int) -> Reply:
    """A BDAT chunk after one that was refused, read and dropped."""
    return _reply(551, f"5.0.0 Discarded {octets} bytes after earlier error")


def bare_line_end(hostname: str) -> Reply:
    """A bare CR or LF where ``forbid_bare_newline = reject``."""
    return _reply(550, f"5.5.2 {hostname} Error: bare <LF> received")


def syntax(usage: str, *, enhanced: bool = True) -> Reply:
    """How a command is to be written; HELO and EHLO are answered without an enhanced status."""
    return _reply(501, f"{'5.5.4 ' if enhanced else ''}Syntax: {usage}")


def unsupported_option(option: str) -> Reply:
    """A parameter of MAIL or RCPT that we do not know (RFC 5321 section 4.1.1.11)."""
    return _reply(555, f"5.5.4 Unsupported option: {option[:100]}")


# --- we will not, or cannot now -------------------------------------------------------------------------------------

TOO_MANY_RECIPIENTS: Final = _reply(452, "4.5.3 Error: too many recipients")
DECLARED_TOO_BIG: Final = _reply(552, "5.3.4 Message size exceeds fixed limit")
CONTENT_TOO_BIG: Final = _reply(552, "5.3.4 Error: message file too big")
TOO_MANY_HOPS: Final = _reply(554, "5.4.0 Error: too many hops")
NO_SPACE: Final = _reply(452, "4.3.1 Insufficient system storage")
NOT_WRITTEN: Final = _reply(451, "4.3.0 Error: queue file write error")
LOCAL_PROBLEM: Final = _reply(451, "4.3.0 Error: internal server error")


def relay_denied(recipient: str) -> Reply:
    """The client may not relay; 4xx, as with Postfix's ``defer_unauth_destination``."""
    return _reply(454, f"4.7.1 <{recipient}>: Relay access denied")


def not_owned(sender: str, user: str) -> Reply:
    """A user who has logged in is not to use that sender address."""
    return _reply(553, f"5.7.1 <{sender}>: Sender address rejected: not owned by user {user}")


def lookup_failed(address: str) -> Reply:
    """A map that says what may be done cannot be understood; the log has where."""
    return _reply(451, f"4.3.0 <{address}>: Temporary lookup failure")


def timeout_exceeded(hostname: str) -> Reply:
    """The client was silent for too long."""
    return _reply(421, f"4.4.2 {hostname} Error: timeout exceeded")


def too_many_errors(hostname: str) -> Reply:
    """The client made ``hard_error_limit`` errors without handing over a message."""
    return _reply(421, f"4.7.0 {hostname} Error: too many errors")


def too_much_mail(address: str) -> Reply:
    """One client has begun too many messages of late."""
    return _reply(450, f"4.7.1 Error: too much mail from {address}")


def too_many_recipients_of_late(address: str) -> Reply:
    """One client has named too many recipients of late."""
    return _reply(450, f"4.7.1 Error: too many recipients from {address}")


def too_many_auth(address: str) -> Reply:
    """One client has failed to log in too often of late, or has tried to."""
    return _reply(450, f"4.7.1 Error: too many AUTH commands from {address}")


def too_many_connections(hostname: str, address: str) -> Reply:
    """One client address has too many sessions."""
    return _reply(421, f"4.7.0 {hostname} Error: too many connections from {address}")


def too_busy(hostname: str) -> Reply:
    """All clients together have too many sessions."""
    return _reply(421, f"4.3.2 {hostname} Error: too many connections")


def shutting_down(hostname: str) -> Reply:
    """The relay stops; the client shall come again."""
    return _reply(421, f"4.3.2 {hostname} Service shutting down")
