"""Domains, address literals and next-hops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.names import BadName, Domain, IpLiteral, NextHop


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.Com.", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example.", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("例え\u3002テスト", "xn--r8jz45g.xn--zckzah"),
        ("_25._tcp.mx_1.example", "_25._tcp.mx_1.example"),
        ("localhost", "localhost"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
        (".".join(["a" * 49] * 5) + ".abc", ".".join(["a" * 49] * 5) + ".abc"),
    ],
)
def test_domains(text: str, name: str) -> None:
    domain = Domain.parse(text)
    assert str(domain) == name
    assert Domain.parse(str(domain)) == domain


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        ".example",
        "a..b",
        "example..",
        "-a.example",
        "a-.example",
        "a b.example",
        "a\n.example",
        "example.com\n",
        "a@b",
        "a/b",
        "*.example",
        "[192.0.2.1]",
        "a" * 64 + ".example",
        ".".join(["a" * 49] * 6),
        "\u200b.example",
        "xn--\u0000.example",
        "\ud800.example",
        "1\u0660.example\u0600",
    ],
)
def test_no_domains(text: str) -> None:
    with pytest.raises(BadName, match="not a domain name"):
        Domain.parse(text)


@given(st.text(max_size=80))
def test_any_text_is_a_domain_or_a_bad_name(text: str) -> None:
    try:
        domain = Domain.parse(text)
    except BadName:
        return
    assert domain.name.isascii()
    assert domain.name == domain.name.lower()
    assert 0 < len(domain.name) <= 253
    assert all(0 < len(label) <= 63 for label in domain.labels)
    assert Domain.parse(domain.name) == domain
    assert Domain.parse(domain.name.upper() + ".") == domain


def test_labels_and_parents() -> None:
    domain = Domain.parse("a.b.example.com")
    assert domain.labels == ("a", "b", "example", "com")
    assert domain.parents() == ("b.example.com", "example.com", "com")
    assert Domain("com").parents() == ()
    assert domain.is_below("example.com")
    assert not domain.is_below("a.b.example.com")
    assert not Domain("badexample.com").is_below("example.com")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("192.0.2.1", "[192.0.2.1]"),
        ("IPv6:2001:DB8::1", "[IPv6:2001:db8::1]"),
        ("ipv6:::1", "[IPv6:::1]"),
        ("2001:db8::1", "[IPv6:2001:db8::1]"),
    ],
)
def test_literals(text: str, shown: str) -> None:
    literal = IpLiteral.parse(text)
    assert str(literal) == shown
    assert IpLiteral.parse(shown[1:-1]) == literal


@pytest.mark.parametrize(
    "text",
    ["", "IPv6:192.0.2.1", "192.0.2", "192.0.2.256", "fe80::1%eth0", "IPv6:fe80::1%1", "x", "192.0.2.1 ", "IPv6:"],
)
def test_no_literals(text: str) -> None:
    with pytest.raises(BadName, match="not an address literal"):
        IpLiteral.parse(text)


@pytest.mark.parametrize(
    ("text", "key", "host", "port", "use_mx"),
    [
        ("Example.COM", "example.com", "example.com", 25, True),
        ("example.com.", "example.com", "example.com", 25, True),
        ("example.com:587", "example.com:587", "example.com", 587, True),
        ("[MX.example.com]", "[mx.example.com]", "mx.example.com", 25, False),
        ("[mx.example.com]:2525", "[mx.example.com]:2525", "mx.example.com", 2525, False),
        ("[192.0.2.1]:26", "[192.0.2.1]:26", "[192.0.2.1]", 26, False),
        ("[IPv6:2001:db8::1]", "[ipv6:2001:db8::1]", "[IPv6:2001:db8::1]", 25, False),
        ("[2001:db8::1]:25", "[2001:db8::1]:25", "[IPv6:2001:db8::1]", 25, False),
        ("bücher.example", "xn--bcher-kva.example", "xn--bcher-kva.example", 25, True),
        ("bücher.example:26", "xn--bcher-kva.example:26", "xn--bcher-kva.example", 26, True),
        ("[bücher.example]:26", "[xn--bcher-kva.example]:26", "xn--bcher-kva.example", 26, False),
        ("[bücher.example]", "[xn--bcher-kva.example]", "xn--bcher-kva.example", 25, False),
        ("example.com.:587", "example.com:587", "example.com", 587, True),
        ("[mx.example.com.]:587", "[mx.example.com]:587", "mx.example.com", 587, False),
    ],
)
def test_next_hops(text: str, key: str, host: str, port: int, use_mx: bool) -> None:
    next_hop = NextHop.parse(text, default_port=25)
    assert (next_hop.key, str(next_hop.host), next_hop.port, next_hop.use_mx) == (key, host, port, use_mx)
    assert str(next_hop) == key
    assert NextHop.parse(key, default_port=25) == next_hop


def test_the_default_port_is_not_part_of_the_key() -> None:
    assert NextHop.parse("[mx.example.com]", default_port=2525).port == 2525
    assert NextHop.parse("[mx.example.com]", default_port=2525).key == "[mx.example.com]"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[mx.example.com",
        "mx.example.com]",
        "[a]:",
        "a:",
        ":25",
        "a:0",
        "a:65536",
        "a:99999999",
        "a:smtp",
        "a:25:25",
        "[a]25",
        "[[a]]",
        "2001:db8::1",
        "[a b]",
        "a\n",
        "[fe80::1%eth0]",
        "a:\u0662\u0665",
    ],
)
def test_no_next_hops(text: str) -> None:
    with pytest.raises(BadName):
        NextHop.parse(text, default_port=25)


def test_next_hop_of_a_recipient_domain() -> None:
    domain = NextHop.of_domain(Domain.parse("example.com"), 25)
    assert domain == NextHop.parse("example.com", default_port=25)
    literal = NextHop.of_domain(IpLiteral.parse("192.0.2.1"), 26)
    assert (literal.key, literal.use_mx, literal.port) == ("[192.0.2.1]", False, 26)


@given(st.text(max_size=60))
def test_any_text_is_a_next_hop_or_a_bad_name(text: str) -> None:
    try:
        next_hop = NextHop.parse(text, default_port=25)
    except BadName:
        return
    assert 0 < next_hop.port < 65536
    assert next_hop.key == next_hop.key.lower()
    assert next_hop.key.isascii()
    assert NextHop.parse(next_hop.key, default_port=25) == next_hop
