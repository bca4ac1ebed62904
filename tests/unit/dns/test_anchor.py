"""The trust anchor: which records of a file are trusted, and how the managed file begins."""

from __future__ import annotations

import os
from pathlib import Path

import dns.dnssec
import dns.rdata
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dns.anchor import BUILT_IN, AnchorError, managed_anchor, read_anchors, seed
from tests.signed_tree import Key

# The root's two key signing keys, as Debian's dns-root-data has them.
ROOT_KEYS = {
    20326: "AwEAAaz/tAm8yTn4Mfeh5eyI96WSVexTBAvkMgJzkKTOiW1vkIbzxeF3+/4RgWOq7HrxRixHlFlExOLAJr5emLvN7SWXgnLh4+B5xQlNVz8Og8"
    "kvArMtNROxVQuCaSnIDdD5LKyWbRd2n9WGe2R8PzgCmr3EgVLrjyBxWezF0jLHwVN8efS3rCj/EWgvIWgb9tarpVUDK/b58Da+sqqls3eNbuv7pr+eoZG+"
    "SrDK6nWeL3c6H5Apxz7LjVc1uTIdsIXxuOLYA4/ilBmSVIzuDWfdRUfhHdY6+cn8HFRm+2hM8AnXGXws9555KrUB5qihylGa8subX2Nn6UwNR1AkUTV74b"
    "U=",
    38696: "AwEAAa96jeuknZlaeSrvyAJj6ZHv28hhOKkx3rLGXVaC6rXTsDc449/cidltpkyGwCJNnOAlFNKF2jBosZBU5eeHspaQWOmOElZsjICMQMC3aeHbGi"
    "ShvZsx4wMYSjH8e7Vrhbu6irwCzVBApESjbUdpWWmEnhathWu1jo+siFUiRAAxm9qyJNg/wOZqqzL/dL/q8PkcRU5oUKEpUge71M3ej2/7CPqpdVwuMoTv"
    "oB+ZOT4YeGyxMvHmbrxlFzGOHOijtzN+u1TQNatX2XBuzZNQ1K+s2CXkPIZo7s6JgZyvaBevYtxPvYLw4z9mR7K2vaF18UYH9Z9GNUUeayffKC73PYc=",
}
DEBIAN = "".join(f". IN DNSKEY 257 3 8 {data} ; keytag {tag}\n" for tag, data in ROOT_KEYS.items())


def test_built_in_digests_are_those_of_the_root_keys() -> None:
    made = [
        dns.dnssec.make_ds(".", dns.rdata.from_text("IN", "DNSKEY", f"257 3 8 {data}"), "SHA256")
        for data in ROOT_KEYS.values()
    ]
    assert [f". IN DS {str(digest).upper()}" for digest in made] == list(BUILT_IN)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def key_line(key: Key, state: str = "") -> str:
    return f".\t300\tIN\tDNSKEY\t{key.public} ;{{id = 1 (ksk), size = 256b}}{state}\n"


def test_debians_file_is_read(tmp_path: Path) -> None:
    found = read_anchors(write(tmp_path / "root.key", DEBIAN))
    assert len(found.records) == 2
    assert all(record.startswith(". IN DNSKEY 257 3 8 ") for record in found.records)
    assert found.source == str(tmp_path / "root.key")


def test_keys_of_several_lines_and_of_other_zones_are_read(tmp_path: Path) -> None:
    text = f"; ours\n{BUILT_IN[0]}\nzone.example. 300 IN DS 1 13 2 (\n  {'ab' * 16}\n  {'cd' * 16} )\n"
    assert len(read_anchors(write(tmp_path / "anchors", text)).records) == 2


def test_only_valid_and_missing_keys_of_an_autotrust_file_are_trusted(tmp_path: Path) -> None:
    keys = [Key.new() for _ in range(6)]
    lines = [key_line(key, f" ;;state={state} [ X ] ;;count=0") for state, key in enumerate(keys)]
    text = "; autotrust trust anchor file\n;;id: . 1\n;;query_failed: 0\n" + "".join(lines)
    trusted = read_anchors(write(tmp_path / "root.key", text)).records
    assert trusted == tuple(f". IN DNSKEY {keys[state].public}" for state in (2, 3))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no DS or DNSKEY record that is trusted"),
        (";;REVOKED\n" + BUILT_IN[0], "no DS or DNSKEY record that is trusted"),
        (". 300 IN NS a.root-servers.net.\n", "no DS or DNSKEY record that is trusted"),
        ("this is no master file\n", "is no master file"),
        (". IN DS 20326 8 2 ABCD\n", "is no master file"),
        ("$INCLUDE /etc/passwd\n", "is no master file"),
        ("; " + "x" * (1 << 20), "larger than"),
    ],
)
def test_files_without_a_trusted_key_are_refused(tmp_path: Path, text: str, why: str) -> None:
    path = write(tmp_path / "root.key", text)
    with pytest.raises(AnchorError, match=why) as raised:
        read_anchors(path)
    assert str(path) in str(raised.value)


def test_missing_file_and_binary_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AnchorError, match="cannot be read: No such file"):
        read_anchors(tmp_path / "none")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    with pytest.raises(AnchorError, match="is no master file"):
        read_anchors(tmp_path / "binary")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("anchor") / "root.key"
    path.write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(AnchorError):
        read_anchors(path)


def test_seed_is_built_in_where_the_system_has_nothing_readable(tmp_path: Path) -> None:
    broken = write(tmp_path / "broken", "nonsense")
    found = seed([tmp_path / "none", broken])
    assert (found.records, found.source) == (BUILT_IN, "built-in keys")


def test_seed_is_the_systems_where_it_knows_all_keys(tmp_path: Path) -> None:
    path = write(tmp_path / "root.key", DEBIAN)
    found = seed([tmp_path / "none", path])
    assert (len(found.records), found.source) == (2, str(path))


def test_seed_adds_the_keys_that_an_old_system_lacks(tmp_path: Path) -> None:
    path = write(tmp_path / "root.key", DEBIAN.splitlines()[0] + "\n")
    found = seed([path])
    assert found.records[1:] == (BUILT_IN[1],)
    assert "built-in" in found.source


def test_managed_file_is_made_once_and_then_kept(tmp_path: Path) -> None:
    path = managed_anchor(tmp_path, system_files=())
    assert path == tmp_path / "root.key"
    assert len(read_anchors(path).records) == 2
    own = write(path, f"{BUILT_IN[0]}\n")
    assert managed_anchor(tmp_path, system_files=()) == own
    assert len(read_anchors(path).records) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["root.key"]


def test_managed_file_that_cannot_be_read_is_not_replaced(tmp_path: Path) -> None:
    path = write(tmp_path / "root.key", "damaged\n")
    with pytest.raises(AnchorError, match="is no master file"):
        managed_anchor(tmp_path)
    assert path.read_text() == "damaged\n"


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AnchorError, match="cannot be written: No space left on device"):
        managed_anchor(tmp_path, system_files=())
    assert not list(tmp_path.iterdir())
