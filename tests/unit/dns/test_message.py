"""Responses in any shape, honest or hostile, and the answers they amount to."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from dns.rdatatype import RdataType
from hypothesis import given
from hypothesis import strategies as st

from relay.dns.answer import (
    Answer,
    Bogus,
    Found,
    LookupFailed,
    LookupFault,
    NoData,
    NxDomain,
    RRType,
    parse_mx,
    parse_name,
)
from relay.dns.message import MAX_CNAMES, MalformedResponse, answer_of, build_query, read_response
from relay.mail.names import Domain
from tests.zone import mx_rdata, name_rdata

NAME = Domain("mx.example")
QUERY_ID = 4711


def respond(
    rrtype: RRType, *rrsets: str, ad: bool = True, rcode: dns.rcode.Rcode = dns.rcode.NOERROR
) -> dns.message.Message:
    query = dns.message.from_wire(build_query(NAME, rrtype, QUERY_ID))
    response = dns.message.make_response(query)
    response.set_rcode(rcode)
    if ad:
        response.flags |= dns.flags.AD
    for text in rrsets:
        owner, ttl, kind, rdata = text.split(" ", 3)
        response.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", kind, rdata))
    return response


def read(wire: bytes, rrtype: RRType, *, trusted: bool = True) -> Answer:
    response = read_response(wire, name=NAME, rrtype=rrtype, query_id=QUERY_ID)
    return answer_of(response, name=NAME, rrtype=rrtype, trusted=trusted)


def test_query_asks_for_authentic_data_over_edns() -> None:
    query = dns.message.from_wire(build_query(NAME, RRType.MX, QUERY_ID))
    assert query.flags == dns.flags.RD | dns.flags.AD
    assert (query.edns, query.payload, query.id) == (0, 1232, QUERY_ID)
    assert query.question[0].rdtype == RdataType.MX


def test_secure_only_with_ad_from_a_trusted_server() -> None:
    wire = respond(RRType.A, "mx.example. 60 A 192.0.2.1").to_wire()
    bare = respond(RRType.A, "mx.example. 60 A 192.0.2.1", ad=False).to_wire()
    expected = Found(canonical=NAME, rdata=(bytes([192, 0, 2, 1]),), secure=True, ttl=60)
    assert read(wire, RRType.A) == expected
    for answer in (read(wire, RRType.A, trusted=False), read(bare, RRType.A)):
        assert isinstance(answer, Found)
        assert not answer.secure


def test_cname_chain_gives_canonical_name_and_smallest_ttl() -> None:
    wire = respond(
        RRType.A, "mx.example. 300 CNAME b.example.", "b.example. 20 CNAME C.example.", "c.example. 60 A 192.0.2.1"
    ).to_wire()
    assert read(wire, RRType.A) == Found(
        canonical=Domain("c.example"), rdata=(bytes([192, 0, 2, 1]),), secure=True, ttl=20
    )


def test_cname_loop_is_a_failure_and_ends() -> None:
    wire = respond(RRType.A, "mx.example. 300 CNAME b.example.", "b.example. 20 CNAME mx.example.").to_wire()
    answer = read(wire, RRType.A)
    assert isinstance(answer, LookupFailed)
    assert answer.fault is LookupFault.LIMIT
    assert str(MAX_CNAMES) in answer.why


@pytest.mark.parametrize(("rcode", "kind"), [(dns.rcode.NOERROR, NoData), (dns.rcode.NXDOMAIN, NxDomain)])
def test_denial_keeps_the_negative_ttl(rcode: dns.rcode.Rcode, kind: type[NoData | NxDomain]) -> None:
    response = respond(RRType.TLSA, rcode=rcode)
    response.authority.append(dns.rrset.from_text("example.", 900, "IN", "SOA", "ns. root. 1 2 3 4 77"))
    assert read(response.to_wire(), RRType.TLSA) == kind(canonical=NAME, secure=True, ttl=77)


def test_servfail_with_a_validation_error_is_bogus() -> None:
    response = respond(RRType.MX, rcode=dns.rcode.SERVFAIL, ad=False)
    response.use_edns(
        0, 0, 1232, options=[dns.edns.EDEOption(dns.edns.EDECode.SIGNATURE_EXPIRED, "signature\nexpired")]
    )
    assert read(response.to_wire(), RRType.MX) == Bogus("DNSSEC validation failure (7: signature?expired)")


@pytest.mark.parametrize(
    ("rcode", "fault"),
    [
        (dns.rcode.SERVFAIL, LookupFault.SERVFAIL),
        (dns.rcode.REFUSED, LookupFault.REFUSED),
        (dns.rcode.FORMERR, LookupFault.MALFORMED),
    ],
)
def test_other_failures_stay_apart(rcode: dns.rcode.Rcode, fault: LookupFault) -> None:
    answer = read(respond(RRType.MX, rcode=rcode, ad=False).to_wire(), RRType.MX)
    assert isinstance(answer, LookupFailed)
    assert answer.fault is fault


def test_a_malformed_tlsa_record_spoils_only_itself() -> None:
    good = "03 01 01 " + "ab" * 32
    wire = respond(
        RRType.TLSA,
        f"mx.example. 60 TLSA \\# 35 {good}",
    ).to_wire()
    # A second record with two octets of RDATA, which dnspython would refuse to make or to read.
    owner = b"\x02mx\x07example\x00"
    record = owner + b"\x00\x34\x00\x01\x00\x00\x00\x3c\x00\x02\x03\x01"
    header_and_question = 12 + len(owner) + 4
    wire = wire[:6] + b"\x00\x02" + wire[8:header_and_question] + record + wire[header_and_question:]
    answer = read(wire, RRType.TLSA)
    assert isinstance(answer, Found)
    assert set(answer.rdata) == {b"\x03\x01", bytes.fromhex(good)}


def test_mx_exchange_is_uncompressed() -> None:
    answer = read(respond(RRType.MX, "mx.example. 60 MX 10 a.mx.example.").to_wire(), RRType.MX)
    assert isinstance(answer, Found)
    assert answer.rdata == (mx_rdata(10, "a.mx.example"),)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda wire: b"\0\0" + wire[2:],  # another query's id
        lambda wire: wire[:2] + b"\0" + wire[3:],  # not a response
        lambda wire: wire[:13] + b"z" + wire[14:],  # another question
        lambda wire: wire[:4] + b"\0\0" + wire[6:],  # no question
        lambda wire: wire[:-3],  # cut short
        lambda wire: b"",
    ],
)
def test_what_is_not_our_answer_is_refused(spoil: object) -> None:
    assert callable(spoil)
    wire = spoil(respond(RRType.A, "mx.example. 60 A 192.0.2.1").to_wire())
    with pytest.raises(MalformedResponse):
        read_response(wire, name=NAME, rrtype=RRType.A, query_id=QUERY_ID)


@given(st.binary(max_size=80), st.integers(0, 60), st.sampled_from(list(RRType)))
def test_hostile_octets_never_raise_anything_else(junk: bytes, at: int, rrtype: RRType) -> None:
    wire = respond(RRType.MX, "mx.example. 60 MX 10 a.mx.example.", "mx.example. 60 CNAME b.example.").to_wire()
    mutated = wire[:at] + junk + wire[at + len(junk) :]
    try:
        response = read_response(mutated, name=NAME, rrtype=rrtype, query_id=QUERY_ID)
        answer_of(response, name=NAME, rrtype=rrtype, trusted=True)
    except MalformedResponse:
        pass


@given(st.binary(max_size=300))
def test_rdata_parsers_take_any_octets(rdata: bytes) -> None:
    parse_mx(rdata)
    parse_name(rdata)


def test_mx_names_that_are_no_host_names() -> None:
    assert parse_mx(b"\0\0\0") is not None
    assert parse_mx(b"\0\x0a" + b"\x05a b.c\x00") is None
    assert parse_name(name_rdata("mx.example")) == NAME
