"""Servers and tools that we did not write: where they are, how they are installed, and why one was left out.

``RELAY_TEST_INSTALL=1`` lets ``find`` install what is missing with apt, under a policy-rc.d that starts nothing.
``RELAY_TEST_REQUIRE=1`` makes what is missing a failure; otherwise its tests are skipped and counted (tests/conftest.py).
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from relay.dns import libunbound

LEFT_OUT = "left out: "
"""Every skip for want of a server begins so; the summary counts by it."""

_SYSTEM_PATH = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")
_NODE_MODULES = Path("/usr/share/nodejs")
_POLICY = Path("/usr/sbin/policy-rc.d")
_START_NOTHING = "#!/bin/sh\nexit 101\n"
_APT = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}


class UnavailableError(Exception):
    """A server or tool cannot be used here; the text says why, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Program:
    """An executable and the Debian packages that bring it."""

    name: str
    packages: tuple[str, ...]


PROGRAMS = {
    program.name: program
    for program in (
        Program("nsd", ("nsd",)),
        Program("unbound", ("unbound",)),
        Program("ldns-keygen", ("ldnsutils",)),
        Program("ldns-signzone", ("ldnsutils",)),
        Program("ldns-key2ds", ("ldnsutils",)),
        Program("dnssec-signzone", ("bind9-utils",)),
        Program("named", ("bind9",)),
        Program("kresd", ("knot-resolver",)),
        Program("ip", ("iproute2",)),
        Program("unshare", ("util-linux",)),
        Program("openssl", ("openssl",)),
        Program("docker", ("docker.io",)),
        Program("dockerd", ("docker.io", "iptables")),
        Program("docker-compose", ("docker-compose",)),
        Program("debootstrap", ("debootstrap",)),
        Program("systemd-analyze", ("systemd",)),
        Program("postfix", ("postfix",)),
        Program("posttls-finger", ("postfix",)),
        Program("smtp-source", ("postfix",)),
        Program("dovecot", ("dovecot-core",)),
        Program("saslpasswd2", ("sasl2-bin", "libsasl2-modules")),
        Program("exim4", ("exim4-daemon-light",)),
        Program("swaks", ("swaks", "libnet-ssleay-perl")),
        Program("curl", ("curl",)),
        Program("node", ("nodejs",)),
        Program("msmtp", ("msmtp",)),
        Program("gsasl", ("gsasl",)),
        Program("haproxy", ("haproxy",)),
        Program("pflogsumm", ("pflogsumm", "libdate-calc-perl")),
    )
}


def require(name: str) -> Path:
    """The path of a program, for a test: skipped (or failed, if all are required) when it cannot be had."""
    try:
        return find(name)
    except UnavailableError as error:
        leave_out(name, str(error))


def require_libunbound() -> None:
    """The library libunbound, for a test: skipped (or failed, if all are required) when it cannot be had."""
    try:
        libunbound.load()
    except libunbound.NoLibunbound as missing:
        try:
            if os.environ.get("RELAY_TEST_INSTALL") != "1":
                raise UnavailableError(f"{missing}, or set RELAY_TEST_INSTALL=1") from None
            _install(Program("libunbound", ("libunbound8",)))
            libunbound.load()
        except (UnavailableError, libunbound.NoLibunbound) as error:
            leave_out("libunbound", str(error))


def require_nodemailer() -> Path:
    """The directory of modules in which Node.js finds nodemailer, for a test: skipped (or failed) when it cannot be had.

    Whoever has Node.js need not have this, and a Node.js that is not Debian's takes it from there as well.
    """
    try:
        if not (_NODE_MODULES / "nodemailer").is_dir():
            if os.environ.get("RELAY_TEST_INSTALL") != "1":
                raise UnavailableError("not installed; apt-get install node-nodemailer, or set RELAY_TEST_INSTALL=1")
            _install(Program("nodemailer", ("node-nodemailer",)))
    except UnavailableError as error:
        leave_out("nodemailer", str(error))
    return _NODE_MODULES


def require_map_type(kind: str, configuration: Path) -> Path:
    """Postfix's ``postmap`` that knows a type of maps, for a test; skipped (or failed) when it cannot be had.

    :param configuration: a directory; gets the main.cf without which Postfix's programs do nothing.
    """
    (configuration / "main.cf").write_text("compatibility_level = 3.6\n")
    postmap = require("postfix").with_name("postmap")
    if postmap.parents[2] != Path("/"):
        pytest.skip(f"{LEFT_OUT}Postfix with {kind}: maps: another mail server is installed, and Postfix only unpacked")
    try:
        if (
            not _knows(postmap, kind, configuration)
            and os.environ.get("RELAY_TEST_INSTALL") == "1"
            and not _other_mta()
        ):
            _apt_install((f"postfix-{kind}",))
        if not _knows(postmap, kind, configuration):
            raise UnavailableError(f"apt-get install postfix-{kind}, or set RELAY_TEST_INSTALL=1")
    except UnavailableError as error:
        leave_out(f"Postfix with {kind}: maps", str(error))
    return postmap


