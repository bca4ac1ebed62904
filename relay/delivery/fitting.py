"""What of a message must be changed for a host before MAIL is sent, or why it cannot go there at all.

A host without 8BITMIME gets a message without octets above 127 (``downgrade``); lines are broken where they are too long
(``lines``). Both are done as the content streams by; the first needs a look at all of it before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from relay.delivery.downgrade import Converter, Survey, Surveyor
from relay.delivery.lines import LineBreaker
from relay.delivery.plan import Extensions, Need, unmet_needs
from relay.mail.envelope import Message, Recipient, sender_text
from relay.mail.reply import EnhancedStatus

Body = Callable[[], AsyncIterator[bytes]]
"""Opens the content; called anew for each pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The message as one host gets it.

    :param message: its ``size`` is 0 where it is not known before it is sent.
    :param body: opens the content.
    """

    message: Message
    body: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfit:
    """Why a host cannot have a message; ``last`` tells that another host may be able to."""

    status: EnhancedStatus
    text: str
    last: bool = True


async def fit(
    message: Message,
    recipients: Sequence[Recipient],
    body: Body,
    *,
    host: str,
    extensions: Extensions,
    line_length_limit: int,
    broke: Callable[[], None],
) -> Fitted | Unfit:
    """Make a message fit for a host.

    :param body: what it raises passes through.
    :param host: as ``name[address]:port``, for people.
    :param line_length_limit: octets of a line; 0 for no limit.
    :param broke: called when a line was broken, once.
    """
    limit = extensions.size_limit
    if limit and message.size > limit:
        text = f"message size {message.size} exceeds size limit {limit} of server {host}"
        return Unfit(status=EnhancedStatus(5, 3, 4), text=text, last=False)
    for need in unmet_needs(message, recipients, extensions):
        if need is Need.SMTPUTF8 and not _has_ascii_addresses(message, recipients):
            return _lacking(need, host)
        survey = await _surveyed(body)
        if need is Need.SMTPUTF8 and survey.eight_bit_headers:
            return _lacking(need, host)
        if "8BITMIME" not in extensions:
            if survey.obstacle:
                return _lacking(Need.EIGHT_BIT_MIME, host, f"; it cannot be converted: {survey.obstacle}")
            message, body = replace(message, size=0, eight_bit=False), _converted(body, survey)
    return Fitted(message=message, body=_broken(body, line_length_limit, broke) if line_length_limit else body)


def _lacking(need: Need, host: str, why: str = "") -> Unfit:
    status = EnhancedStatus(5, 6, 7) if need is Need.SMTPUTF8 else EnhancedStatus(5, 6, 3)
    text = (
        f"message requires {need.value}, but no server was found that supports {need.value}. "
        f"The last attempted server was {host}"
    )
    return Unfit(status=status, text=text + why)


def _has_ascii_addresses(message: Message, recipients: Sequence[Recipient]) -> bool:
    return sender_text(message.envelope.sender).isascii() and all(one.address.is_ascii for one in recipients)


async def _surveyed(body: Body) -> Survey:
    surveyor = Surveyor()
    async for chunk in body():
        surveyor.feed(chunk)
    return surveyor.survey()


def _converted(body: Body, survey: Survey) -> Body:
    async def converted() -> AsyncIterator[bytes]:
        converter = Converter(survey)
        async for chunk in body():
            if octets := converter.feed(chunk):
                yield octets
        if octets := converter.end():
            yield octets

    return converted


def _broken(body: Body, limit: int, broke: Callable[[], None]) -> Body:
    async def broken() -> AsyncIterator[bytes]:
        breaker, told = LineBreaker(limit), False
        async for chunk in body():
            octets = breaker.feed(chunk)
            if breaker.broke and not told:
                told = True
                broke()
            yield octets

    return broken
