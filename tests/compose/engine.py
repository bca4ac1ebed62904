"""A Docker engine for the test, and the base image of the lab's images: what is here, else made here.

Where no engine answers and root may install, Debian's packages are taken and an engine of our own is started, with its own
data, socket and process file; it ends with the test. The base image is made with debootstrap where it is not there, so that no
registry of images is needed.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.interop import servers
from tests.watched_process import WatchedProcess

ROOT: Final = Path(__file__).parents[2]
PATIENCE: Final = 900
# Where the base image keeps the certificates by which this machine reaches its package index.
_CERTIFICATES: Final = "etc/ssl/base-image-ca.pem"


class Engine:
    """An engine that answers.

    :param environment: by which clients find it.
    """

    def __init__(self, docker: Path, compose: Path, environment: Mapping[str, str]) -> None:
        self._docker = docker
        self._compose = compose
        self._environment = {**os.environ, **environment, "COMPOSE_PROJECT_NAME": "dane-relay-test", "NO_COLOR": "1"}

    def docker(self, *arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """Run the client."""
        return self._run([str(self._docker), *arguments], stdin)

    def compose(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run compose in the checkout."""
        return self._run([str(self._compose), *arguments], None)

    def _run(self, command: list[str], stdin: bytes | None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, input=stdin, capture_output=True, cwd=ROOT, env=self._environment, timeout=PATIENCE, check=False
        )
        return subprocess.CompletedProcess(
            command, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )


@contextmanager
def engine(directory: Path) -> Iterator[Engine]:
    """An engine with its clients.

    :raises UnavailableError: if there can be none here.
    """
    compose = servers.find("docker-compose")
    docker = servers.find("docker")
    running = Engine(docker, compose, {})
    if running.docker("info").returncode == 0:
        yield running
        return
    if os.geteuid() != 0:
        raise servers.UnavailableError("no Docker engine answers, and only root can start one")
    socket = directory / "docker.sock"
    command: list[str | Path] = [
        servers.find("dockerd"),
        "--host",
        f"unix://{socket}",
        "--data-root",
        directory / "data",
        "--exec-root",
        directory / "exec",
        "--pidfile",
        directory / "pid",
    ]
    own = Engine(docker, compose, {"DOCKER_HOST": f"unix://{socket}"})
    with WatchedProcess(command, log=directory / "dockerd.log") as process:
        try:
            process.wait_for(r"API listen on")
        except AssertionError as error:
            raise servers.UnavailableError(f"dockerd does not start here: {str(error)[-500:]}") from None
        try:
            yield own
        finally:
            process.stop()
            # It leaves its own network namespace mounted, which would keep its directory.
            left = directory / "exec/netns/default"
            subprocess.run(["umount", left], capture_output=True, timeout=60, check=False)


def base_image() -> str:
    """The image that all of ours are made from."""
    names = {
        match[1]
        for file in (ROOT / "docker").rglob("*Dockerfile")
        for match in re.finditer(r"^FROM (\S+)", file.read_text(), re.MULTILINE)
    }
    (name,) = names
    return name


def provide_base_image(engine: Engine, directory: Path) -> None:
    """Make the base image with debootstrap, unless the engine has it."""
    name = base_image()
    if engine.docker("image", "inspect", name).returncode == 0:
        return
    tree = directory / "base"
    command = [str(servers.find("debootstrap")), "--variant=minbase", "bookworm", str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode:
        raise servers.UnavailableError(f"debootstrap failed: {done.stdout[-500:]}")
    for path, content in _this_machines_ways().items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(content)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as packed:
        packed.add(tree, arcname=".")
    imported = engine.docker("import", "-", name, stdin=archive.getvalue())
    assert imported.returncode == 0, imported.stderr


def _this_machines_ways() -> Mapping[str, bytes]:
    """What lets a container reach the package sources that this machine reaches."""
    files = {"etc/pip.conf": f"[global]\ncert = /{_CERTIFICATES}\n".encode(), "etc/apt/sources.list": b""}
    for bundle in (os.environ.get("PIP_CERT", ""), "/etc/ssl/certs/ca-certificates.crt"):
        if bundle and Path(bundle).exists():
            files[_CERTIFICATES] = Path(bundle).read_bytes()
            break
    else:
        del files["etc/pip.conf"]
    for source in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")):
        if source.is_file():
            files[str(source).lstrip("/")] = source.read_bytes()
    return files
