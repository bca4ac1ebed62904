"""Policy maps: grammar, every malformed text of Postfix, look-up order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.names import Domain, IpLiteral, NextHop
from relay.policy.level import Level
from relay.policy.policy import LiteralName, MalformedEntry, MapEntry, MatchName, NoEntry, Rule
from relay.policy.table import PolicyTable, PolicyTables, lookup_keys, parse_table

A64 = "ab" * 32
B64 = "cd" * 32
BUILT_IN = (
    "built-in policy has unexpected attribute policy_ttl, policy_domain, policy_string, mx_host_pattern "
    "or policy_failure"
)


def entry_of(policy: str) -> MapEntry | MalformedEntry:
    table = parse_table(f"example.com {policy}\n", "tls_policy")
    return table.entries["example.com"]


def good(policy: str) -> MapEntry:
    entry = entry_of(policy)
    assert isinstance(entry, MapEntry), entry
    return entry


def texts(table: PolicyTable) -> list[str]:
    return [str(problem) for problem in table.problems]


@pytest.mark.parametrize(
    ("policy", "warning"),
    [
        (",", "invalid empty policy"),
        ("strong", 'invalid security level "strong"'),
        ("halfdane", 'invalid security level "halfdane"'),
        ("match=nexthop", 'invalid security level "match=nexthop"'),
        ("secure match", "malformed attribute/value pair \"match\": missing '=' after attribute name"),
        ("secure =nexthop", 'malformed attribute/value pair "=nexthop": missing attribute name'),
        ("secure {}", 'malformed attribute/value pair "": missing attribute name'),
        (
            "secure { match nexthop }",
            "malformed attribute/value pair \"match nexthop\": missing '=' after attribute name",
        ),
        (
            "secure { match = nexthop",
            'malformed attribute/value pair "match = nexthop": missing \'}\' in "{ match = nexthop"',
        ),
        (
            "secure { match = nexthop }x",
            'malformed attribute/value pair "match = nexthop": syntax error after \'}\' in "{ match = nexthop }x"',
        ),
        ("may ciphers=", 'attribute "ciphers" has empty value'),
        ("secure Match=", 'attribute "Match" has empty value'),
        ("secure tafile=", 'attribute "tafile" has empty value'),
        ("may ciphers=high ciphers=high", 'attribute "ciphers" is specified multiple times'),
        ("may protocols=>=TLSv1 Protocols=>=TLSv1", 'attribute "Protocols" is specified multiple times'),
        ("may servername=a.example servername=a.example", 'attribute "servername" is specified multiple times'),
        ("may exclude= exclude=MD5", 'attribute "exclude" is specified multiple times'),
        ("may policy_ttl=1 policy_ttl=1", 'attribute "policy_ttl" is specified multiple times'),
        ("may policy_type=sts policy_type=sts", 'attribute "policy_type" is specified multiple times'),
        ("may policy_domain=a.example policy_domain=b", 'attribute "policy_domain" is specified multiple times'),
        (
            "may policy_failure=validation-failure policy_failure=validation-failure",
            'attribute "policy_failure" is specified multiple times',
        ),
        ("may servername=", '"servername=" specifies an invalid hostname'),
        ("may servername=a..b", '"servername=a..b" specifies an invalid hostname'),
        ("may servername=192.0.2.1", '"servername=192.0.2.1" specifies an invalid hostname'),
        *(
            (f"{level} match=nexthop", f'attribute "match" invalid at security level "{level}"')
            for level in ("may", "encrypt", "dane", "dane-only")
        ),
        *(
            (f"{level} tafile=x", f'attribute "tafile" invalid at security level "{level}"')
            for level in ("may", "encrypt", "fingerprint", "dane", "dane-only")
        ),
        ("may connection_reuse=maybe", 'attribute "connection_reuse" has bad value: "maybe"'),
        ("may enable_rpk=", 'attribute "enable_rpk" has bad value: ""'),
        ("may policy_ttl=soon", 'attribute "policy_ttl" has a malformed value: "soon"'),
        ("may policy_domain=a..b", 'attribute "policy_domain" has a malformed value: "a..b"'),
        ("may policy_type=tea", 'attribute "policy_type" has an unexpected value: "tea"'),
        ("may policy_failure=tea", 'attribute "policy_failure" has an unexpected value: "tea"'),
        ("secure colour=blue", 'invalid attribute name: "colour"'),
        ("secure policy_ttl=1", BUILT_IN),
        ("secure policy_domain=a.example", BUILT_IN),
        ("secure policy_string=x", BUILT_IN),
        ("secure mx_host_pattern=x", BUILT_IN),
        ("secure policy_failure=validation-failure", BUILT_IN),
        # Stricter than Postfix, which finds these at the handshake only.
        ("may protocols=>=TLSv9", 'Invalid TLS protocol list ">=TLSv9"'),
        ("may exclude=!MD5", "invalid unary '!+-@' in cipher exclusion: \"!MD5\""),
        ("may ciphers=best", 'invalid cipher grade: "best"'),
        ("secure match=.", 'could not configure peer name checks: no valid name in "match=."'),
    ],
)
def test_malformed_entries_say_what_postfix_says(policy: str, warning: str) -> None:
    table = parse_table(f"\nexample.com\t{policy}\n", "tls_policy")
    entry = table.entries["example.com"]
    assert entry == MalformedEntry(
        key="example.com", rule=Rule("tls_policy:2", f"example.com {policy}".rstrip()), warning=warning
    )
    assert [(problem.place, problem.is_error) for problem in table.problems if warning in problem.text] == [
        ("tls_policy:2", True)
    ]


@pytest.mark.parametrize("word", ["none", "may", "encrypt", "fingerprint", "dane", "dane-only", "verify", "secure"])
def test_levels_in_any_case(word: str) -> None:
    suffix = f" match={A64}" if word == "fingerprint" else ""
    for written in (word, word.upper(), word.title()):
        assert good(written + suffix).level is Level.parse(word)


def test_match_lists() -> None:
    entry = good("secure match=nexthop:dot-nexthop match=HOSTNAME::.Mail.example Match=bücher.example:nexthop")
    assert entry.match == (
        MatchName.NEXTHOP,
        MatchName.DOT_NEXTHOP,
        MatchName.HOSTNAME,
        LiteralName(Domain("mail.example"), below=True),
        LiteralName(Domain("xn--bcher-kva.example")),
    )


def test_a_bad_name_beside_good_ones_is_ignored_with_a_warning() -> None:
    table = parse_table("example.com secure match=.:a.example\n", "m")
    assert texts(table) == ['m:1: example.com: ignoring invalid match name: "."']
    assert not table.problems[0].is_error
    entry = table.entries["example.com"]
    assert isinstance(entry, MapEntry)
    assert entry.match == (LiteralName(Domain("a.example")),)


def test_fingerprints() -> None:
    with_colons = ":".join(B64[i : i + 2] for i in range(0, 64, 2)).upper()
    table = parse_table(f"example.com fingerprint match={A64}|{with_colons} match=zz|{A64}\n", "m")
    entry = table.entries["example.com"]
    assert isinstance(entry, MapEntry)
    assert entry.fingerprints == (A64, B64)
    assert texts(table) == ["m:1: example.com: malformed fingerprint value: zz"]


@pytest.mark.parametrize("policy", ["fingerprint", "fingerprint match=zz"])
def test_no_fingerprint_left_is_an_error(policy: str) -> None:
    table = parse_table(f"example.com {policy}\n", "m")
    assert any("with no fingerprints to match" in p.text and p.is_error for p in table.problems)


def test_none_with_attributes_only_warns() -> None:
    table = parse_table("example.com none match=nexthop, ciphers=\n", "m")
    assert isinstance(table.entries["example.com"], MapEntry)
    assert [(p.text, p.is_error) for p in table.problems] == [
        ('example.com: ignoring attribute "match=nexthop" with TLS disabled', False),
        ('example.com: ignoring attribute "ciphers=" with TLS disabled', False),
    ]


def test_parameters() -> None:
    entry = good(
        "secure,ciphers=HIGH,{ protocols = >=TLSv1.2 , !TLSv1.3 } exclude=MD5:aDSS SERVERNAME=Mx.Example "
        "connection_reuse=yes connection_reuse=NO enable_rpk=no tafile=a.pem tafile=/b.pem"
    )
    parameters = entry.parameters
    assert (parameters.ciphers, parameters.protocols) == ("high", ">=TLSv1.2 !TLSv1.3")
    assert (parameters.exclude, parameters.servername) == ("MD5:aDSS", "mx.example")
    assert entry.tafiles == ("a.pem", "/b.pem")
    assert not parameters.reuse
    assert good("secure").parameters.reuse


def test_empty_protocols_and_exclude_are_accepted() -> None:
    parameters = good("may protocols= exclude=").parameters
    assert (parameters.protocols, parameters.exclude) == ("", "")
    assert good("may").parameters.exclude is None


def test_line_breaks_inside_braces_become_blanks() -> None:
    table = parse_table("example.com secure {\n\texclude =\n   MD5\taDSS }\n", "m")
    entry = table.entries["example.com"]
    assert isinstance(entry, MapEntry)
    assert entry.parameters.exclude == "MD5 aDSS"


def test_sts_attributes() -> None:
    entry = good(
        "secure match=mx.a.example policy_type=sts policy_domain=a.example policy_ttl=86400 policy_string=x "
        "policy_string=y mx_host_pattern=*.a.example policy_failure=sts-policy-invalid"
    )
    assert entry.policy_failure == "sts-policy-invalid"


def test_trust_anchor_files_start_from_the_base() -> None:
    table = parse_table("example.com secure tafile=ca.pem tafile=/etc/x.pem tafile=ca.pem\n", "m", base="/srv")
    assert PolicyTables((table,)).tafiles == ("/srv/ca.pem", "/etc/x.pem")


def test_logical_lines() -> None:
    table = parse_table(
        "# comment\n\n  # indented comment\na.example may\n\n  # between\n\n\tciphers=high\nb.example\r\n none\r\n#c.example may",
        "maps/tls",
    )
    a, b = table.entries["a.example"], table.entries["b.example"]
    assert isinstance(a, MapEntry)
    assert isinstance(b, MapEntry)
    assert (a.rule.place, a.level, a.parameters.ciphers) == ("maps/tls:4", Level.MAY, "high")
    assert (b.rule.place, b.level) == ("maps/tls:9", Level.NONE)
    assert set(table.entries) == {"a.example", "b.example"}
    assert not table.problems


def test_a_first_line_that_is_indented_defers_its_key() -> None:
    table = parse_table("  example.com none\n", "m")
    assert isinstance(table.entries["example.com"], MalformedEntry)
    assert texts(table) == ["m:1: example.com: logical line must not start with whitespace"]


def test_a_key_alone_defers() -> None:
    table = parse_table("example.com\n.com none\n", "m")
    assert table.lookup("example.com") == MalformedEntry(
        key="example.com",
        rule=Rule("m:1", "example.com"),
        warning="policy table lookup error: expected format: key whitespace value",
    )
    assert [str(problem) for problem in table.problems if problem.is_error] == [
        "m:1: example.com: expected format: key whitespace value"
    ]


def test_octets_that_are_no_utf8_defer_the_key() -> None:
    table = parse_table(b"example.com may exclude=\xff\n".decode(errors="surrogateescape"), "m")
    assert isinstance(table.entries["example.com"], MalformedEntry)
    str(table.problems[0]).encode()


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("Example.COM", "example.com"),
        (".Example.com", ".example.com"),
        ("example.com.", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        (".bücher.example", ".xn--bcher-kva.example"),
        ("[MX.example]:587", "[mx.example]:587"),
        ("[192.0.2.1]", "[192.0.2.1]"),
    ],
)
def test_keys_are_normalised(written: str, key: str) -> None:
    table = parse_table(f"{written} encrypt\n", "m")
    assert set(table.entries) == {key}
    assert not table.problems


@pytest.mark.parametrize("written", ["*.example.com", "user@example.com", "[mx.example", "example.com:99999", "a..b"])
def test_keys_that_never_match_are_errors(written: str) -> None:
    table = parse_table(f"{written} encrypt\n", "m")
    assert [(p.place, p.is_error) for p in table.problems] == [("m:1", True)]
    assert written in table.problems[0].text


def test_duplicates_that_say_the_same_only_warn() -> None:
    table = parse_table("a.example may\nA.example may\n", "m")
    entry = table.entries["a.example"]
    assert entry.rule.place == "m:1"
    assert isinstance(entry, MapEntry)
    assert [(str(p), p.is_error) for p in table.problems] == [
        ('m:2: duplicate entry: "a.example" (first at m:1)', False)
    ]


def test_duplicates_that_contradict_defer_the_key_whatever_follows() -> None:
    table = parse_table("a.example secure\na.example none\na.example secure\nb.example may\n", "m")
    entry = table.entries["a.example"]
    assert isinstance(entry, MalformedEntry)
    assert entry.warning.startswith('policy table lookup error: duplicate entry: "a.example"')
    assert isinstance(table.entries["b.example"], MapEntry)
    assert [p.is_error for p in table.problems] == [True, True]


def test_lookup_keys() -> None:
    def keys(text: str) -> list[str]:
        return list(lookup_keys(NextHop.parse(text, default_port=25)))

    assert keys("A.b.example.com") == ["a.b.example.com", ".b.example.com", ".example.com", ".com"]
    assert keys("a.example.com:587") == ["a.example.com:587"]
    assert keys("[a.example.com]") == ["[a.example.com]"]
    assert keys("[a.example.com]:25") == ["[a.example.com]:25"]
    assert keys("[192.0.2.1]:25") == ["[192.0.2.1]:25"]
    assert list(lookup_keys(NextHop.of_domain(IpLiteral.parse("192.0.2.1"), 25))) == ["[192.0.2.1]"]


def level_for(tables: PolicyTables, text: str) -> Level | NoEntry:
    found = tables.lookup(NextHop.parse(text, default_port=25))
    assert not isinstance(found, MalformedEntry)
    return found.level if isinstance(found, MapEntry) else found


def test_lookup_order() -> None:
    tables = PolicyTables(
        (
            parse_table(".example.com may\nexample.com none\n[mx.example.com]:587 secure\n", "one"),
            parse_table("a.example.com encrypt\n.b.example.com verify\nexample.com secure\n", "two"),
        )
    )
    assert level_for(tables, "example.com") is Level.NONE  # the first table that has the key
    assert (
        level_for(tables, "a.example.com") is Level.ENCRYPT
    )  # the exact key in the second before a parent in the first
    assert level_for(tables, "x.b.example.com") is Level.VERIFY  # the nearer parent
    assert level_for(tables, "b.example.com") is Level.MAY
    assert level_for(tables, "[mx.example.com]:587") is Level.SECURE
    assert level_for(tables, "mx.example.com") is Level.MAY  # never the entry in brackets
    assert level_for(tables, "[mx.example.com]") == NoEntry()  # nor the other way round
    assert level_for(tables, "a.example.com:587") == NoEntry()
    assert level_for(tables, "example.net") == NoEntry()
    assert PolicyTables().lookup(NextHop.parse("example.net", default_port=25)) == NoEntry()


def test_a_malformed_line_hides_weaker_parents() -> None:
    tables = PolicyTables((parse_table("a.example.com secrue\n.example.com none\n", "m"),))
    assert isinstance(tables.lookup(NextHop.parse("a.example.com", default_port=25)), MalformedEntry)


@given(st.text(max_size=200))
def test_any_text_parses(text: str) -> None:
    table = parse_table(text, "m")
    for problem in table.problems:
        assert problem.place.startswith("m:")


@given(st.text(alphabet=st.sampled_from("secure may dane none match=:|{},=\t>!TLSv1.2\nexample.com"), max_size=120))
def test_a_known_key_never_disappears(policy: str) -> None:
    table = parse_table("example.com " + policy.replace("\n", " ") + "\n", "m")
    assert "example.com" in table.entries


@given(st.sampled_from([level.word for level in Level if level is not Level.HALFDANE]), st.text(max_size=60))
def test_an_entry_never_has_another_level_than_its_first_word(word: str, rest: str) -> None:
    entry = parse_table(f"example.com {word} {' '.join(rest.split())}\n", "m").entries["example.com"]
    assert isinstance(entry, MalformedEntry) or entry.level.word == word


def test_patterns_of_an_sts_policy() -> None:
    line = "secure match=a.example Policy_Type=STS mx_host_pattern=*.A.example mx_host_pattern=b.example"
    assert good(line).mx_patterns == ("*.a.example", "b.example")
    assert good("secure policy_type=no-policy-found mx_host_pattern=b.example").mx_patterns == ()
