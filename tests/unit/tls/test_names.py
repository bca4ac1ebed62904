"""Certificate names against wanted names: OpenSSL's rules with Postfix's flags."""

from __future__ import annotations

import pytest

from relay.mail.names import Domain
from relay.policy.policy import LiteralName
from relay.tls.certificate import cert_facts
from relay.tls.names import NameMatch, NoNameMatch, covers, match_names
from relay.tls.peer import CertFacts
from tests import pki


def wanted(text: str) -> LiteralName:
    return LiteralName(Domain(text.removeprefix(".")), below=text.startswith("."))


def leaf(*dns: str, cn: str = "") -> CertFacts:
    return cert_facts(pki.make(cn, dns=dns).der)


@pytest.mark.parametrize(
    ("presented", "name"),
    [
        ("mx.example.com", "mx.example.com"),
        ("*.example.com", "mx.example.com"),
        ("*.example.com", "xn--mx-1ia.example.com"),
        ("*.b.example.com", "mx.b.example.com"),
        ("*.xn--fa-hia.example", "mx.xn--fa-hia.example"),
        ("foo_bar.example.com", "foo_bar.example.com"),
        ("mx.example.com", ".example.com"),
        ("a.b.c.example.com", ".example.com"),
        ("*.example.com", ".example.com"),
        ("*.b.example.com", ".example.com"),
    ],
)
def test_covers(presented: str, name: str) -> None:
    assert covers(presented, wanted(name))


@pytest.mark.parametrize(
    ("presented", "name"),
    [
        ("mx.example.com", "mx2.example.com"),
        ("example.com", "mx.example.com"),
        ("mx.example.com", "example.com"),
        ("*.example.com", "example.com"),
        ("*.example.com", "a.b.example.com"),
        ("*.example.com", "mx_1.example.com"),
        ("*.com", "example.com"),
        ("*", "localhost"),
        ("m*.example.com", "mx.example.com"),
        ("*x.example.com", "mx.example.com"),
        ("mx.*.com", "mx.example.com"),
        ("*.*.com", "mx.example.com"),
        ("xn--*.example.com", "xn--mx-1ia.example.com"),
        ("*.exa_mple.com", "mx.exa_mple.com"),
        ("*.-example.com", "mx.-example.com"),
        ("mx.example.com.", "mx.example.com"),
        ("*.example.com.", "mx.example.com"),
        ("mx.example.com\0.evil.example", "mx.example.com"),
        ("evil\0.example.com", ".example.com"),
        ("example.com", ".example.com"),
        ("*.com", ".example.com"),
        ("badexample.com", ".example.com"),
        ("", "mx.example.com"),
    ],
)
def test_does_not_cover(presented: str, name: str) -> None:
    assert not covers(presented, wanted(name))


def test_long_names_cover_nothing_and_cost_nothing() -> None:
    assert not covers("a." * 50_000 + "example.com", wanted(".example.com"))
    assert not covers("*." + "a" * 100_000 + "!", wanted("mx.example.com"))


def test_case_does_not_matter() -> None:
    assert match_names(leaf("MX.Example"), [wanted("mx.example")]) == NameMatch("mx.example", wanted("mx.example"))
    assert match_names(leaf(cn="MX.Example"), [wanted("mx.example")]) == NameMatch("mx.example", wanted("mx.example"))


def test_the_common_name_counts_without_dns_names_only() -> None:
    names = [wanted("mx.example")]
    assert isinstance(match_names(leaf(cn="mx.example"), names), NameMatch)
    assert match_names(leaf("other.example", cn="mx.example"), names) == NoNameMatch(("other.example",))
    assert match_names(leaf(cn="mx.example"), names, common_name_counts=False) == NoNameMatch(())


def test_any_wanted_name_suffices_and_the_first_is_named() -> None:
    names = [wanted("none.example"), wanted("b.example"), wanted("a.example")]
    assert match_names(leaf("a.example", "b.example"), names) == NameMatch("b.example", wanted("b.example"))


def test_no_wanted_name_matches_nothing() -> None:
    assert match_names(leaf("a.example"), []) == NoNameMatch(("a.example",))
