"""The zones and hosts are what tests/interop/world.py says they are, in the eyes of Postfix's own client."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.interop import servers
from tests.interop.postfix import library_path, seeing_resolver
from tests.interop.world import World

pytestmark = pytest.mark.interop


def finger(world: World, domain: str, directory: Path) -> str:
    program = servers.require("posttls-finger")
    try:
        prefix = seeing_resolver(world.resolver.address, directory)
    except servers.UnavailableError as error:
        servers.leave_out("posttls-finger", str(error))
    environment = {"MAIL_CONFIG": str(world.directory / "postfix/conf"), **library_path(program)}
    done = subprocess.run(
        [*prefix, program, "-c", "-l", "dane", "-o", "smtp_dns_support_level=dnssec", f"{domain}:{world.port}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("domain", "line"),
    [
        ("ee.test", r"Verified TLS connection established to mx-ee\.test\["),
        ("ta.test", r"Verified TLS connection established to mx-ta\.test\["),
        ("mismatch.test", r"Untrusted TLS connection established to mx-mismatch\.test\["),
        ("skip.test", r"Verified TLS connection established to mx-ee\.test\["),
        ("fail.test", r"TLSA lookup error for mx-fail\.test:"),
        ("bogus.test", r"Host or domain name not found|Host not found|Name service error|try again"),
    ],
)
def test_postfix_sees_it_so(real_world: World, tmp_path: Path, domain: str, line: str) -> None:
    said = finger(real_world, domain, tmp_path)
    assert re.search(line, said), said
