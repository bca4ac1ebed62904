"""What is compared: our relay, Postfix, and Postfix with TLS connection reuse, all delivering to one sink.

With DANE, or all in the clear: then Postfix reuses connections as it comes, and there is no third contender.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from relay.lab.ca import Authority, CertificateKind, tlsa_rdata
from tests.bench.sinks import Receiving, Sink
from tests.interop.nameservers import Endpoint, name_service
from tests.interop.postfix import Listener, postfix
from tests.interop.zones import Zone, sign_tree
from tests.loopback import LoopbackNetwork, free_port
from tests.relay_process import RelayProcess, Settings
from tests.watched_process import WatchedProcess

DOMAIN = "bench.test"
CONTENDERS = ("relay", "postfix", "postfix-reuse")
# With so many workers.
MORE = ("relay-2", "relay-4")
_TICKS = os.sysconf("SC_CLK_TCK")
_DELAY = re.compile(r" delay=([0-9.]+),.* status=sent")
_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One relay under test, running.

    :param endpoint: where it takes mail.
    :param process: its output is its log.
    """

    name: str
    endpoint: Endpoint
    process: WatchedProcess

    def sessions(self) -> int:
        """How many TLS sessions its log has, each verified; 0 where all is in the clear.

        :raises AssertionError: if any other TLS session, or a failed delivery, is in the log.
        """
        lines = self.process.lines()
        bad = [line for line in lines if "status=deferred" in line or "status=bounced" in line]
        established = [line for line in lines if "TLS connection established to" in line]
        bad += [line for line in established if "Verified TLS connection" not in line]
        assert not bad, f"{self.name} did not deliver all as it should: {bad[0]}"
        return len(established)

    def delays(self, after: int) -> tuple[float, ...]:
        """Seconds from arrival to delivery of what was logged as sent after so many lines: the word ``delay=``, in both logs."""
        found = (_DELAY.search(line) for line in self.process.lines()[after:])
        return tuple(float(one[1]) for one in found if one)

    def processor_seconds(self) -> float:
        """User and system time up to now of the process, what it started, and what of that has ended (proc(5))."""
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in _family(self.process.pid)]
        own = sum(int(each[11]) + int(each[12]) for each in fields)
        return (own + sum(int(each[13]) + int(each[14]) for each in fields)) / _TICKS

    def memory_mib(self) -> float:
        """What the process and those that it started hold now, shared pages divided among them (PSS), in MiB."""
        rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in _family(self.process.pid)]
        return sum(int(found[1]) for text in rollups if (found := _PSS.search(text))) / 1024


def _family(root: int) -> list[int]:
    """A process and its descendants; one that ends meanwhile is left out by the next look."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, following = [], [root]
    while following:
        found.append(following.pop())
        following += children.get(found[-1], ())
    return found


@contextmanager
def arena(
    directory: Path, names: Sequence[str], *, dane: bool, receiving: Receiving
) -> Iterator[tuple[Sink, tuple[Contender, ...]]]:
    """Start name servers, sink and contenders; gives the sink and the contenders.

    :param directory: on the disk to be measured, open to other users.
    :param dane: whether mail is delivered with DANE and no weaker; else all is in the clear.
    :param receiving: by what.
    :raises UnavailableError: if a server is missing.
    """
    network = LoopbackNetwork()
    authority = Authority(directory, datetime.now(UTC))
    endpoint = receiving.endpoint(network.address(10), network.address(1))
    port = endpoint.port
    resolver = Endpoint(network.address(2), 53)
    credential = authority.issue(CertificateKind.GOOD, f"mx.{DOMAIN}")
    data = tlsa_rdata(3, 1, 1, credential.leaf)[3:].hex()
    records = [f"* IN MX 10 mx.{DOMAIN}.", f"mx IN A {endpoint.address}", f"_{port}._tcp.mx IN TLSA 3 1 1 {data}"]
    folders = {name: directory / name for name in ("dns", "sink", *names)}
    for folder in folders.values():
        folder.mkdir()
    zones = [Zone("."), Zone("test."), Zone(f"{DOMAIN}.", records=records)]
    name_server = Endpoint(network.address(1), port)
    tree = sign_tree(zones, name_server.address, folders["dns"])
    with ExitStack() as running:
        running.enter_context(name_service(tree, name_server, (resolver,), folders["dns"]))
        pem_file = credential.pem_file if dane else None
        sink = running.enter_context(receiving.start(endpoint, pem_file, folders["sink"]))
        contenders = []
        for number, name in enumerate(names):
            if name.startswith("relay"):
                contenders.append(running.enter_context(_relay(name, folders[name], port, resolver, dane=dane)))
            else:
                entrance = Endpoint(network.address(20 + number), free_port(network.address(20 + number)))
                contenders.append(
                    running.enter_context(_postfix(name, folders[name], port, resolver, entrance, dane=dane))
                )
        yield sink, tuple(contenders)


@contextmanager
def _relay(name: str, directory: Path, port: int, resolver: Endpoint, *, dane: bool) -> Iterator[Contender]:
    """Ours; ``relay-N`` is one of N workers."""
    workers = int(name.partition("-")[2] or 1)
    smtp = {"port": port, "tls_security_level": "dane" if dane else "none"}
    settings: Settings = {
        "relay": {"workers": workers},
        "smtpd": {"message_size_limit": "50MiB"},  # as Postfix here
        "smtp": smtp,
        "dns": {"mode": "trust-ad", "nameservers": [str(resolver)]},
    }
    with RelayProcess(directory, settings) as relay:
        relay.process.wait_for("daemon started -- .*" + (f", {workers} workers" if workers > 1 else ""))
        yield Contender(name=name, endpoint=Endpoint(relay.address, relay.port), process=relay.process)


@contextmanager
def _postfix(
    name: str, directory: Path, port: int, resolver: Endpoint, entrance: Endpoint, *, dane: bool
) -> Iterator[Contender]:
    """Postfix as it comes, but for the level, and without the brake on input that would slow a short run."""
    settings = {
        "mynetworks": "127.0.0.0/8",
        "in_flow_delay": "0",
        "smtp_tcp_port": str(port),
        "smtp_tls_security_level": "dane" if dane else "none",
        "smtp_dns_support_level": "dnssec" if dane else "enabled",
        "smtp_tls_loglevel": "1",
        "smtp_tls_connection_reuse": "yes" if name == "postfix-reuse" else "no",
    }
    directory.chmod(0o755)
    listener = Listener(name, entrance)
    with postfix([listener], directory, settings=settings, resolver=resolver.address) as running:
        yield Contender(name=name, endpoint=entrance, process=running.process)
