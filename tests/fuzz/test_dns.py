"""DNS responses that have been tampered with: no exception leaves the room, and nothing becomes secure by itself."""

from __future__ import annotations

import struct
from typing import Final

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest
from dns.rdatatype import RdataType
from hypothesis import event, given, settings
from hypothesis import strategies as st

from relay.dane.tlsa import classify
from relay.dns.answer import (
    Answer,
    Bogus,
    Found,
    LookupFailed,
    NoData,
    NxDomain,
    RRType,
    parse_address,
    parse_mx,
    parse_name,
)
from relay.dns.message import MAX_TTL, MalformedResponse, answer_of, build_query, read_response
from relay.mail.names import Domain
from tests.fuzz.effort import LONG, QUICK
from tests.fuzz.mutation import changed_octets

NAME: Final = Domain("_25._tcp.mx.example")
QUERY_ID: Final = 4711
MAX_REASON: Final = 2_000
_OPT_OCTETS: Final = 11  # the last record of our queries
_BOGUS: Final = dns.edns.EDEOption(dns.edns.EDECode.DNSSEC_BOGUS, "signature crypto failed")
_DIGEST: Final = "ab" * 32
_SOA: Final = "example. 300 IN SOA ns.example. root.example. 1 7200 900 1209600 86400"
_SIGNED: Final = (
    "{owner} 300 IN RRSIG {kind} 13 4 300 20300101000000 20200101000000 4711 example. "
    "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
)


def response(
    rrtype: RRType,
    *answer: str,
    authority: tuple[str, ...] = (),
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR,
    error: dns.edns.EDEOption | None = None,
    ad: bool = True,
) -> bytes:
    """What an honest validating resolver sends."""
    message = dns.message.make_response(dns.message.from_wire(build_query(NAME, rrtype, QUERY_ID)))
    message.set_rcode(rcode)
    message.flags |= dns.flags.RA | (dns.flags.AD if ad else 0)
    for section, texts in ((message.answer, answer), (message.authority, authority)):
        for text in texts:
            owner, ttl, _, kind, rdata = text.split(" ", 4)
            section.append(dns.rrset.from_text(owner, int(ttl), "IN", kind, rdata))
    if error is not None:
        message.use_edns(0, 0, 1232, options=[error])
    return message.to_wire()


OWNER: Final = f"{NAME}."
RESPONSES: Final[dict[RRType, list[bytes]]] = {
    RRType.TLSA: [
        response(RRType.TLSA, f"{OWNER} 300 IN TLSA 3 1 1 {_DIGEST}"),
        response(
            RRType.TLSA,
            f"{OWNER} 300 IN CNAME tlsa.example.",
            "tlsa.example. 60 IN CNAME other.example.",
            f"other.example. 3600 IN TLSA 2 1 1 {_DIGEST}",
            _SIGNED.format(owner="other.example.", kind="TLSA"),
        ),
        response(RRType.TLSA, authority=(_SOA,)),
        response(RRType.TLSA, f"{OWNER} 300 IN CNAME gone.example.", authority=(_SOA,), rcode=dns.rcode.NXDOMAIN),
        response(RRType.TLSA, authority=(_SOA,), ad=False),
        response(
            RRType.TLSA,
            rcode=dns.rcode.SERVFAIL,
            error=dns.edns.EDEOption(dns.edns.EDECode.DNSSEC_BOGUS, "signature crypto failed"),
        ),
        response(RRType.TLSA, rcode=dns.rcode.REFUSED),
    ],
    RRType.MX: [
        response(RRType.MX, f"{OWNER} 300 IN MX 10 mx.example.", _SIGNED.format(owner=OWNER, kind="MX")),
        response(RRType.MX, f"{OWNER} 300 IN CNAME x.example.", "x.example. 300 IN MX 0 ."),
    ],
    RRType.A: [response(RRType.A, f"{OWNER} 300 IN A 192.0.2.1", ad=False)],
    RRType.CNAME: [response(RRType.CNAME, f"{OWNER} 300 IN CNAME mx.example.")],
}
ALL: Final = [wire for wires in RESPONSES.values() for wire in wires]


def read(wire: bytes, rrtype: RRType) -> None:
    """Everything of ours that reads a response, and what must hold of it."""
    try:
        parsed = read_response(wire, name=NAME, rrtype=rrtype, query_id=QUERY_ID)
    except MalformedResponse:
        event("malformed")
        return
    answer = answer_of(parsed, name=NAME, rrtype=rrtype, trusted=True)
    event(type(answer).__name__)
    match answer:
        case Found() | NoData() | NxDomain():
            assert not answer.secure or wire[3] & 0x20, "secure without AD"
            assert 0 <= answer.ttl <= MAX_TTL
            assert isinstance(answer.canonical, Domain)
        case Bogus(why) | LookupFailed(_, why):
            assert len(why) < MAX_REASON
            assert why.isprintable()
    untrusted = answer_of(parsed, name=NAME, rrtype=rrtype, trusted=False)
    assert type(untrusted) is type(answer)
    assert not getattr(untrusted, "secure", False)
    if isinstance(answer, Found):
        records(answer, rrtype)
        if rrtype is RRType.NS:  # only ever asked for its AD bit (relay/dns/probe.py); its names stay compressed
            return
        as_dnspython_has_it(wire, rrtype, answer)


