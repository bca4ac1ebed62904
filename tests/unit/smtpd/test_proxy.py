from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.smtpd.introduction import Introduction
from relay.smtpd.proxy import MAX_OCTETS, BadHeader, Incomplete, crc32c, read_header
from tests.unit.smtpd.proxy_headers import GOOD, SIGNATURE, V4, summed, tlv, v2

BAD = [
    b"EHLO client.example\r\n",
    b"\x16\x03\x01",
    b"proxy TCP4 192.0.2.7 198.51.100.1 56324 25\r\n",
    b"PROXY  TCP4 192.0.2.7 198.51.100.1 56324 25\r\n",
    b"PROXY TCP4  192.0.2.7 198.51.100.1 56324 25\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 25 \r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\r\r\n",
    b"PROXY TCP4 192.0.2.07 198.51.100.1 56324 25\r\n",
    b"PROXY TCP4 192.0.2 198.51.100.1 56324 25\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.256 56324 25\r\n",
    b"PROXY TCP4 2001:db8::7 2001:db8::1 56324 25\r\n",
    b"PROXY TCP6 192.0.2.7 198.51.100.1 56324 25\r\n",
    b"PROXY TCP6 fe80::1%eth0 2001:db8::1 56324 25\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 056324 25\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 25\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 +1 25\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 \xc2\xb2 25\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
    b"PROXY UDP4 192.0.2.7 198.51.100.1 56324 25\r\n",
    b"PROXY \r\n",
    b"PROXY UNKNOWNX\r\n",
    b"PROXY UNKNOWN " + b"x" * 107,
    v2(V4, first=0x11),
    v2(V4, first=0x22),
    v2(V4, first=0x2F),
    v2(V4, family=0x41),
    v2(V4, family=0x13),
    v2(V4[:11]),
    v2(V4, family=0x21),
    v2(bytes(215), family=0x31),
    v2(V4 + b"\x01"),
    v2(V4 + tlv(5, b"id")[:-1]),
    v2(V4 + tlv(3, b"")),
    summed(V4, change=1),
    v2(b"", length=MAX_OCTETS - 15),
    v2(b"", length=65535),
    v2(b"", first=0x20, length=65535),
]


@pytest.mark.parametrize(("header", "says"), GOOD)
@pytest.mark.parametrize("behind", [b"", b"EHLO x\r\n", b"\x16\x03\x01\x02"])
def test_a_header(header: bytes, says: object, behind: bytes) -> None:
    assert read_header(header + behind) == (says, len(header))


@pytest.mark.parametrize(("header", "says"), GOOD)
def test_a_header_in_pieces_is_waited_for(header: bytes, says: object) -> None:
    for end in range(len(header)):
        assert read_header(header[:end]) is Incomplete.INCOMPLETE
    assert says


@pytest.mark.parametrize("header", BAD)
def test_what_is_no_header(header: bytes) -> None:
    with pytest.raises(BadHeader):
        read_header(header)


def test_what_cannot_become_a_header_is_refused_before_its_end() -> None:
    for start in (b"PROXX", b"\r\n\r\n\x01", b"E", v2(V4, first=0x11)[:16], b"PROXY TCP4 " + b"1" * 96):
        with pytest.raises(BadHeader):
            read_header(start)


def test_the_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of every catalogue of CRCs
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720 appendix B.4


@given(st.one_of(st.binary(max_size=300), st.sampled_from(GOOD).map(lambda good: good[0])), st.data())
@example(SIGNATURE, None)
def test_whatever_comes_is_judged_and_bounded(octets: bytes, data: st.DataObject | None) -> None:
    if data is not None and octets:
        at = data.draw(st.integers(0, len(octets) - 1))
        octets = octets[:at] + bytes([data.draw(st.integers(0, 255))]) + octets[at + 1 :]
    with suppress(BadHeader):
        match read_header(octets):
            case Incomplete():
                assert len(octets) < MAX_OCTETS
                with suppress(BadHeader):  # more of it makes it one thing or the other
                    assert read_header(octets + bytes(MAX_OCTETS)) is not Incomplete.INCOMPLETE
            case (_, length):
                assert length <= len(octets)


@given(st.sampled_from([header for header, _ in GOOD] + BAD), st.binary(max_size=20), st.lists(st.integers(1, 40)))
async def test_how_the_network_cuts_a_header_changes_nothing(header: bytes, behind: bytes, sizes: list[int]) -> None:
    octets = header + behind
    whole, cut = (Introduction(asyncio.get_running_loop()) for _ in range(2))
    rest = whole.feed(octets)
    came, at = b"", 0
    for size in [*sizes, len(octets)]:
        piece, at = octets[at : at + size], at + size
        came += cut.feed(piece) if not cut.over else b"" if failed(cut) else piece
    assert (cut.over, failed(cut)) == (whole.over, failed(whole))
    if whole.over and not failed(whole):
        assert (await cut.header(), came) == (await whole.header(), rest)


def failed(introduction: Introduction) -> bool:
    return introduction.over and introduction._header.exception() is not None
