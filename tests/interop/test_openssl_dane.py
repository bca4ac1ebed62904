"""The oracle against the real thing: the same chains and records in handshakes of ``openssl s_client``."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relay.dane.tlsa import Tlsa
from tests import pki
from tests.interop.openssl_dane import Accepted, NoHandshake, NoneUsable, OpensslDane, Rejected, required
from tests.interop.servers import leave_out, require
from tests.pki import NOW, Cert

pytestmark = pytest.mark.interop

NAME = "mx.example"
ROOT = pki.authority("Root")
INTER = ROOT.issue("Inter", ca=True)
LEAF = INTER.issue("leaf", dns=[NAME])
EXPIRED = INTER.issue("leaf", dns=["other.example"], dates=pki.EXPIRED)
LATE_INTER = ROOT.issue("Late inter", ca=True, dates=pki.EXPIRED)
LATE_ROOT = pki.authority("Late root", dates=pki.EXPIRED)
STRANGER = pki.authority("Stranger")
SELF_SIGNED = pki.make(NAME, dns=[NAME])


@pytest.fixture(scope="module")
def oracle() -> Iterator[OpensslDane]:
    with required() as running:
        yield running


@pytest.fixture(scope="module")
def openssl() -> str:
    found = str(require("openssl"))
    version = subprocess.run([found, "version"], capture_output=True, text=True, check=True).stdout
    if not re.match(r"OpenSSL [3-9]\.", version):
        leave_out("openssl", f"the command is {version.strip()}, whose DANE may be another than that of libssl.so.3")
    return found


def rdata(record: Tlsa) -> bytes:
    return bytes((record.usage, record.selector, record.matching)) + record.data


@contextmanager
def s_server(openssl: str, directory: Path, chain: tuple[Cert, ...]) -> Iterator[str]:
    """``openssl s_server`` with a chain; gives its address and port."""
    cert_file, key_file = chain[0].write(directory)
    (directory / "chain.pem").write_bytes(b"".join(each.pem for each in chain[1:]))
    more = ["-cert_chain", str(directory / "chain.pem")] if chain[1:] else []
    command = [openssl, "s_server", "-accept", "127.0.0.1:0", "-cert", cert_file, "-key", key_file, *more]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        try:
            assert server.stdout is not None
            for line in server.stdout:
                accepting = re.match(rb"ACCEPT (127\.0\.0\.1:\d+)", line)
                if accepting:
                    break
            else:
                raise AssertionError("s_server ended before it accepted connections")
            yield accepting[1].decode()
        finally:
            server.kill()


def s_client(openssl: str, endpoint: str, rdatas: list[bytes]) -> str:
    """What ``openssl s_client`` prints of one session."""
    records: list[str] = []
    for each in rdatas:
        records += ["-dane_tlsa_rrdata", f"{each[0]} {each[1]} {each[2]} {each[3:].hex()}"]
    command = [openssl, "s_client", "-connect", endpoint, "-attime", str(int(NOW.timestamp()))]
    command += ["-dane_tlsa_domain", NAME, "-dane_ee_no_namechecks", "-cipher", "DEFAULT:@SECLEVEL=1"]
    command += ["-verify_return_error", "-no-CAfile", "-no-CApath", "-no-CAstore"]
    done = subprocess.run([*command, *records], input="Q\n", capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


Case = tuple[str, tuple[Cert, ...], list[Tlsa], bool]
CASES: list[Case] = [
    ("3 1 1 expired and of another name", (EXPIRED, INTER), [EXPIRED.tlsa(3, 1, 1)], True),
    ("3 0 2 of another", (LEAF, INTER), [STRANGER.tlsa(3, 0, 2)], False),
    ("2 1 1", (LEAF, INTER), [INTER.tlsa(2, 1, 1)], True),
    ("2 0 1 misordered, with junk", (LEAF, STRANGER, ROOT, INTER), [ROOT.tlsa(2, 0, 1)], True),
    ("2 1 1 of a root that is missing", (LEAF, INTER), [ROOT.tlsa(2, 1, 1)], False),
    ("2 0 0 of a root that is missing", (LEAF, INTER), [ROOT.tlsa(2, 0, 0)], True),
    ("2 1 0 of a root that is missing", (LEAF, INTER), [ROOT.tlsa(2, 1, 0)], True),
    ("2 0 1 signed nothing", (LEAF, INTER, STRANGER), [STRANGER.tlsa(2, 0, 1)], False),
    ("2 1 1 of the leaf", (SELF_SIGNED,), [SELF_SIGNED.tlsa(2, 1, 1)], False),
    ("2 1 0 of the leaf that signed itself", (SELF_SIGNED,), [SELF_SIGNED.tlsa(2, 1, 0)], True),
    ("2 1 1 another name", (INTER.issue("x", dns=["x.example"]), INTER), [INTER.tlsa(2, 1, 1)], False),
    ("2 1 1 expired leaf", (EXPIRED, INTER), [INTER.tlsa(2, 1, 1)], False),
    ("2 1 1 expired intermediate", (LATE_INTER.issue(NAME), LATE_INTER), [LATE_INTER.tlsa(2, 1, 1)], True),
    ("2 1 1 expired root", (LATE_ROOT.issue(NAME), LATE_ROOT), [LATE_ROOT.tlsa(2, 1, 1)], False),
    ("digest agility", (LEAF, INTER), [LEAF.tlsa(3, 1, 1), STRANGER.tlsa(3, 1, 2)], False),
    ("no usable record", (LEAF, INTER), [], False),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_the_oracle_says_what_a_handshake_says(oracle: OpensslDane, openssl: str, tmp_path: Path, case: Case) -> None:
    _, chain, records, good = case
    rdatas = [rdata(record) for record in records] or [bytes.fromhex("03010100")]
    with s_server(openssl, tmp_path, chain) as endpoint:
        shown = s_client(openssl, endpoint, rdatas)
    outcome = oracle.verify([each.der for each in chain], rdatas, [NAME], NOW)
    assert isinstance(outcome, Accepted) is good
    match outcome:
        case Accepted(matched, depth, bare_key):
            by = "signed the certificate" if bare_key else ("matched TA" if matched[0] == 2 else "matched EE")
            assert "Verification: OK" in shown
            assert re.search(rf"DANE TLSA {matched[0]} {matched[1]} {matched[2]} \S+ {by}.* at depth {depth}\n", shown)
        case Rejected(code, _, _):
            assert re.search(rf"Verify return code: {code} ", shown)
        case NoneUsable():
            assert "Failed to import any TLSA records" in shown
        case NoHandshake():
            pytest.fail("these are certificates")


def test_the_time_is_the_one_given(oracle: OpensslDane) -> None:
    chain, records = [LEAF.der, INTER.der], [rdata(INTER.tlsa(2, 1, 1))]
    assert isinstance(oracle.verify(chain, records, [NAME], NOW), Accepted)
    late = oracle.verify(chain, records, [NAME], NOW + 31 * pki.DAY)
    assert isinstance(late, Rejected)
    assert (late.code, late.depth) == (10, 0)


def test_any_of_the_names_suffices(oracle: OpensslDane) -> None:
    chain, records = [LEAF.der, INTER.der], [rdata(INTER.tlsa(2, 1, 1))]
    assert isinstance(oracle.verify(chain, records, ["other.example", NAME], NOW), Accepted)
    assert isinstance(oracle.verify(chain, records, ["other.example"], NOW), Rejected)


def test_what_is_no_certificate_ends_the_handshake(oracle: OpensslDane) -> None:
    records = [rdata(LEAF.tlsa(3, 1, 1))]
    assert oracle.verify([LEAF.der, b"junk"], records, [NAME], NOW) == NoHandshake(1)
    assert oracle.verify([LEAF.der + b"\0"], records, [NAME], NOW) == NoHandshake(0)
