"""``dane-relay policy lint`` and ``diff``: what they print, and the exit status."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relay.cli.main import main
from tests.unit.cli.relays import running
from tests.unit.cli.test_check import write_pair
from tests.unit.cli.test_queue import fill
from tests.unit.control.stores import entry, pending


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def policy(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["policy", *arguments])


def write(**texts: str) -> None:
    for name, text in texts.items():
        Path(name).write_text(text)


def configure(smtp: str = "") -> None:
    Path("relay.toml").write_text(f'[relay]\nmyhostname = "relay.example"\nstate_dir = "."\n[smtp]\n{smtp}')


def objects(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_lint_a_map_without_fault() -> None:
    write(tls_policy="# all is well\nexample.com secure\n")
    result = policy("lint", "tls_policy")
    assert (result.exit_code, result.output) == (0, "1 entry: 0 errors, 0 advice.\n")
    assert policy("lint", "texthash:tls_policy").exit_code == 0


def test_lint_names_errors_and_advice() -> None:
    write(tls_policy="a.example scure\n\nb.example encrypt\n", more="c.example secure\nb.example secure\n")
    result = policy("lint", "tls_policy", "more")
    assert result.exit_code == 1
    first, second, third, last = result.stdout.splitlines()
    assert first == 'tls_policy:1: error: a.example: invalid security level "scure"'
    assert second.startswith("tls_policy:3: advice: b.example: weaker than what default smtp.tls_security_level says: ")
    assert third == "more:2: advice: b.example: never used: tls_policy:3 has the same key and is tried first"
    assert last == "4 entries: 1 error, 2 advice."


def test_lint_knows_of_credentials() -> None:
    write(tls_policy="[a.example]:587 encrypt\n", sasl_passwd="[a.example]:587 joe:hunter2\n")
    assert policy("lint", "tls_policy").exit_code == 0
    configure('relayhost = "[a.example]:587"\nsasl_password_maps = ["sasl_passwd"]\n')
    result = policy("lint", "tls_policy", "-c", "relay.toml")
    assert result.exit_code == 1
    assert "tls_policy:1: error: [a.example]:587: sasl_passwd:1 has credentials for it" in result.stdout
    assert "hunter2" not in result.output


def test_advice_alone_is_no_failure() -> None:
    write(tls_policy="b.example may\n")
    assert policy("lint", "tls_policy").exit_code == 0


def test_lint_as_json() -> None:
    write(tls_policy="a.example scure\n192.0.2.1 secure\n")
    result = policy("lint", "tls_policy", "--json")
    assert result.exit_code == 1
    assert objects(result) == [
        {
            "file": "tls_policy",
            "line": 1,
            "severity": "error",
            "check": "entry",
            "text": 'a.example: invalid security level "scure"',
        },
        {
            "file": "tls_policy",
            "line": 2,
            "severity": "advice",
            "check": "unreachable",
            "text": "192.0.2.1: no mail ever goes there: an address is written [192.0.2.1]",
        },
    ]


def test_lint_knows_the_configuration() -> None:
    write(tls_policy="example.com encrypt\n[smart.example]:587 secure\n")
    configure('tls_security_level = "encrypt"\n')
    (remark,) = objects(policy("lint", "tls_policy", "-c", "relay.toml", "--json"))
    assert (remark["line"], remark["check"]) == (2, "unreachable")
    configure('tls_security_level = "encrypt"\nrelayhost = "[smart.example]:587"\n')
    (remark,) = objects(policy("lint", "tls_policy", "-c", "relay.toml", "--json"))
    assert (remark["line"], remark["check"]) == (1, "unreachable")


def test_lint_reads_trust_anchors(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    write_pair(tmp_path, start=now - timedelta(days=9), end=now - timedelta(days=2))
    write(tls_policy="a.example secure tafile=cert.pem\nb.example secure tafile=nope.pem\n")
    first, second = objects(policy("lint", "tls_policy", "--json"))
    assert (first["line"], first["severity"], first["check"]) == (1, "advice", "trust-anchor")
    assert "expired on" in str(first["text"])
    assert (second["line"], second["severity"]) == (2, "error")
    assert "error opening trust anchor file" in str(second["text"])


def test_maps_and_configurations_that_are_not_there() -> None:
    missing = policy("lint", "nowhere")
    assert missing.exit_code == 1
    assert "nowhere: the policy map cannot be read: No such file or directory" in missing.output
    write(tls_policy="a.example secure\n")
    assert policy("lint", "tls_policy", "-c", "nowhere.toml").exit_code == 1
    assert policy("diff", "tls_policy", "nowhere").exit_code == 1
    assert policy("lint").exit_code == 2
    assert policy("diff", "tls_policy").exit_code == 2


def test_lint_never_prints_a_line_s_control_characters() -> None:
    write(tls_policy="a.example secure \x1b[31m=x\n")
    result = policy("lint", "tls_policy")
    assert result.exit_code == 1
    assert "\x1b" not in result.output


def test_diff_without_a_difference() -> None:
    write(old="a.example secure\n", new="# moved\na.example   secure\n")
    result = policy("diff", "old", "new")
    assert (result.exit_code, result.output) == (0, "Nothing changes.\n")


def test_diff_marks_what_becomes_weaker() -> None:
    write(old="a.example secure\nb.example may\n", new="a.example may\nb.example secure match=mx.example.net\n")
    result = policy("diff", "old", "new")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "a.example: secure -> may WEAKER",
        "  rule  old:1 -> new:1",
        "  match  nexthop dot-nexthop -> (none)",
        "  weaker  may instead of secure",
        "b.example: may -> secure",
        "  rule  old:2 -> new:2",
        "  match  (none) -> mx.example.net",
        "2 destinations: 1 weaker, 0 malformed.",
    ]


def test_diff_that_only_strengthens_is_fine() -> None:
    write(old="a.example may\n", new="a.example secure\n")
    assert policy("diff", "old", "new").exit_code == 0


def test_diff_marks_what_becomes_malformed() -> None:
    write(old="a.example secure\n", new="a.example scure\n")
    result = policy("diff", "old", "new")
    assert result.exit_code == 1
    assert result.stdout.startswith("a.example: secure -> malformed MALFORMED\n")
    assert '  warning  (none) -> invalid security level "scure"\n' in result.stdout


def test_diff_as_json() -> None:
    write(old="a.example secure\n", new="")
    (change,) = objects(policy("diff", "old", "new", "--json"))
    assert list(change) == ["destination", "changes", "weaker", "malformed", "queued", "before", "after"]
    assert (change["destination"], change["changes"]) == ("a.example", ["level", "rule", "match"])
    before, after = change["before"], change["after"]
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert (before["rule"], after["rule"]) == ("old:1", "default smtp.tls_security_level")
    assert list(before) == list(after)


def test_against_the_queue_of_a_running_relay(tmp_path: Path) -> None:
    write(old=".good.example secure\n", new=".good.example may\n")
    configure()
    below = pending(1)
    queued = (entry("A", pending(1), pending(2)), entry("B", below))
    with running(tmp_path, *queued):
        result = policy("diff", "old", "new", "--against", "queue", "-c", "relay.toml", "--json")
    assert [(each["destination"], each["queued"]) for each in objects(result)] == [(".good.example", 0)]
    write(old="", new="good.example encrypt\n")
    with running(tmp_path, *queued):
        told = policy("diff", "old", "new", "--against", "queue", "-c", "relay.toml")
    assert "good.example: dane -> encrypt WEAKER (3 queued deliveries)" in told.stdout


def test_against_the_queue_finds_destinations_that_no_map_names(tmp_path: Path) -> None:
    fill(tmp_path / "queue.sqlite", "4XYZ0z1")  # for good.example
    write(old=".example secure\n", new=".example may\n")
    configure()
    changes = objects(policy("diff", "old", "new", "--against", "queue", "-c", "relay.toml", "--json"))
    assert [(each["destination"], each["queued"]) for each in changes] == [(".example", 0), ("good.example", 1)]
    assert len(objects(policy("diff", "old", "new", "--json"))) == 1


def test_against_a_queue_that_is_not_named() -> None:
    write(old="", new="")
    refused = policy("diff", "old", "new", "--against", "queue")
    assert refused.exit_code == 2
    assert "needs -c FILE" in refused.output


def test_maps_of_other_kinds() -> None:
    write(old="a.example secure\n", new="/^a/ may\n/^z/ secrue\n")
    result = policy("diff", "old", "pcre:new")
    assert result.exit_code == 1
    assert result.stdout.startswith("a.example: secure -> may WEAKER\n  rule  old:1 -> new:1\n")
    assert result.stderr.startswith("new: names no destinations;")
    linted = policy("lint", "pcre:new", "static:dane", "inline:{ b.example=may }")
    assert linted.exit_code == 1
    assert 'new:2: error: invalid security level "secrue"\n' in linted.output
    assert "inline:{b.example=...}:1: advice: b.example: never used: static:...:1 answers this key too" in linted.output
    assert policy("lint", "inline:{ b.example }").exit_code == 1
