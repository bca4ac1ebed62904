"""What is weaker than what: by the decisions that come of two entries, situation by situation."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dane.tlsa import Absent, NotLookedUp
from relay.mail.names import BadName, Domain, NextHop
from relay.policy.compare import (
    lesser_guarantees,
    names_accepted,
    sample_next_hop,
    versions_allowed,
    wider,
)
from relay.policy.decide import decide
from relay.policy.level import Level
from relay.policy.policy import Defaults, Entry, HostFacts, NoEntry, PolicyFacts, Rule, TlsPolicy
from relay.policy.table import parse_table

DEFAULTS = Defaults(level=Level.DANE, level_rule=Rule("relay.toml:3"))
NEXT_HOP = NextHop.parse("example.com", default_port=25)
HOST = NextHop.parse("[mail.example.com]:587", default_port=25)
LITERAL = NextHop.parse("[192.0.2.1]", default_port=25)
A64, B64 = "ab" * 32, "cd" * 32
LINES = (
    "none",
    "may",
    "encrypt",
    f"fingerprint match={A64}",
    "dane",
    "dane-only",
    "verify",
    "verify match=nexthop",
    "secure",
    "secure match=hostname",
    "secure match=mx.example.net",
    "secure policy_type=sts policy_failure=sts-policy-invalid",
    "nonsense",
)


def entry(line: str) -> Entry:
    return parse_table(f"example.com {line}\n", "tls_policy").entries["example.com"] if line else NoEntry()


def lesser(before: str, after: str, next_hop: NextHop = NEXT_HOP, defaults: Defaults = DEFAULTS) -> str:
    return "; ".join(lesser_guarantees(entry(before), entry(after), next_hop, defaults))


@pytest.mark.parametrize(
    ("before", "after", "texts"),
    [
        ("secure", "may", "may instead of secure"),
        ("secure", "none", "none instead of secure"),
        ("may", "none", "none instead of may"),
        ("encrypt", "dane", "may instead of encrypt where it has no TLSA records and where nothing is DNSSEC secure"),
        (
            "dane",
            "encrypt",
            "encrypt instead of dane where the destination has usable TLSA records; encrypt instead of halfdane where",
        ),
        ("dane-only", "dane", "encrypt instead of no delivery where none of its TLSA records is usable; may instead"),
        ("secure", "verify", "verify instead of secure where TLSA records stand behind insecure MX records and where"),
        ("secure", "secure match=hostname", "secure instead of secure where TLSA records stand behind insecure MX"),
        ("nonsense", "may", "may instead of no delivery"),
        ("secure policy_type=sts policy_failure=sts-policy-invalid", "may", "may instead of no delivery"),
        (f"fingerprint match={A64}", "encrypt", "encrypt instead of fingerprint"),
        ("", "may", "may instead of dane where the destination has usable TLSA records; may instead of encrypt"),
    ],
)
def test_weaker(before: str, after: str, texts: str) -> None:
    assert lesser(before, after).startswith(texts)


def test_a_host_that_insecure_records_named_is_less_than_one_that_is_known() -> None:
    assert "halfdane instead of secure where TLSA records stand behind insecure MX records" in lesser("secure", "dane")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("none", "may"),
        ("may", "dane"),
        ("may", "secure"),
        ("dane", "dane-only"),
        ("dane", "secure"),
        ("verify", "secure"),
        ("verify", "verify match=nexthop"),
        ("secure", f"fingerprint match={A64}"),
        (f"fingerprint match={A64}", "secure"),
        ("secure", "nonsense"),
        ("nonsense", "secure"),
        ("", "dane"),
        ("", "secure"),
    ],
)
def test_not_weaker(before: str, after: str) -> None:
    assert lesser(before, after) == ""


def test_what_a_default_is_worth_depends_on_the_options() -> None:
    assert lesser("", "may", defaults=replace(DEFAULTS, level=Level.MAY)) == ""
    assert lesser("", "encrypt", defaults=replace(DEFAULTS, level=Level.SECURE)) == "encrypt instead of secure"
    named_by_hand = replace(DEFAULTS, verify_match=DEFAULTS.secure_match)
    assert lesser("secure", "verify", defaults=named_by_hand) == ""


def test_without_mx_records_none_are_insecure() -> None:
    assert lesser("secure", "verify", HOST) == ""
    assert "insecure" not in lesser("dane", "may", HOST)
    assert lesser("encrypt", "dane", LITERAL) == "may instead of encrypt"
    assert lesser("dane", "encrypt", LITERAL) == ""


@given(st.sampled_from(LINES), st.sampled_from(LINES), st.sampled_from(LINES), st.sampled_from([NEXT_HOP, HOST]))
def test_not_weaker_is_an_order(one: str, two: str, three: str, next_hop: NextHop) -> None:
    assert lesser(one, one, next_hop) == ""
    if not lesser(one, two, next_hop) and not lesser(two, three, next_hop):
        assert not lesser(one, three, next_hop)


@given(st.sampled_from(LINES[:-1]), st.sampled_from(LINES[:-1]))
def test_an_entry_that_is_not_weaker_never_leaves_more_in_the_clear(before: str, after: str) -> None:
    """The law behind the comparison, seen from ``decide``: of two that allow mail, the later demands no less TLS."""
    if lesser(before, after):
        return
    for tlsa in (Absent("none"), NotLookedUp("insecure")):
        host = HostFacts(next_hop=NEXT_HOP, host=Domain("mx.example.net"), had_mx=True, mx_secure=True, tlsa=tlsa)
        old, new = (decide(PolicyFacts(entry=entry(line), host=host, defaults=DEFAULTS)) for line in (before, after))
        if isinstance(old, TlsPolicy) and isinstance(new, TlsPolicy):
            assert new.level.uses_tls >= old.level.uses_tls
            assert new.level.requires_tls >= old.level.requires_tls
            assert new.level.requires_match >= old.level.requires_match


@pytest.mark.parametrize(
    ("before", "after", "texts"),
    [
        ("secure", "secure match=nexthop:dot-nexthop:mx.example.net", ("accepts more names: mx.example.net",)),
        ("secure", "secure match=hostname:nexthop:dot-nexthop", ("accepts more names: the MX host's",)),
        ("secure match=mx.example.net", "secure match=.example.net", ("accepts more names: .example.net",)),
        ("secure match=mx.example.net", "secure match=mx.example.org", ()),
        ("secure match=.example.net", "secure match=mx.example.net", ()),
        ("secure match=.example.net", "secure match=.example.net:mx.example.net", ()),
        ("secure", "secure", ()),
        (f"fingerprint match={A64}", f"fingerprint match={A64}|{B64}", (f"accepts more fingerprints: {B64}",)),
        (f"fingerprint match={A64}", f"fingerprint match={B64}", ()),
        ("secure tafile=/a.pem", "secure", ("accepts every authority of the CA store, not only /a.pem",)),
        ("secure tafile=/a.pem", "secure tafile=/a.pem tafile=/b.pem", ("accepts more trust anchors: /b.pem",)),
        ("secure", "secure tafile=/a.pem", ()),
        ("encrypt", "encrypt protocols=>=TLSv1", ("allows TLSv1, TLSv1.1",)),
        ("encrypt protocols=TLSv1.3", "encrypt", ("allows TLSv1.2",)),
        ("encrypt", "encrypt protocols=TLSv1.3", ()),
        ("encrypt ciphers=high", "encrypt", ("ciphers medium instead of high",)),
        ("encrypt", "encrypt ciphers=null", ("ciphers null instead of medium",)),
        ("encrypt ciphers=null", "encrypt", ()),
        ("encrypt", "encrypt ciphers=low", ()),
        ("encrypt exclude=RC4:3DES", "encrypt exclude=3DES", ("no longer excludes RC4",)),
        ("none", "none", ()),
    ],
)
def test_wider(before: str, after: str, texts: tuple[str, ...]) -> None:
    assert wider(entry(before), entry(after), NEXT_HOP, DEFAULTS) == texts


def test_names_that_are_accepted() -> None:
    shown = [str(name) for name in names_accepted(entry("secure"), NEXT_HOP, DEFAULTS)]
    assert shown == ["example.com", ".example.com"]
    assert names_accepted(entry("nonsense"), NEXT_HOP, DEFAULTS) == ()


def test_versions() -> None:
    assert versions_allowed(">=TLSv1.2") == ("TLSv1.2", "TLSv1.3")
    assert versions_allowed("!TLSv1 !TLSv1.3") == ("TLSv1.1", "TLSv1.2")


def test_samples_find_their_key() -> None:
    assert sample_next_hop("[mail.example.com]:587") == HOST
    below = sample_next_hop(".example.com", frozenset({"any.example.com"}))
    assert below.key == "any1.example.com"
    assert sample_next_hop(".example.com").key == "any.example.com"
    with pytest.raises(BadName):
        sample_next_hop("k..example")
    with pytest.raises(BadName, match="without an entry of its own"):
        sample_next_hop(".x.example", frozenset(f"any{n or ''}.x.example" for n in range(100)))