def _knows(postmap: Path, kind: str, configuration: Path) -> bool:
    return kind in _run(postmap.with_name("postconf"), "-c", configuration, "-m").split()


def leave_out(name: str, why: str) -> NoReturn:
    """Skip the running test for want of a server, or fail it if all are required."""
    if os.environ.get("RELAY_TEST_REQUIRE") == "1":
        pytest.fail(f"{name} is required (RELAY_TEST_REQUIRE=1) and missing: {why}", pytrace=False)
    pytest.skip(f"{LEFT_OUT}{name}: {why}")


@functools.cache
def find(name: str) -> Path:
    """The path of a program, installed first if that is allowed.

    :raises UnavailableError: if it is not there and cannot be installed.
    """
    program = PROGRAMS[name]
    found = _look_up(name)
    if found is None and os.environ.get("RELAY_TEST_INSTALL") == "1":
        root = _install(program)
        found = _look_up(name, root)
    if found is None:
        raise UnavailableError(
            f"not installed; apt-get install {' '.join(program.packages)}, or set RELAY_TEST_INSTALL=1"
        )
    return found


def _look_up(name: str, root: Path | None = None) -> Path | None:
    if root is not None:
        path = os.pathsep.join(f"{root}{place}" for place in _SYSTEM_PATH)
    else:
        path = os.pathsep.join((os.environ.get("PATH", ""), *_SYSTEM_PATH))
    found = shutil.which(name, path=path)
    return Path(found) if found else None


def _install(program: Program) -> Path | None:
    """Install with apt; returns the private root if the packages were only unpacked there."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise UnavailableError("not installed, and only root with apt-get can install it")
    if "exim4-daemon-light" in program.packages:
        return _unpack("exim4-daemon-light")  # which would take the place of Postfix, and bring an account and a queue
    if "postfix" in program.packages:
        if _other_mta():
            return _unpack("postfix")
        _run("debconf-set-selections", stdin="postfix postfix/main_mailer_type select No configuration\n")
    _apt_install(program.packages)
    return None


def _apt_install(packages: Sequence[str]) -> None:
    command = ("apt-get", "install", "--quiet=2", "--yes", "--no-install-recommends")
    patience = ("--option", "DPkg::Lock::Timeout=300", "--option", "Dpkg::Use-Pty=0")
    with _nothing_starts():
        try:
            _run(*command, *patience, *packages)
        except UnavailableError:
            _run("apt-get", "update", "--quiet=2")  # a machine image often comes without lists, or with old ones
            _run(*command, *patience, *packages)


def _other_mta() -> str:
    """The installed package that conflicts with Postfix, or the empty string."""
    listing = _run("dpkg-query", "--show", "--showformat=${db:Status-Abbrev}\t${Package}\t${Provides}\n")
    for line in listing.splitlines():
        status, package, provides = line.split("\t")
        if status.startswith("ii") and package != "postfix" and "mail-transport-agent" in provides:
            return package
    return ""


@functools.cache
def _unpack(name: str) -> Path:
    """Unpack a mail server, and nothing of its installation, into a directory that goes when the tests end.

    The host's own MTA stays as it is; only the libraries that the server needs are installed.
    """
    root = Path(tempfile.mkdtemp(prefix=f"dane-relay-{name}-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    root.chmod(0o755)
    try:
        _run("apt-get", "download", "--quiet=2", name, directory=root)
    except UnavailableError:
        _run("apt-get", "update", "--quiet=2")
        _run("apt-get", "download", "--quiet=2", name, directory=root)
    (package,) = root.glob(f"{name}_*.deb")
    _run("dpkg-deb", "--extract", package, root)
    depends = _run("dpkg-deb", "--field", package, "Depends")
    names = (alternative.split("(")[0].split("|")[0].strip() for alternative in depends.split(","))
    _apt_install([name for name in names if name.startswith("lib")])
    return root


@contextmanager
def _nothing_starts() -> Iterator[None]:
    """Packages that are installed meanwhile start no service; an administrator's own policy-rc.d comes back after."""
    saved = _POLICY.with_name("policy-rc.d.before-dane-relay-tests")
    if _POLICY.exists() and not saved.exists():  # one that is already saved was left by a run that was killed
        _POLICY.rename(saved)
    _POLICY.write_text(_START_NOTHING)
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        if saved.exists():
            saved.replace(_POLICY)
        else:
            _POLICY.unlink()


def _run(*command: str | Path, stdin: str = "", directory: Path | None = None) -> str:
    """Run a packaging command and return its output.

    :raises UnavailableError: with its last words, if it fails.
    """
    done = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        cwd=directory,
        env={**os.environ, **_APT},
        timeout=600,
        check=False,
    )
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise UnavailableError(f"`{' '.join(map(str, command[:3]))} …` failed: {' / '.join(words)}")
    return done.stdout
