"""DNS messages to and from wire octets, and the answer that a response amounts to.

dnspython parses names and builds queries; records are walked here, because its message parser refuses a whole answer for
one malformed TLSA record, and such a record must spoil only itself (RFC 7671 section 9).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.wire
from dns.rdatatype import RdataType

from relay.dns.answer import Answer, Bogus, Found, LookupFailed, LookupFault, NoData, NxDomain, RRType
from relay.mail.names import BadName, Domain

MAX_RECORDS = 400
MAX_CNAMES = 10  # as Postfix's DNS_LOOKUP limit on chains (dns_lookup.c)
MAX_TTL = 7 * 86400
EDNS_PAYLOAD = 1232

ROOT = Domain("")

_OPT = 41
_EDE = 15
# Extended errors that say "validation failed", as against "could not be asked" (RFC 8914 section 4).
_BOGUS_ERRORS = frozenset({1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 25, 27})
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


class MalformedResponse(Exception):  # noqa: N818 - it names the state of the octets
    """A response that is not one, or not to our question."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record as found; RDATA of MX, CNAME and SOA with its names uncompressed."""

    owner: str
    rrtype: int
    ttl: int
    rdata: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What matters of a response."""

    rcode: int
    authentic: bool
    truncated: bool
    answer: tuple[Record, ...]
    authority: tuple[Record, ...]
    extended_errors: tuple[tuple[int, str], ...]


def build_query(name: Domain, rrtype: RRType, query_id: int) -> bytes:
    """A query with RD, AD (RFC 6840 section 5.7: tell me whether it is authentic) and EDNS."""
    query = dns.message.make_query(
        dns_name(name),
        RdataType.make(int(rrtype)),
        flags=dns.flags.RD | dns.flags.AD,
        use_edns=0,
        payload=EDNS_PAYLOAD,
        id=query_id,
    )
    return query.to_wire()


def dns_name(name: Domain) -> dns.name.Name:
    """The name as dnspython has it."""
    return dns.name.from_text(name.name, dns.name.root) if name.name else dns.name.root


def read_response(wire: bytes, *, name: Domain, rrtype: RRType, query_id: int) -> Response:
    """Parse a response and check that it answers our question.

    :raises MalformedResponse: if it does not, or cannot be parsed.
    """
    try:
        return _read(wire, name, rrtype, query_id)
    except (dns.exception.DNSException, ValueError, IndexError) as error:
        raise MalformedResponse(f"{type(error).__name__}") from None


def _read(wire: bytes, name: Domain, rrtype: RRType, query_id: int) -> Response:
    parser = dns.wire.Parser(wire)
    got_id, flags, questions, answers, authorities, additionals = parser.get_struct("!HHHHHH")
    if got_id != query_id or not flags & dns.flags.QR or flags & 0x7800:
        raise MalformedResponse("not a response to this query")
    if questions == 1:
        asked = _text(parser.get_name(decompress=True))
        if asked != name.name or parser.get_struct("!HH") != (int(rrtype), 1):
            raise MalformedResponse("a response to another question")
    elif questions or flags & 0xF == dns.rcode.NOERROR:
        raise MalformedResponse("a response without the question")
    if answers + authorities + additionals > MAX_RECORDS:
        raise MalformedResponse(f"more than {MAX_RECORDS} records")
    truncated = bool(flags & dns.flags.TC)
    if truncated:
        answers = authorities = additionals = 0
    answer = tuple(_record(parser) for _ in range(answers))
    authority = tuple(_record(parser) for _ in range(authorities))
    additional = tuple(_record(parser) for _ in range(additionals))
    options = [record for record in additional if record.rrtype == _OPT]
    # An OPT record keeps the upper bits of the rcode in its TTL field (RFC 6891 section 6.1.3).
    rcode = (flags & 0xF) | ((options[0].ttl >> 24 & 0xFF) << 4 if options else 0)
    return Response(
        rcode=rcode,
        authentic=bool(flags & dns.flags.AD),
        truncated=truncated,
        answer=answer,
        authority=authority,
        extended_errors=tuple(error for option in options for error in _extended_errors(option.rdata)),
    )


def _record(parser: dns.wire.Parser) -> Record:
    owner = _text(parser.get_name(decompress=True))
    rrtype, rrclass, ttl, length = parser.get_struct("!HHIH")
    with parser.restrict_to(length):
        if rrclass != 1:
            rdata = parser.get_remaining()
        elif rrtype == RRType.MX:
            rdata = parser.get_bytes(2) + _wire(parser)
        elif rrtype == RRType.CNAME:
            rdata = _wire(parser)
        elif rrtype == RRType.SOA:
            rdata = _wire(parser) + _wire(parser) + parser.get_bytes(20)
        else:
            rdata = parser.get_remaining()
    return Record(owner, rrtype if rrclass == 1 or rrtype == _OPT else 0, ttl, rdata)


def _wire(parser: dns.wire.Parser) -> bytes:
    return parser.get_name(decompress=True).to_wire() or b""


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower() if name != dns.name.root else ""


def _extended_errors(options: bytes) -> list[tuple[int, str]]:
    errors: list[tuple[int, str]] = []
    at = 0
    while at + 4 <= len(options) and len(errors) < 8:
        code, length = int.from_bytes(options[at : at + 2], "big"), int.from_bytes(options[at + 2 : at + 4], "big")
        value = options[at + 4 : at + 4 + length]
        if code == _EDE and len(value) >= 2:
            text = _UNPRINTABLE.sub("?", value[2:].decode("utf-8", "replace"))[:200]
            errors.append((int.from_bytes(value[:2], "big"), text))
        at += 4 + length
    return errors


def answer_of(response: Response, *, name: Domain, rrtype: RRType, trusted: bool) -> Answer:
    """What a response says about the records of one type at one name.

    :param trusted: whether this server's AD bit counts (DESIGN section 6); if not, nothing it says is secure.
    """
    if response.rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return _failure(response)
    secure = response.authentic and trusted
    canonical, ttl = name.name, MAX_TTL
    for _ in range(MAX_CNAMES + 1):
        # A TTL with its top bit set counts as zero (RFC 2181 section 8).
        records = [r for r in response.answer if r.rrtype == rrtype and r.owner == canonical]
        if records:
            ttl = min([ttl, *(_ttl(record) for record in records)])
            return Found(
                canonical=_domain(canonical, name), rdata=tuple(r.rdata for r in records), secure=secure, ttl=ttl
            )
        alias = next((r for r in response.answer if r.rrtype == RRType.CNAME and r.owner == canonical), None)
        if alias is None:
            break
        canonical, ttl = _target(alias.rdata), min(ttl, _ttl(alias))
    else:
        return LookupFailed(LookupFault.LIMIT, f"more than {MAX_CNAMES} CNAME records in a row")
    ttl = min(ttl, _negative_ttl(response.authority))
    kind = NxDomain if response.rcode == dns.rcode.NXDOMAIN else NoData
    return kind(canonical=_domain(canonical, name), secure=secure, ttl=ttl)


def _failure(response: Response) -> Answer:
    reasons = [f"{code}: {text}" if text else str(code) for code, text in response.extended_errors]
    said = f" ({'; '.join(reasons)})" if reasons else ""
    if response.rcode == dns.rcode.SERVFAIL:
        if any(code in _BOGUS_ERRORS for code, _ in response.extended_errors):
            return Bogus(f"DNSSEC validation failure{said}")
        return LookupFailed(LookupFault.SERVFAIL, f"SERVFAIL{said}")
    if response.rcode == dns.rcode.REFUSED:
        return LookupFailed(LookupFault.REFUSED, f"REFUSED{said}")
    return LookupFailed(LookupFault.MALFORMED, f"rcode {response.rcode}{said}")


def _ttl(record: Record) -> int:
    return 0 if record.ttl >= 1 << 31 else min(record.ttl, MAX_TTL)


def _negative_ttl(authority: tuple[Record, ...]) -> int:
    """RFC 2308 section 5: the smaller of the SOA record's TTL and its MINIMUM; 0 where there is none."""
    soas = [record for record in authority if record.rrtype == RRType.SOA and len(record.rdata) >= 4]
    return min((min(_ttl(soa), int.from_bytes(soa.rdata[-4:], "big")) for soa in soas), default=0)


def _target(rdata: bytes) -> str:
    return _text(dns.name.from_wire(rdata, 0)[0])


def _domain(text: str, asked: Domain) -> Domain:
    """The owner of the records; a name that is no host name (spaces, escapes) is kept as octets say, in lower case."""
    if text == asked.name:
        return asked
    try:
        return Domain.parse(text)
    except BadName:
        return Domain(text)
