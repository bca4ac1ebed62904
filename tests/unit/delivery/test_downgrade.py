from __future__ import annotations

import email
import email.policy
import random
from email.message import EmailMessage
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.delivery.downgrade import MAX_DEPTH, MAX_PARTS, Converter, Survey, Surveyor

TEXT = "Grüße an Jörg, 日本語, ein = und ein Blank am Ende \r\n.\r\n..\r\nFrom x\r\n" + "ü" * 300 + "\r\n"
EIGHT_BIT = TEXT.encode()


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


def survey(message: bytes) -> Survey:
    surveyor = Surveyor()
    surveyor.feed(message)
    return surveyor.survey()


def convert(message: bytes, *, cuts: tuple[int, ...] = ()) -> bytes:
    found = survey(message)
    assert found.obstacle == ""
    converter = Converter(found)
    borders = [0, *sorted(min(cut, len(message)) for cut in cuts), len(message)]
    return b"".join([converter.feed(message[a:b]) for a, b in pairwise(borders)]) + converter.end()


def leaves(message: bytes) -> list[tuple[str, bytes]]:
    """Each part's type and its content decoded, as Python reads it."""
    parsed = email.message_from_bytes(message, policy=email.policy.compat32)
    found = []
    for part in parsed.walk():
        if not part.is_multipart():
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            found.append((part.get_content_type(), content))
    return found


def same(message: bytes) -> bytes:
    """Convert, and see that a reader finds the same in it, without octets above 127 in the bodies."""
    converted = convert(message)
    assert converted.isascii()
    assert leaves(converted) == leaves(message)
    assert all(len(line) <= 998 for line in converted.split(b"\r\n"))
    return converted


PART = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"


def multipart(*parts: bytes, kind: str = "mixed", boundary: str = "b", label: bytes = b"8bit") -> bytes:
    head = f'Content-Type: multipart/{kind}; boundary="{boundary}"\r\n'.encode()
    head += b"Content-Transfer-Encoding: " + label + b"\r\n" if label else b""
    body = b"".join(b"--" + boundary.encode() + b"\r\n" + part + b"\r\n" for part in parts)
    return head + b"\r\npreamble\r\n" + body + b"--" + boundary.encode() + b"--\r\nepilogue\r\n"


def test_a_plain_message() -> None:
    converted = same(b"Subject: x\r\nMIME-Version: 1.0\r\n" + PART + EIGHT_BIT)
    assert converted.startswith(
        b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe an J=C3=B6rg"
    )
    assert b"am Ende=20\r\n" in converted
    assert all(len(line) <= 76 for line in converted.split(b"\r\n"))


def test_a_message_that_says_nothing_of_mime_is_labelled() -> None:
    converted = convert(b"Subject: x\r\n\r\n" + EIGHT_BIT)
    assert converted.startswith(
        b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3"
    )
    assert leaves(converted) == [("text/plain", EIGHT_BIT)]


def test_a_body_without_header_gets_one() -> None:
    assert convert(b"\r\n\xfc\r\n") == (
        b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=FC\r\n"
    )
    assert convert(b"no field \xfc\r\n").endswith(b"\r\n\r\nno field =FC\r\n")


def test_only_parts_that_need_it_are_encoded() -> None:
    attachment = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n"
    plain = b"Content-Transfer-Encoding: 8bit\r\n\r\nonly = ascii \r\n"
    message = b"MIME-Version: 1.0\r\n" + multipart(PART + EIGHT_BIT, attachment, plain, b"\r\nx = y\r\n")
    converted = same(message)
    assert converted.count(b"quoted-printable") == 1
    assert attachment in converted
    assert b"Content-Transfer-Encoding: 7bit\r\n\r\nonly = ascii \r\n" in converted
    assert b"8bit" not in converted
    assert b"\r\n\r\nx = y\r\n" in converted


def test_what_is_nested_is_converted_within() -> None:
    inner = multipart(PART + EIGHT_BIT, b"\r\nascii\r\n", kind="alternative", boundary="bb")
    message = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: y\r\n" + inner
    converted = same(b"MIME-Version: 1.0\r\n" + multipart(message, PART + b"\xc3\xbc\r\n"))
    assert converted.count(b"quoted-printable") == 2
    assert converted.count(b"Content-Transfer-Encoding: 7bit") == 3


def test_a_digest_has_messages_for_parts() -> None:
    converted = same(
        b"MIME-Version: 1.0\r\n" + multipart(b"\r\nSubject: z\r\n" + PART + EIGHT_BIT, kind="digest", label=b"")
    )
    assert b"--b\r\n\r\nSubject: z\r\n" in converted


def test_octets_that_nobody_reads_are_replaced() -> None:
    message = multipart(b"\r\nx\r\n").replace(b"preamble", b"pr\xe4ambel").replace(b"epilogue", b"\xff")
    converted = convert(message)
    assert b"pr?ambel" in converted
    assert converted.endswith(b"--b--\r\n?\r\n")


