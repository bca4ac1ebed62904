"""Which line a next-hop finds: keys, parents, brackets, ports, and the kinds of tables."""

from __future__ import annotations

from tests.parity.case import Case, Posture, numbered

P = Posture


def _to(route: str, *lines: str, posture: P = P.GOOD) -> Case:
    return Case(name="", lines=lines, posture=posture, route=route)


def _below(labels: str, *lines: str, posture: P = P.GOOD) -> Case:
    return Case(name="", lines=lines, posture=posture, below=labels)


KEYS = numbered(
    "k",
    ((), P.CLEAR),
    (("{domain} encrypt", ".{domain} none"), P.CLEAR),
    ((".{domain} none",), P.GOOD),
    _below("a", "{domain} secure match=elsewhere.test"),
    _below("a", ".{domain} encrypt"),
    _below("a.b", ".{domain} encrypt"),
    _below("a.b", ".{domain} encrypt", ".b.{domain} none"),
    _below("a.b", ".{domain} encrypt", ".b.{domain} none", "a.b.{domain} verify"),
    _below("a.b", "b.{domain} none", ".{domain} encrypt"),
    _below("a.b", ".a.b.{domain} none", ".{domain} encrypt"),
    _below("a.b", ".b.{domain} secrue", ".{domain} none"),
    _below("a.b", "a.b.{domain} encrypt match=x", ".{domain} none"),
    _to("smtp:[{host}]:{port}", "[{host}]:{port} encrypt", "{host} none", "[{host}] none", "{domain} none"),
    _to("smtp:[{host}]:{port}", "{host} none", "[{host}] none", "{domain} none", ".{domain} none"),
    _to("smtp:[{host}]", "[{host}] encrypt", "[{host}]:{port} none", "{host} none"),
    _to("smtp:[{host}]", "{host} none", ".{domain} none"),
    _to("smtp:{domain}:{port}", "{domain}:{port} encrypt", "{domain} none"),
    _to("smtp:{domain}:{port}", "{domain} none", ".{domain} none"),
    _to("smtp:{domain}", "{domain} encrypt"),
    _to("smtp:[{host}]:{port}", "[{host}]:{port} secure", posture=P.DOMAIN),
    _to("smtp:[{host}]:{port}", "[{host}]:{port} secure", posture=P.GOOD),
    _to("smtp:[{host}]:{port}", "[{host}]:{port} secure match=nexthop:{domain}", posture=P.DOMAIN),
    _to("smtp:[{host}]:{port}", "[{host}]:{port} dane", posture=P.TLSA),
    _to("smtp:[{host}]:{port}", "[{host}]:{port} dane-only", posture=P.MISMATCH),
    (("{domain}\tencrypt",), P.CLEAR),
    (("{domain}   encrypt   protocols=>=TLSv1.2",), P.CLEAR),
    (("{domain}", "  encrypt"), P.CLEAR),
    (("{domain} encrypt", "# between", "", "   match=hostname"), P.GOOD),
    (("{domain} secure match=hostname", "  # indented: a comment, too", " ciphers=high"), P.GOOD),
)

PATTERN_FILE = """\
# the whole domain, then a part of it; the first that matches counts
/^p001\\.test$/        encrypt
/^p002\\.test$/        encrypt
/^p00[12]/             none
/^\\.p003\\.test$/     encrypt
/^(a\\.)?p004\\.test$/ none
/^P005\\.TEST$/        encrypt
/^P006\\.TEST$/i       none
if /^p007/
/\\.test$/             encrypt
endif
if !/^p008/
/p008/                 none
endif
/^(p008)\\.test$/      secure match=mx.$1.test
/^(mx)?(p009)\\.(test)$/ secure match=mx.$2.${3}
/^\\[mx\\.p010\\.test\\]:[0-9]+$/  encrypt
/^\\[mx\\.p011\\.test\\]$/ none
/^a\\.p012\\.test$/!/p012/ none
if /^p018/
!/^(a|p018\\.test$)/ none
!/^q/                  encrypt
endif
/^p013\\.test$/        secrue
/^(p014)\\.test$/      $1
"""

PATTERNS = numbered(
    "p",
    ((), P.CLEAR),
    ((), P.CLEAR),
    _below("a", posture=P.CLEAR),
    _below("a", posture=P.GOOD),
    ((), P.CLEAR),
    ((), P.CLEAR),
    ((), P.CLEAR),
    ((), P.GOOD),
    ((), P.GOOD),
    _to("smtp:[{host}]:{port}", posture=P.CLEAR),
    _to("smtp:[{host}]:{port}", posture=P.CLEAR),
    _below("a", posture=P.CLEAR),
    ((), P.CLEAR),
    ((), P.CLEAR),
    (("{domain} none",), P.GOOD),
    ((), P.CLEAR),
    ((), P.OTHER),
    ((), P.CLEAR),
)

INLINE = "inline:{ p016.test=encrypt, { p017.test = secure match=elsewhere.test } }"
"""Tried after the patterns and before the text."""

STATIC = numbered(
    "q",
    ((), P.CLEAR),
    (("{domain} none",), P.CLEAR),
    ((), P.GOOD),
)
"""Under ``static:`` behind a text map."""

CONTRADICTING = numbered(
    "c",
    (("{domain} encrypt", "{domain} none"), P.CLEAR),
    (("{domain} none",), P.CLEAR),
)
"""A key twice in one texthash."""
