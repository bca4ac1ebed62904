"""NSD serving a signed tree, and Unbound validating it with our own trust anchor; both on loopback addresses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.interop import servers
from tests.interop.zones import ZoneTree
from tests.watched_process import WatchedProcess


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server listens."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


@contextmanager
def nsd(tree: ZoneTree, endpoint: Endpoint, directory: Path) -> Iterator[WatchedProcess]:
    """Run NSD with the zones of the tree.

    :raises UnavailableError: if NSD is missing.
    """
    settings = f"""\
server:
    ip-address: {endpoint.address}@{endpoint.port}
    do-ip6: no
    server-count: 1
    username: ""
    chroot: ""
    zonesdir: "{directory}"
    database: ""
    pidfile: ""
    xfrdfile: "{directory}/xfrd.state"
    zonelistfile: "{directory}/zone.list"
    cookie-secret-file: ""
    rrl-ratelimit: 0
    refuse-any: no
    verbosity: 1
remote-control:
    control-enable: no
""" + "".join(f'zone:\n    name: "{name}"\n    zonefile: "{file}"\n' for name, file in tree.files.items())
    configuration = directory / "nsd.conf"
    configuration.write_text(settings)
    with WatchedProcess(
        [servers.find("nsd"), "-d", "-V", "1", "-c", configuration], log=directory / "nsd.log"
    ) as process:
        process.wait_for(r"nsd started")
        yield process


@contextmanager
def unbound(
    tree: ZoneTree, upstream: Endpoint, endpoints: tuple[Endpoint, ...], directory: Path
) -> Iterator[WatchedProcess]:
    """Run a validating Unbound that knows nothing but our root key.

    A stub zone for the root alone would follow its referrals to port 53: every zone gets a stub of its own.

    :param endpoints: where it listens; root may add port 53, for resolvers that know no other.
    :raises UnavailableError: if Unbound is missing.
    """
    listen = "".join(f"    interface: {one.address}@{one.port}\n" for one in endpoints)
    settings = f"""\
server:
{listen}\
    access-control: 127.0.0.0/8 allow
    do-ip6: no
    do-not-query-localhost: no
    num-threads: 1
    username: ""
    chroot: ""
    directory: "{directory}"
    pidfile: ""
    use-syslog: no
    logfile: ""
    verbosity: 1
    val-log-level: 2
    log-servfail: yes
    ede: yes
    module-config: "validator iterator"
    trust-anchor-file: "{tree.trust_anchor}"
    trust-anchor-signaling: no
    local-zone: "test." nodefault
    hide-identity: yes
remote-control:
    control-enable: no
""" + "".join(
        f'stub-zone:\n    name: "{name}"\n    stub-addr: {upstream.address}@{upstream.port}\n' for name in tree.files
    )
    configuration = directory / "unbound.conf"
    configuration.write_text(settings)
    with WatchedProcess([servers.find("unbound"), "-d", "-c", configuration], log=directory / "unbound.log") as process:
        process.wait_for(r"start of service")
        yield process


@contextmanager
def name_service(
    tree: ZoneTree, authority: Endpoint, resolver: tuple[Endpoint, ...], directory: Path
) -> Iterator[WatchedProcess]:
    """Both servers, NSD first; gives Unbound, whose output explains what it found bogus."""
    with ExitStack() as running:
        running.enter_context(nsd(tree, authority, directory))
        yield running.enter_context(unbound(tree, authority, resolver, directory))
