"""Reading policy maps and the trust anchor files of their lines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from relay.config.errors import ConfigErrors
from relay.config.maps import load_policy_maps, map_name
from relay.mail.names import NextHop
from relay.policy.level import Level
from relay.policy.policy import MalformedEntry, MapEntry

KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca.example")])
START = datetime(2026, 1, 1, tzinfo=UTC)
CERT = (
    x509.CertificateBuilder()
    .subject_name(NAME)
    .issuer_name(NAME)
    .public_key(KEY.public_key())
    .serial_number(1)
    .not_valid_before(START)
    .not_valid_after(START + timedelta(days=1))
    .sign(KEY, hashes.SHA256())
    .public_bytes(Encoding.PEM)
)
PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("spec", "name"),
    [("texthash:/a", "/a"), ("hash:a", "a"), ("lmdb:a:b", "a:b"), ("/a", "/a"), ("a", "a"), ("C:a", "C:a")],
)
def test_map_names(spec: str, name: str) -> None:
    assert map_name(spec) == name


def test_maps_are_read_in_order_and_named_as_written(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("a.example may\n")
    (tmp_path / "two").write_bytes(b"\na.example none\nb.example encrypt\nc.example may exclude=\xff\n")
    tables = load_policy_maps(("texthash:one", f"hash:{tmp_path}/two"), tmp_path)
    a, b, c = (tables.lookup(NextHop.parse(f"{name}.example", default_port=25)) for name in "abc")
    assert isinstance(a, MapEntry)
    assert isinstance(b, MapEntry)
    assert isinstance(c, MalformedEntry)
    assert (a.level, a.rule.place) == (Level.MAY, "one:1")
    assert (b.level, b.rule.place) == (Level.ENCRYPT, f"{tmp_path}/two:3")


def test_every_map_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "good").write_text("")
    with pytest.raises(ConfigErrors) as caught:
        load_policy_maps(("texthash:nope", "good", "."), tmp_path)
    assert [str(error) for error in caught.value.errors] == [
        "nope: the policy map cannot be read: No such file or directory",
        ".: the policy map cannot be read: Is a directory",
    ]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (CERT, ""),
        (PUBLIC, ""),
        (b"text before\n" + PUBLIC + CERT + CERT, ""),
        (b"", "neither a certificate nor a public key in PEM"),
        (b"hello", "neither a certificate nor a public key in PEM"),
        (CERT.replace(b"MII", b"AAA"), "error reading trust anchor file"),
        (CERT + PUBLIC.replace(b"MFk", b"AAA"), "error reading trust anchor file"),
        (None, "error opening trust anchor file"),
    ],
)
def test_a_line_without_its_trust_anchors_is_malformed(tmp_path: Path, content: bytes | None, fault: str) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "tls").write_text("a.example secure tafile=ca.pem\n")
    if content is not None:
        (tmp_path / "maps" / "ca.pem").write_bytes(content)
    tables = load_policy_maps(("maps/tls",), tmp_path)
    entry = tables.lookup(NextHop.parse("a.example", default_port=25))
    if fault:
        assert isinstance(entry, MalformedEntry)
        assert fault in entry.warning
        assert [(p.place, p.is_error) for p in tables.problems] == [("maps/tls:1", True)]
        assert tables.tafiles == ()
    else:
        assert isinstance(entry, MapEntry)
        assert tables.tafiles == entry.tafiles == (str(tmp_path / "maps" / "ca.pem"),)
        assert not tables.problems
