"""A network of one's own (network_namespaces(7)): nothing leaves it, and port 25 and 53 are free."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

INSIDE = "LAB_OF_DANE_RELAY"
"""Set in the environment of what runs inside; it does not begin as the variables of options do."""

_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1


class NoNamespace(Exception):  # noqa: N818 - it names the state, not the handling
    """There can be no network of one's own here; the message says why."""


def inside() -> bool:
    """Whether this process was started by ``command_inside``."""
    return os.environ.get(INSIDE) == "1"


def command_inside(command: Sequence[str]) -> list[str]:
    """The command in new network, mount and process namespaces, which end with it.

    :raises NoNamespace: if this machine or account allows none.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        raise NoNamespace("unshare is not installed (Debian: util-linux)")
    if os.geteuid() != 0:
        raise NoNamespace("only root can run the lab with real servers: they deliver mail under accounts of their own")
    prefix = [
        unshare,
        "--net",
        "--mount",
        "--propagation",
        "private",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, timeout=60, check=False)
    if tried.returncode:
        raise NoNamespace(f"this machine allows no network namespace: {tried.stderr.strip()}")
    return [*prefix, "env", f"{INSIDE}=1", *command]


def run_inside(command: Sequence[str], pid_file: Path) -> int:
    """Run a command in namespaces of its own to its end; returns its exit status.

    :param pid_file: is given the number of a process in there as it is seen from here, while it runs.
    :raises NoNamespace: if this machine or account allows none.
    """
    with subprocess.Popen(command_inside(command)) as outer:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        try:
            while outer.poll() is None:
                if child := children.read_text().split():
                    pid_file.write_text(child[0] + "\n")
                    break
                time.sleep(0.05)
            return outer.wait()
        except KeyboardInterrupt:  # it was told as well, and takes the lab down
            return outer.wait()
        finally:
            pid_file.unlink(missing_ok=True)


def bring_up_loopback() -> None:
    """Bring up the loopback interface of a new namespace (netdevice(7)).

    :raises OSError: if that is not allowed.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14s", b"lo", 0, b"")
        flags = struct.unpack("16sH14s", fcntl.ioctl(any_socket, _GET_FLAGS, request))[1]
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH14s", b"lo", flags | _UP, b""))


_LAID_OVER = ("usr", "var", "etc")


def lay_over(unpacked: Sequence[Path], directory: Path) -> None:
    """Give this mount namespace a system of its own: what is written to /usr, /var and /etc goes into a directory.

    :param unpacked: roots of packages that are not installed; here they seem to be.
    :param directory: takes the changes; new.
    :raises NoNamespace: if that cannot be had.
    """
    for name in _LAID_OVER:
        upper, work = directory / name, directory / f"{name}.work"
        upper.mkdir(parents=True)
        work.mkdir()
        lower = [str(root / name) for root in unpacked if (root / name).is_dir()] + [f"/{name}"]
        options = f"lowerdir={':'.join(lower)},upperdir={upper},workdir={work}"
        done = subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", options, f"/{name}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise NoNamespace(f"cannot lay an overlay over /{name}: {done.stderr.strip()}")


def add_account(name: str, number: int, home: str = "/nonexistent") -> None:
    """Make a system account and its group of the same number, unless there is one of that name.

    Only where ``lay_over`` has been: it writes to /etc.
    """
    for file, line in (
        (Path("/etc/passwd"), f"{name}:x:{number}:{number}::{home}:/usr/sbin/nologin\n"),
        (Path("/etc/group"), f"{name}:x:{number}:\n"),
    ):
        if not any(known.startswith(f"{name}:") for known in file.read_text().splitlines()):
            with file.open("a") as out:
                out.write(line)


def see_resolver(address: str) -> None:
    """Let every program of this namespace ask one resolver, and believe its AD bit; only where ``lay_over`` has been."""
    file = Path("/etc/resolv.conf")
    file.unlink(missing_ok=True)
    file.write_text(f"nameserver {address}\noptions trust-ad edns0\n")
