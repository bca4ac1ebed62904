"""The conversation of one session as a state machine: commands in, replies out, no sockets and no waiting.

States: before and after HELO/EHLO, in the clear and under TLS, and within them no transaction, or one with a sender and
its recipients. DATA, STARTTLS, AUTH and QUIT are only decided here; ``conversation.py`` carries them out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Final

from relay.log.events import Observer, Program, Rejected, Warned
from relay.mail.envelope import Client, ClientTls, Envelope, Recipient, RecipientId, Remote, Sender, sender_text
from relay.mail.names import IpAddress
from relay.mail.reply import Reply
from relay.sasl.server import MECHANISMS
from relay.smtpd import replies
from relay.smtpd.access import may_send
from relay.smtpd.options import SmtpdOptions
from relay.smtpd.parameters import MailParameters, parse_mail, parse_rcpt
from relay.smtpd.rates import Counted


class _Idle(Enum):
    NO_TRANSACTION = "no transaction"


# The commands of one exchange.
_ANSWERED: Final = frozenset({"HELO", "EHLO", "MAIL", "RCPT", "RSET", "NOOP", "VRFY"})
# What may be said in the clear where TLS is required (postfix smtpd.c, SMTPD_CMD_FLAG_PRE_TLS).
_BEFORE_TLS: Final = frozenset({"HELO", "EHLO", "NOOP"})
_NO_TRANSACTION: Final = _Idle.NO_TRANSACTION


class Dialogue:
    """Answers every command but the contents; ``client`` is what is known of the client so far.

    :param client: as connected.
    :param tls_available: whether STARTTLS can be had.
    :param exceeds: counts what the client does; gives 0, or how often it did that of late if that is too often.
    :param observe: told of each refusal for policy.
    :param refusal: why no message could be taken now, asked at each MAIL.
    :param auth_available: whether there is anybody to log in as; over TLS only.
    :param disowns: why a user may not use a sender address.
    :param permits: whether a client may relay for what it is, whatever its address and though it has not logged in.
    """

    def __init__(
        self,
        client: Client,
        options: SmtpdOptions,
        *,
        tls_available: bool,
        exceeds: Callable[[Counted, IpAddress], int],
        observe: Observer,
        refusal: Callable[[], Reply | None] = lambda: None,
        auth_available: Callable[[], bool] = lambda: False,
        disowns: Callable[[Sender, str], Reply | None] = lambda sender, user: None,
        permits: Callable[[Client], bool] = lambda client: False,
    ) -> None:
        self.client = replace(client, protocol="SMTP")
        self._options = options
        self._hostname = str(options.hostname)
        self._tls_available = tls_available
        self._exceeds = exceeds
        self._observe = observe
        self._refusal = refusal
        self._auth_available = auth_available
        self._disowns = disowns
        self._permits = permits
        self._mail: MailParameters | _Idle = _NO_TRANSACTION
        self._recipients: list[Recipient] = []
        self._in_chunks = False

    def answer(self, verb: str, argument: str) -> Reply:
        """Carry out a command of one exchange.

        :param verb: upper case.
        :param argument: without surrounding blanks, empty if there is none.
        """
        if verb not in _ANSWERED:
            return replies.NOT_RECOGNIZED
        if self._lacks_tls and verb not in _BEFORE_TLS:
            return replies.MUST_START_TLS
        match verb:
            case "HELO":
                return self._helo(argument)
            case "EHLO":
                return self._ehlo(argument)
            case "MAIL":
                return self._mail_from(argument)
            case "RCPT":
                return self._rcpt_to(argument)
            case "RSET":
                return self._rset(argument)
            case "NOOP":
                return replies.OK
            case _:
                return replies.VRFY_DISABLED

    @property
    def _lacks_tls(self) -> bool:
        # What comes through a Unix socket does not leave the machine.
        return self._options.tls_required and not self.client.tls.used and self.client.local is Remote.REMOTE

    def knows(self, verb: str) -> bool:
        """Whether the verb is one of ours; others are counted and logged as ``unknown``."""
        return verb in _ANSWERED or verb in {"DATA", "BDAT", "STARTTLS", "AUTH", "QUIT"}

    @property
    def in_transaction(self) -> bool:
        """Whether MAIL was accepted, and what it began has not ended."""
        return not isinstance(self._mail, _Idle)

    @property
    def declared_octets(self) -> int:
        """The size that MAIL declared for the transaction; 0 if it did not."""
        return 0 if isinstance(self._mail, _Idle) else self._mail.size

    def begin_chunks(self) -> Envelope | Reply:
        """The first BDAT: the envelope of the content that it begins, or why there can be none."""
        envelope = self.begin_data("")
        self._in_chunks = isinstance(envelope, Envelope)
        return envelope

    def begin_data(self, argument: str) -> Envelope | Reply:
        """DATA: the envelope of the content that may now come, or why it may not."""
        mail = self._mail
        if self._in_chunks:
            return replies.DATA_AFTER_BDAT
        if self._lacks_tls:
            return replies.MUST_START_TLS
        if isinstance(mail, _Idle):
            return replies.NEED_RCPT
        if not self._recipients:
            return replies.NO_VALID_RECIPIENTS
        if argument:
            return replies.syntax("DATA")
        return Envelope(
            sender=mail.sender,
            recipients=tuple(self._recipients),
            body=mail.body,
            smtputf8=mail.smtputf8,
            ret=mail.ret,
            envid=mail.envid,
            client=self.client,
        )

    def end_transaction(self) -> None:
        """The content was dealt with, one way or another: back to where MAIL is expected."""
        self._mail = _NO_TRANSACTION
        self._recipients = []
        self._in_chunks = False

    def begin_tls(self, argument: str) -> Reply:
        """STARTTLS: ``replies.START_TLS``, or why not."""
        if argument:
            return replies.syntax("STARTTLS")
        if self.client.tls.used:
            return replies.TLS_ALREADY_ACTIVE
        if not self._tls_available:
            return replies.NOT_IMPLEMENTED
        if not isinstance(self._mail, _Idle):
            return replies.IN_TRANSACTION
        return replies.START_TLS

    def tls_began(self, tls: ClientTls) -> None:
        """The session is encrypted now; whatever was said in the clear is forgotten (RFC 3207 section 4.2)."""
        self.end_transaction()
        self.client = replace(self.client, helo="", protocol="SMTP", tls=tls, user="", sasl_method="")

    def refuses_auth(self, argument: str) -> Reply | None:
        """AUTH: why it may not begin, or None (smtpd_sasl_proto.c has the order)."""
        if self._lacks_tls:
            return replies.MUST_START_TLS
        if self.client.protocol != "ESMTP":
            return replies.HELLO_FIRST
        if not self._auth_available():
            return replies.AUTH_DISABLED
        if not isinstance(self._mail, _Idle):
            return replies.IN_TRANSACTION
        if not self.client.tls.used:
            return replies.AUTH_NEEDS_TLS
        if self.client.user:
            return replies.ALREADY_AUTHENTICATED
        if not 1 <= len(argument.split()) <= 2:
            return replies.syntax("AUTH mechanism")
        return replies.too_many_auth(str(self.client.address)) if self._too_often(Counted.AUTH) else None

    def logged_in(self, user: str, method: str) -> None:
        """The client has proved who it is."""
        self.client = replace(self.client, user=user, sasl_method=method)

    def _helo(self, argument: str) -> Reply:
        if not argument:
            return replies.syntax("HELO hostname", enhanced=False)
        self.end_transaction()
        self.client = replace(self.client, helo=argument, protocol="SMTP")
        return replies.hello(self._hostname)

    def _ehlo(self, argument: str) -> Reply:
        if not argument:
            return replies.syntax("EHLO hostname", enhanced=False)
        self.end_transaction()
        self.client = replace(self.client, helo=argument, protocol="ESMTP")
        starttls = self._tls_available and not self.client.tls.used
        return replies.extensions(
            self._hostname,
            message_size_limit=self._options.message_size_limit,
            starttls=starttls,
            auth=MECHANISMS if self.client.tls.used and self._auth_available() else (),
        )

    def _mail_from(self, argument: str) -> Reply:
        if not isinstance(self._mail, _Idle):
            return replies.NESTED_MAIL
        if self._too_often(Counted.MESSAGE):
            return replies.too_much_mail(str(self.client.address))
        mail = parse_mail(argument, local_domain=self._options.hostname)
        if isinstance(mail, Reply):
            return mail
        if 0 < self._options.message_size_limit < mail.size:
            return self._rejected("MAIL", replies.DECLARED_TOO_BIG, sender=sender_text(mail.sender))
        refusal = self._disowns(mail.sender, self.client.user) or self._refusal()
        if refusal is not None:
            return self._rejected("MAIL", refusal, sender=sender_text(mail.sender))
        self._mail = mail
        return replies.SENDER_OK

    def _rcpt_to(self, argument: str) -> Reply:
        mail = self._mail
        if isinstance(mail, _Idle):
            return replies.NEED_MAIL
        if self._in_chunks:
            return replies.RCPT_AFTER_BDAT
        if self._too_often(Counted.RECIPIENT):
            return replies.too_many_recipients_of_late(str(self.client.address))
        rcpt = parse_rcpt(argument, local_domain=self._options.hostname, smtputf8=mail.smtputf8)
        if isinstance(rcpt, Reply):
            return rcpt
        sender, recipient = sender_text(mail.sender), rcpt.address.text
        if not (may_send(self.client, self._options.mynetworks) or self._permits(self.client)):
            return self._rejected("RCPT", replies.relay_denied(recipient), sender=sender, recipient=recipient)
        if len(self._recipients) >= self._options.recipient_limit:
            return self._rejected("RCPT", replies.TOO_MANY_RECIPIENTS, sender=sender, recipient=recipient)
        number = RecipientId(len(self._recipients) + 1)
        self._recipients.append(Recipient(id=number, address=rcpt.address, notify=rcpt.notify, orcpt=rcpt.orcpt))
        return replies.RECIPIENT_OK

    def _too_often(self, event: Counted) -> bool:
        count = self._exceeds(event, self.client.address)
        if count:
            self._observe(
                Warned(Program.SMTPD, f"{event.value} limit exceeded: {count} from {self.client} for service smtp")
            )
        return bool(count)

    def _rset(self, argument: str) -> Reply:
        if argument:
            return replies.syntax("RSET")
        self.end_transaction()
        return replies.OK

    def _rejected(self, where: str, reply: Reply, *, sender: str, recipient: str = "") -> Reply:
        self._observe(Rejected(client=self.client, where=where, reply=reply, sender=sender, recipient=recipient))
        return reply