def records(answer: Found, rrtype: RRType) -> None:
    """The rooms behind take any RDATA."""
    assert answer.rdata
    if rrtype is RRType.TLSA:
        classify(NAME, answer.rdata)
    for rdata in answer.rdata:
        parse_mx(rdata)
        parse_address(rdata)
        parse_name(rdata)


def as_dnspython_has_it(wire: bytes, rrtype: RRType, ours: Answer) -> None:
    """Where dnspython can read the message too, it finds the same records."""
    try:
        chain = dns.message.from_wire(wire, ignore_trailing=True).resolve_chaining()  # type: ignore[attr-defined] # of QueryMessage
    except (dns.exception.DNSException, AttributeError, ValueError):
        event("beyond dnspython")
        return
    if chain.answer is None or not isinstance(ours, Found):
        return
    event("the same as dnspython")
    theirs = {rdata.to_digestable() for rdata in chain.answer}
    if rrtype in (RRType.MX, RRType.CNAME):  # names have no case (nor have preferences to this comparison)
        assert {rdata.lower() for rdata in theirs} == {rdata.lower() for rdata in ours.rdata}
    else:
        assert theirs == set(ours.rdata)


def question_end(rrtype: RRType) -> int:
    """Where the answers begin."""
    return len(build_query(NAME, rrtype, QUERY_ID)) - _OPT_OCTETS


@st.composite
def tampered(draw: st.DrawFn) -> tuple[bytes, RRType]:
    """A response to our question with changes behind the question, and sometimes in the header."""
    rrtype = draw(st.sampled_from(sorted(RESPONSES)))
    wire = draw(st.sampled_from(RESPONSES[rrtype]))
    end = question_end(rrtype)
    head = bytearray(wire[:end])
    if draw(st.integers(0, 3)) == 0:
        head[draw(st.integers(2, 11))] ^= 1 << draw(st.integers(0, 7))
    return bytes(head) + draw(changed_octets([wire[end:]], 2)), rrtype


@st.composite
def composed(draw: st.DrawFn) -> tuple[bytes, RRType]:
    """A response made of well-formed records with anything in them."""
    rrtype = draw(st.sampled_from(list(RRType)))
    counts = [draw(st.integers(0, most)) for most in (4, 1, 1)]
    flags = draw(st.sampled_from((0x8180, 0x81A0, 0x81A2, 0x81A3, 0x8382, 0x81A5)))
    head = struct.pack("!6H", QUERY_ID, flags, 1, *counts)
    head += build_query(NAME, rrtype, QUERY_ID)[12 : question_end(rrtype)]
    return head + b"".join(draw(_record(rrtype, len(head))) for _ in range(sum(counts))), rrtype


@st.composite
def _record(draw: st.DrawFn, rrtype: RRType, before: int) -> bytes:
    names = st.one_of(
        st.sampled_from((b"\xc0\x0c", b"\0", b"\x01a\0", b"\x01A\xc0\x0c", b"\x03a.b\xc0\x0c", b"\x02\xff\x00\0")),
        st.integers(0, before).map(lambda offset: (0xC000 | offset).to_bytes(2, "big")),
    )
    kind = draw(st.sampled_from((int(rrtype), RRType.CNAME, RRType.SOA, RRType.TXT, 41, 46)))
    data = draw(st.one_of(names, st.binary(max_size=40), st.builds(lambda name: b"\0\x0a" + name, names)))
    if kind == RRType.SOA and draw(st.booleans()):
        data = draw(names) + draw(names) + draw(st.binary(min_size=20, max_size=20))
    rrclass = draw(st.sampled_from((1, 1, 1, 1, 3, 255, 1232)))
    ttl = draw(st.integers(0, (1 << 32) - 1))
    return draw(names) + struct.pack("!HHIH", kind, rrclass, ttl, len(data)) + data


@QUICK
@given(tampered())
def test_tampered_responses(case: tuple[bytes, RRType]) -> None:
    read(*case)


@settings(QUICK, max_examples=QUICK.max_examples // 2)
@given(composed())
def test_composed_responses(case: tuple[bytes, RRType]) -> None:
    read(*case)


@QUICK
@given(changed_octets(ALL), st.sampled_from(list(RRType)))
def test_responses_to_other_questions(wire: bytes, rrtype: RRType) -> None:
    read(wire, rrtype)


@pytest.mark.long
@LONG
@given(st.one_of(tampered(), composed()))
def test_many_responses(case: tuple[bytes, RRType]) -> None:
    read(*case)


def test_the_originals_are_read() -> None:
    """Otherwise the mutations of them would prove nothing."""
    kinds = [
        type(
            answer_of(
                read_response(wire, name=NAME, rrtype=rrtype, query_id=QUERY_ID), name=NAME, rrtype=rrtype, trusted=True
            )
        )
        for rrtype, wires in RESPONSES.items()
        for wire in wires
    ]
    assert kinds == [Found, Found, NoData, NxDomain, NoData, Bogus, LookupFailed, Found, Found, Found, Found]
    assert dns.message.from_wire(ALL[1]).answer[2].rdtype == RdataType.TLSA
