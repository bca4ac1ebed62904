"""Three validating resolvers that we did not write, with full recursion in a network of their own.

Inside a network namespace everybody keeps to port 53 and the real ways of the DNS: root hints, referrals, glue. Nothing
can leave it, for there is nothing but its loopback interface.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.interop import servers
from tests.interop.nameservers import Endpoint, nsd
from tests.interop.signed_tree import State, Tree
from tests.interop.signed_tree_zones import NAME_SERVERS, server_of
from tests.interop.zones import ZoneTree
from tests.watched_process import WatchedProcess

# named listens only at addresses that an interface has by name.
ADDRESSES: Final = {"named": "127.0.0.1", "unbound": "127.0.0.2", "kresd": "127.0.0.3"}
_NETWORK: Final = "198.51.100.254/24"  # TEST-NET-2; on a loopback interface, every address of it is ours

_UNBOUND: Final = """\
server:
    interface: {address}
    access-control: 127.0.0.0/8 allow
    do-ip6: no
    num-threads: 1
    username: ""
    chroot: ""
    directory: "{directory}"
    pidfile: ""
    use-syslog: no
    logfile: ""
    verbosity: 1
    val-log-level: 2
    ede: yes
    root-hints: "{hints}"
    module-config: "validator iterator"
    trust-anchor-file: "{anchor}"
    trust-anchor-signaling: no
remote-control:
    control-enable: no
"""
_NAMED: Final = """\
options {{
    directory "{directory}";
    listen-on {{ {address}; }};
    listen-on-v6 {{ none; }};
    pid-file none;
    session-keyfile none;
    lock-file none;
    managed-keys-directory "{directory}";
    recursion yes;
    allow-query {{ any; }};
    allow-recursion {{ any; }};
    dnssec-validation yes;
    empty-zones-enable no;
    minimal-responses yes;
    max-cache-size 64M;
}};
controls {{ }};
trust-anchors {{ {anchor} }};
zone "." {{ type hint; file "{hints}"; }};
"""
_KRESD: Final = """\
net.ipv6 = false
net.listen('{address}', 53, {{ kind = 'dns' }})
trust_anchors.remove('.')
trust_anchors.add_file('{anchor}', true)
modules.unload('ta_update')
modules.unload('ta_signal_query')
modules.unload('detect_time_skew')
modules.load('hints > iterate')
hints.root_file('{hints}')
cache.size = 20 * MB
log_target('stderr')
io.stderr:write('sockets are bound\\n')
"""


def in_own_network(command: Sequence[str | Path]) -> list[str]:
    """The command in a new network namespace with a loopback interface, and all that it starts ending with it.

    :raises UnavailableError: if this machine allows none.
    """
    kinds = ["--net", "--pid", "--fork", "--kill-child"]
    if os.geteuid() != 0:
        kinds += ["--user", "--map-root-user"]
    ip = servers.find("ip")
    script = f'"{ip}" link set lo up && "{ip}" addr add {_NETWORK} dev lo && exec "$@"'
    prefix = [str(servers.find("unshare")), *kinds, "--", "sh", "-c", script, "sh"]
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, timeout=60, check=False)
    if tried.returncode:
        raise servers.UnavailableError(f"this machine allows no network namespace: {tried.stderr.strip()}")
    return [*prefix, *map(str, command)]


@contextmanager
def authorities(tree: Tree, files: Mapping[str, Path], directory: Path) -> Iterator[None]:
    """Four NSDs: the root's, the top-level domains', everybody's, and one that answers SERVFAIL or REFUSED."""
    with ExitStack() as running:
        for server in ("root.infra", "top.infra", "leaf.infra", "poor.infra"):
            place = directory / server
            place.mkdir()
            mine = {
                f"{zone.name}.": files[f"{zone.name}."]
                for zone in tree.zones.values()
                if server_of(zone) == server and zone.state is not State.REFUSED
            }
            everything = ZoneTree(mine, directory / "root.ds")
            running.enter_context(nsd(everything, Endpoint(NAME_SERVERS[server], 53), place))
        yield


async def silent_server() -> tuple[asyncio.DatagramTransport, asyncio.Server]:
    """Listen at the address of ``silent.infra``, take every query over UDP and TCP, and never answer."""
    loop = asyncio.get_running_loop()
    address, port = NAME_SERVERS["silent.infra"], 53
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=(address, port))
    return transport, await loop.create_server(asyncio.Protocol, address, port)


@contextmanager
def validators(names: Sequence[str], anchor: Path, directory: Path) -> Iterator[Mapping[str, WatchedProcess]]:
    """Start these of ``ADDRESSES``; each knows the root's servers and key and nothing else.

    :raises UnavailableError: if one is missing.
    """
    hints = root_hints(directory)
    with ExitStack() as running:
        started: dict[str, WatchedProcess] = {}
        for name in names:
            place = directory / name
            place.mkdir()
            configuration = place / f"{name}.conf"
            settings = {"address": ADDRESSES[name], "directory": place, "hints": hints, "anchor": anchor}
            # A copy, because AppArmor lets /usr/sbin/named and its like read their own directories alone.
            program = Path(shutil.copy(servers.find(name), place / name))
            match name:
                case "unbound":
                    configuration.write_text(_UNBOUND.format(**settings))
                    command = [program, "-d", "-c", configuration]
                    ready = r"start of service"
                case "named":
                    _, _, _, _, *fields, digest = anchor.read_text().split()
                    key = f'. static-ds {" ".join(fields)} "{digest}";'
                    configuration.write_text(_NAMED.format(**{**settings, "anchor": key}))
                    command = [program, "-g", "-4", "-n", "1", "-c", configuration]
                    ready = r" running$"
                case "kresd":
                    own = Path(shutil.copy(anchor, place / "anchor"))
                    configuration.write_text(_KRESD.format(**{**settings, "anchor": own}))
                    command = [program, "-n", "-c", configuration, place]
                    ready = r"^sockets are bound$"
                case _:
                    raise ValueError(name)
            process = running.enter_context(WatchedProcess([str(part) for part in command], log=place / "log"))
            process.wait_for(ready)
            started[name] = process
        yield started


def root_hints(directory: Path) -> Path:
    """The file that names the root server."""
    file = directory / "root.hints"
    file.write_text(f". 3600000 IN NS root.infra.\nroot.infra. 3600000 IN A {NAME_SERVERS['root.infra']}\n")
    return file
