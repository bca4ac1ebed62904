"""A signed tree on a loopback name server, for tests of what libunbound makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from relay.dns.anchor import Anchors
from relay.dns.unbound import Upstream
from tests.interop.servers import require_libunbound
from tests.signed_tree import Signing, Tree, TreeServer, Zone

TLSA = "3 1 1 " + "ab" * 32
ZONES = (
    Zone("."),
    Zone(
        "zt.",
        [
            "*.wild IN A 127.0.0.8",
            "deep.ent IN A 127.0.0.7",
            "many IN A 127.0.0.1",
            *(f"many IN A 127.9.{number // 250}.{number % 250}" for number in range(450)),
            *(f"host{number} IN A 127.0.0.5" for number in range(600)),
        ],
    ),
    Zone(
        "good.zt.",
        [
            "@ IN MX 10 MX",
            "mx IN A 127.0.0.2",
            f"_25._tcp.mx IN TLSA {TLSA}",
            "alias IN CNAME mx",
            "out IN CNAME mx.ins.zt.",
            "to-bogus IN CNAME mx.spoilt.zt.",
            "to-nothing IN CNAME nothing.good.zt.",
            "big IN TXT " + " ".join(f'"{"x" * 200}"' for _ in range(20)),
            *(f"loop{number} IN CNAME loop{number + 1}" for number in range(30)),
        ],
    ),
    Zone("ins.zt.", ["mx IN A 127.0.0.3", "in IN CNAME mx.good.zt."], Signing.UNSIGNED),
    Zone("spoilt.zt.", ["mx IN A 127.0.0.4", "@ IN MX 10 mx"], Signing.BAD_SIGNATURES),
    Zone("expired.zt.", ["mx IN A 127.0.0.4"], Signing.EXPIRED),
    Zone("wrong-ds.zt.", ["mx IN A 127.0.0.4"], Signing.WRONG_DS),
    Zone("broken.zt.", (), Signing.SERVFAIL),
    Zone("test.", ["mx IN A 127.0.0.44"]),
)


@pytest.fixture(scope="session")
def zones() -> tuple[Zone, ...]:
    return ZONES


@pytest.fixture(scope="session")
def tree() -> Tree:
    return Tree(ZONES)


@pytest.fixture
def server(tree: Tree) -> Iterator[TreeServer]:
    require_libunbound()
    with TreeServer(tree) as running:
        yield running


@pytest.fixture
def upstream(server: TreeServer) -> Upstream:
    return Upstream(forwarders=((ip_address(server.address), server.port),))


@pytest.fixture
def anchors(tree: Tree) -> Anchors:
    return Anchors(tree.anchors, "the test's root.key")
