"""``regexp:`` and ``pcre:`` tables as Postfix's own libraries read them: ``postmap -q`` against our look-ups."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from relay.maps.build import MapSpec, build_table
from relay.maps.table import Failed, Found
from tests.interop import servers

pytestmark = pytest.mark.interop

KEYS = (
    *("example.com", "a.example.com", ".example.com", "[mx.example.com]:587", "xn--bcher-kva.example", "EXAMPLE.ORG"),
    *("user@example.com", "user+tag@example.com", "first.last@mail-1.example.com", "a", "aa", "aab", "ab.cd", "a-b_c"),
    *("12.example", "192.0.2.1", "foo{2}bar", "d", "w", "abcabc", "x]y", "a\\b", "tab.s", "foobar", "foo.bar.baz"),
)
BOTH = (
    r"/^example\.com$/ x",
    r"/EXAMPLE/ x",
    r"/EXAMPLE/i x",
    r"!/example/ x",
    r"/^(.*)\.example\.com$/ [$1]",
    r"/^([^.]+)\.([^.]+)\.com$/ ${2}-$(1)-$$",
    r"/^(a|aa|aab)(b?)/ 1=$1 2=$2",
    r"/(foo|foobar)(.*)/ $1",
    r"/^[a-c]{2,3}$/ x",
    r"/^a{2}b?$/ x",
    r"/[[:digit:]]+\./ x",
    r"/^[^[:alpha:]]/ x",
    r"/[]x]y/ x",
    r"/^\[.*\]:[0-9]+$/ x",
    r"/(abc)\1/ $1$1",
    r"/foo\.bar/ x",
    r"/a.b/m x",
    r"/$^/ x",
    r"|a/b| x",
    r"#^a$# x",
    r"/^(([a-z]+)\.)+com$/ x",
    r"/(x)?(a)$/ 1=$1 2=$2",
    r"/a\-b/ x",
    r"/^a|d$/ x",
    r"/()/ x",
    r"/example/ ",
    r"/(/ x",
    r"/[a/ x",
    r"/a/ $1",
    "if /com/\n/^a/ in\nendif\n/^e/ out",
    "if !/com/\n/^[ad]/ in\nif /b/\n/^a/ deep\nendif\nendif\n/^aa/ out",
)
ONLY = {
    "regexp": (
        r"/\d+/ x",
        r"/\w+@/ x",
        r"/\bbar\b/ x",
        r"/\<bar\>/ x",
        r"/^[\w]$/ x",
        r"/a\{2\}/ x",
        r"/foo\{2\}/ x",
        r"/example/!/^a/ x",
        r"/(a*)(ab)*(b*)/ 1=$1 3=$3",
        r"/a*?b/ x",
        r"/(?:a)/ x",
        r"/a/x x",
    ),
    "pcre": (
        r"/^\d+\./ x",
        r"/^\w+@/ x",
        r"/\bbar\b/ x",
        r"/^[\w-]+$/ x",
        r"/(?i)EXAMPLE/i x",
        r"/(?-i)EXAMPLE/ x",
        r"/^(?:a|aa)(b)/ $1",
        r"/^(?=a).*(?<!m)$/ x",
        r"/(?<tag>\+.*)@/ $1",
        r"/^a++b/ x",
        r"/^.*?(b)/ $1",
        r"/\Qfoo{2}\E/ x",
        r"/foo{2}/ x",
        r"/foo{x}/ x",
        r"/example/A x",
        r"/ex am ple/x x",
        r"/\x61\.ex/ x",
        r"/^\H+$/ x",
        r"/a(?i)B/i x",
        r"/a/U x",
        r"/(?|(a)b|(f)o)/ $1",
        r"/^(a)?(?(1)a|d)$/ x",
        r"/\z/ x",
        r"/[[:^alpha:]]/ x",
        r"/\p{L}@/ x",
    ),
}
REFUSED = {
    "regexp": {r"/\d+/ x", r"/(?:a)/ x", r"/a*?b/ x", r"/a/x x"},
    "pcre": {r"/^\H+$/ x", r"/a(?i)B/i x", r"/a/U x"},
}
"""Rules that Postfix reads and we do not: what comes to them fails."""


@pytest.mark.parametrize("kind", ["regexp", "pcre"])
def test_same_answers_or_none_at_all(kind: str, tmp_path: Path) -> None:
    postmap = servers.require_map_type(kind, tmp_path)
    wrong = []
    for number, text in enumerate((*BOTH, *ONLY[kind])):
        file = tmp_path / str(number)
        file.write_text(text + "\n")
        done = subprocess.run(
            [postmap, "-c", tmp_path, "-q", "-", f"{kind}:{file}"],
            input="".join(f"{key}\n" for key in KEYS),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        theirs = dict(line.split("\t", 1) for line in done.stdout.splitlines())
        broken = "warning:" in done.stderr
        table = build_table(MapSpec(kind, "m"), file.read_text())
        for key in KEYS:
            ours = table.lookup(key)
            if isinstance(ours, Failed):
                allowed = broken or text in REFUSED[kind] or _separates(theirs.get(key, ""), ours)
                expected = "" if allowed else theirs.get(key)
                got: str | None = "" if allowed else "(failed)"
            else:
                expected, got = theirs.get(key), ours.value if isinstance(ours, Found) else None
            if expected != got or (text in REFUSED[kind] and not table.problems):
                wrong.append((text, key, f"Postfix: {expected}", f"ours: {got}", ours, done.stderr[:100]))
    assert not wrong, "\n".join(map(str, wrong))


def _separates(value: str, ours: Failed) -> bool:
    """Whether we refused what a key would have brought into a value."""
    return "into the result" in ours.reason and value != ""