def test_header_fields_pass_as_they_are() -> None:
    message = b"Subject: Gr\xfc\xdfe\r\n\r\nascii\r\n"
    assert survey(message) == Survey(frozenset(), eight_bit_headers=True)
    assert convert(message) == message


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (multipart(PART + EIGHT_BIT, b"\r\nsig\r\n", kind="signed"), "signed or encrypted"),
        (multipart(multipart(PART + EIGHT_BIT, boundary="i"), kind="signed"), "signed or encrypted"),
        (b"Content-Transfer-Encoding: base64\r\n\r\n\xfc\r\n", "does not allow"),
        (b"Content-Transfer-Encoding: Quoted-Printable (x)\r\n\r\n\xfc\r\n", "does not allow"),
        (b"Content-Type: message/partial; id=x\r\n\r\n\xfc\r\n", "does not allow"),
        (b"Content-Type: multipart/mixed\r\n\r\n\xfc\r\n", "does not allow"),
        (b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n\xfc\r\n", "does not allow"),
        (b"Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\n\xfc\r\n", "two content-type fields"),
        (b"Content-Type: text/plain; x=" + b"y" * 9000 + b"\r\n\r\n\xfc\r\n", "longer than 8192"),
        (multipart(*[b"\r\nx\r\n"] * (MAX_PARTS + 1)), "more than 10000 parts"),
    ],
)
def test_what_cannot_be_converted_is_said(message: bytes, why: str) -> None:
    assert why in survey(message).obstacle


def test_a_message_may_not_be_nested_for_ever() -> None:
    message = b"\r\n\xfc\r\n"
    for number in range(MAX_DEPTH + 1):
        message = multipart(message, boundary=f"n{number}.")
    assert "nested more than 100 deep" in survey(message).obstacle


def test_message_global_is_encoded_whole() -> None:
    message = b"MIME-Version: 1.0\r\nContent-Type: message/global\r\n\r\nSubject: \xc3\xbc\r\n\r\n\xc3\xbc\r\n"
    assert convert(message).endswith(b"quoted-printable\r\n\r\nSubject: =C3=BC\r\n\r\n=C3=BC\r\n")


def test_a_delimiter_may_begin_with_another() -> None:
    inner = multipart(PART + EIGHT_BIT, boundary="b1", kind="alternative")
    same(b"MIME-Version: 1.0\r\n" + multipart(inner, PART + EIGHT_BIT, boundary="b"))
    inner = multipart(PART + EIGHT_BIT, boundary="b", kind="alternative")
    same(b"MIME-Version: 1.0\r\n" + multipart(inner, PART + EIGHT_BIT, boundary="b1"))


def test_a_line_without_end_takes_no_memory_and_stays_one_line() -> None:
    line = b"\xc3\xbc= " * 100_000
    message = b"Content-Transfer-Encoding: 8bit\r\n\r\n" + line + b"\r\n"
    converted = convert(message, cuts=tuple(range(0, len(message), 7777)))
    assert leaves(converted) == [("text/plain", line + b"\r\n")]
    assert all(len(one) <= 76 for one in converted.split(b"\r\n"))


def build(chance: random.Random, depth: int = 0) -> EmailMessage:
    """A message of Python's own making, nested by chance."""
    message = EmailMessage(policy=email.policy.SMTP.clone(cte_type="8bit"))
    choice = chance.random()
    if depth < 3 and choice < 0.4:
        message.make_mixed()
        for _ in range(chance.randint(1, 3)):
            message.attach(build(chance, depth + 1))
    elif depth < 3 and choice < 0.5:
        message.set_content(build(chance, depth + 1))
    elif choice < 0.6:
        message.set_content(chance.randbytes(60), "application", "octet-stream")
    else:
        words = chance.choices(["grün", "plain", "日本", "a = b", "", "--b"], k=chance.randint(0, 30))
        message.set_content("\n".join(words), cte=chance.choice(["8bit", "base64", "quoted-printable"]))
    return message


@given(st.randoms(use_true_random=False), st.lists(st.integers(0, 4000), max_size=5))
def test_what_python_builds_python_reads_the_same(chance: random.Random, cuts: list[int]) -> None:
    message = build(chance).as_bytes()
    converted = same(message)
    assert convert(message, cuts=tuple(cuts)) == converted
    assert survey(converted) == Survey(frozenset(), eight_bit_headers=False)


hostile = st.lists(
    st.sampled_from(
        [
            b"Content-Type: multipart/mixed; boundary=b",
            b"Content-Type: multipart/digest; boundary=b1",
            b"Content-Type: message/rfc822",
            b"Content-Type: text/plain; charset*0*=x'y",
            b"Content-Type: /;=;boundary",
            b"content-transfer-encoding:8bit",
            b"--b",
            b"--b--",
            b"--b1",
            b"\xfc",
            b"",
            b" folded",
            b"text",
        ]
    ),
    max_size=30,
).map(lambda lines: b"".join(line + b"\r\n" for line in lines))


@given(hostile, st.lists(st.integers(0, 600), max_size=5))
def test_whatever_comes_is_converted_or_has_an_obstacle(message: bytes, cuts: list[int]) -> None:
    found = survey(message)
    if found.obstacle:
        return
    converted = convert(message)
    assert converted.isascii() or found.eight_bit_headers
    assert convert(message, cuts=tuple(cuts)) == converted
    assert survey(converted).parts == frozenset()
