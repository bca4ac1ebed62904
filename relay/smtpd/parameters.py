"""The arguments of MAIL and RCPT, parsed into what the envelope carries, or into the reply that refuses them. Pure.

RFC 5321 sections 4.1.1.2, 4.1.1.3 and 4.1.2; SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), RET, ENVID, NOTIFY
and ORCPT (RFC 3461, 6533), AUTH (RFC 4954 section 5). Strict where a lax reading could be read in two ways (angle
brackets, what follows them, parameters given twice), lax where only taste is at stake (dots of a local part).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from relay.mail.envelope import NULL_SENDER, Address, BodyType, Notify, Ret, Sender
from relay.mail.names import BadName, Domain, IpLiteral
from relay.mail.reply import Reply
from relay.smtpd import replies

# RFC 5321 section 4.5.3.1 says 64 for a local part and 256 for a path, and asks for more where possible; SRS needs it.
MAX_PATH_OCTETS = 512
MAX_ENVID_OCTETS = 100
MAX_ORCPT_OCTETS = 500
MAX_PARAMETERS = 16

_USAGE_MAIL = replies.syntax("MAIL FROM:<address>")
_USAGE_RCPT = replies.syntax("RCPT TO:<address>")

# A source route (RFC 5321 appendix C) is read over; controls, also those above ASCII, are nowhere allowed.
_PATH = re.compile(
    r"""<(?:@[^\s<>":]+:)?
        (?P<local>"(?:[^\x00-\x1f\x7f-\x9f"\\]|\\[\x20-\x7e])*"
          |[^\x00-\x20\x7f-\xa0\u2028\u2029()<>@,;:\\"\[\]]+)?
        (?:@(?P<domain>\[[0-9A-Za-z:.]{2,64}\]|[^\x00-\x20\x7f-\xa0\u2028\u2029()<>@,;:\\"\[\]]+))?
        >(?P<rest>(?:\ .*)?)""",
    re.VERBOSE,
)
_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
# Encoded controls are refused: what is decoded into a report later must not bring line ends (RFC 3461 section 4.4).
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+(?:[2-6][0-9A-F]|7[0-9A-E]))+")
_NUMBER = re.compile(r"[0-9]{1,20}")
_ORCPT = re.compile(r"(?P<type>[A-Za-z0-9-]{1,64});(?P<value>[^\x00-\x20\x7f-\xa0=\u2028\u2029]+)")
_NOTIFY: Final = {"SUCCESS": Notify.SUCCESS, "FAILURE": Notify.FAILURE, "DELAY": Notify.DELAY}


@dataclass(frozen=True, slots=True, kw_only=True)
class MailParameters:
    """What a MAIL command says; ``size`` is the declared one in octets, 0 if there was none."""

    sender: Sender
    size: int = 0
    body: BodyType = BodyType.SEVEN_BIT
    smtputf8: bool = False
    ret: Ret = Ret.UNSPECIFIED
    envid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RcptParameters:
    """What a RCPT command says."""

    address: Address
    notify: Notify = Notify.UNSPECIFIED
    orcpt: str = ""


class _Refused(Exception):  # noqa: N818 - a refusal on its way out of this file's parsers, not an error
    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.reply = reply


def parse_mail(argument: str, *, local_domain: Domain) -> MailParameters | Reply:
    """Read what follows ``MAIL``: ``FROM:<reverse-path>`` and parameters.

    :param argument: decoded, without the line end.
    :param local_domain: ours; what ``<postmaster>`` without a domain belongs to.
    :return: a Reply if the command is to be refused.
    """
    try:
        address, parameters = _split(argument, "FROM:", local_domain, usage=_USAGE_MAIL, bad=replies.BAD_SENDER)
        return _mail(address, parameters)
    except _Refused as refused:
        return refused.reply


def parse_rcpt(argument: str, *, local_domain: Domain, smtputf8: bool) -> RcptParameters | Reply:
    """Read what follows ``RCPT``: ``TO:<forward-path>`` and parameters.

    :param smtputf8: whether MAIL declared it; without it an address must be ASCII (RFC 6531 section 3.1).
    :return: a Reply if the command is to be refused.
    """
    try:
        address, parameters = _split(argument, "TO:", local_domain, usage=_USAGE_RCPT, bad=replies.BAD_RECIPIENT)
        if not isinstance(address, Address):
            raise _Refused(replies.BAD_RECIPIENT)
        if not address.is_ascii and not smtputf8:
            raise _Refused(replies.UNDECLARED_UNICODE)
        return _rcpt(address, parameters, smtputf8=smtputf8)
    except _Refused as refused:
        return refused.reply


def _mail(sender: Sender, parameters: dict[str, str]) -> MailParameters:
    size, body, smtputf8, ret, envid = 0, BodyType.SEVEN_BIT, False, Ret.UNSPECIFIED, ""
    for option, value in parameters.items():
        match option.partition("=")[0].upper():
            case "SIZE":
                size = int(_fitting(_NUMBER, value, replies.BAD_SIZE))
            case "BODY":
                body = _body(value)
            case "SMTPUTF8":
                if "=" in option:
                    raise _Refused(replies.BAD_SMTPUTF8)
                smtputf8 = True
            case "RET":
                if value.upper() not in {Ret.FULL.value, Ret.HDRS.value}:
                    raise _Refused(replies.BAD_RET)
                ret = Ret(value.upper())
            case "ENVID":
                envid = _fitting(_XTEXT, value, replies.BAD_ENVID, limit=MAX_ENVID_OCTETS)
            case "AUTH":
                # Who submitted it, said by a client that we have no reason to believe: treated as <> (RFC 4954 section 5).
                _fitting(_XTEXT, value, replies.BAD_AUTH, limit=MAX_PATH_OCTETS)
            case _:
                # REQUIRETLS (RFC 8689) also ends here: who asks for it must hear that we cannot promise it yet.
                raise _Refused(replies.unsupported_option(option))
    if isinstance(sender, Address) and not sender.is_ascii and not smtputf8:
        raise _Refused(replies.UNDECLARED_UNICODE)
    return MailParameters(sender=sender, size=size, body=body, smtputf8=smtputf8, ret=ret, envid=envid)


def _rcpt(address: Address, parameters: dict[str, str], *, smtputf8: bool) -> RcptParameters:
    notify, orcpt = Notify.UNSPECIFIED, ""
    for option, value in parameters.items():
        match option.partition("=")[0].upper():
            case "NOTIFY":
                notify = _notify(value)
            case "ORCPT":
                orcpt = _orcpt(value, smtputf8=smtputf8)
            case _:
                raise _Refused(replies.unsupported_option(option))
    return RcptParameters(address=address, notify=notify, orcpt=orcpt)


def _split(
    argument: str, prefix: str, local_domain: Domain, *, usage: Reply, bad: Reply
) -> tuple[Sender, dict[str, str]]:
    """The address, and each parameter's value by the parameter as written."""
    if argument[: len(prefix)].upper() != prefix:
        raise _Refused(usage)
    path = argument[len(prefix) :].strip(" ")
    if not path.startswith("<"):
        raise _Refused(usage)
    match = _PATH.fullmatch(path)
    if (
        match is None
        or len(path.encode("utf-8", "replace")) - len(match["rest"].encode("utf-8", "replace")) > MAX_PATH_OCTETS
    ):
        raise _Refused(bad)
    return _address(match, path, local_domain, bad), _parameters(match["rest"], usage)


def _address(match: re.Match[str], path: str, local_domain: Domain, bad: Reply) -> Sender:
    local, domain = match["local"], match["domain"]
    if local is None:
        if not path.startswith("<>"):
            raise _Refused(bad)
        return NULL_SENDER
    if domain is None:
        if local.lower() != "postmaster":
            raise _Refused(bad)
        return Address(f"{local}@{local_domain}", local_domain)
    try:
        where = IpLiteral.parse(domain[1:-1]) if domain.startswith("[") else Domain.parse(domain)
    except BadName:
        raise _Refused(bad) from None
    return Address(f"{local}@{domain.removesuffix('.')}", where)


def _parameters(rest: str, usage: Reply) -> dict[str, str]:
    parameters: dict[str, str] = {}
    seen: set[str] = set()
    options = rest.split()
    if len(options) > MAX_PARAMETERS:
        raise _Refused(usage)
    for option in options:
        keyword, _, value = option.partition("=")
        if not _KEYWORD.fullmatch(keyword):
            raise _Refused(replies.unsupported_option(option))
        if keyword.upper() in seen:
            raise _Refused(usage)
        seen.add(keyword.upper())
        parameters[option] = value
    return parameters


def _fitting(pattern: re.Pattern[str], value: str, bad: Reply, *, limit: int = MAX_PATH_OCTETS) -> str:
    if len(value) > limit or not pattern.fullmatch(value):
        raise _Refused(bad)
    return value


def _body(value: str) -> BodyType:
    try:
        return BodyType(value.upper())
    except ValueError:
        if not value:
            raise _Refused(replies.BAD_BODY) from None
        raise _Refused(replies.unsupported_option(f"BODY={value}")) from None


def _notify(value: str) -> Notify:
    words = value.upper().split(",")
    if words == ["NEVER"]:
        return Notify.NEVER
    notify = Notify.UNSPECIFIED
    for word in words:
        if word not in _NOTIFY:
            raise _Refused(replies.BAD_NOTIFY)
        notify |= _NOTIFY[word]
    return notify


def _orcpt(value: str, *, smtputf8: bool) -> str:
    match = _ORCPT.fullmatch(value)
    if match is None or len(value) > MAX_ORCPT_OCTETS:
        raise _Refused(replies.BAD_ORCPT)
    # utf-8 addresses have an encoding of their own, and stand unencoded in an SMTPUTF8 transaction (RFC 6533 section 3).
    fits = _XTEXT.fullmatch(match["value"]) if match["type"].lower() != "utf-8" else value.isascii() or smtputf8
    if not fits:
        raise _Refused(replies.BAD_ORCPT)
    return value
