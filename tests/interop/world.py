"""Destinations good and bad on real servers: NSD and Unbound with a root key of our own, Postfix as every MX host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from relay.lab.ca import Authority, CertificateKind, Credential, Signer, fingerprint, tlsa_rdata
from tests.interop.nameservers import Endpoint, name_service
from tests.interop.postfix import Listener, Postfix, postfix
from tests.interop.zones import Signing, Zone, sign_tree
from tests.loopback import LoopbackNetwork, free_port
from tests.relay_process import Setting

RESOLVER_PORT = 53
"""Postfix knows no other; our own relay is told the same address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """An MX host ``NAME.test``.

    :param number: the last number of its address.
    :param certificate: None offers no STARTTLS.
    :param issued_for: the name in the certificate; empty for the host's own.
    :param tlsa: usage, selector, matching type, and which certificate the record is made from; None publishes none.
    """

    name: str
    number: int
    certificate: CertificateKind | None
    issued_for: str = ""
    tlsa: tuple[int, int, int, Signer] | None = None


HOSTS = (
    Host(name="mx-ee", number=11, certificate=CertificateKind.SELF_SIGNED, tlsa=(3, 1, 1, Signer.LEAF)),
    Host(name="mx-ta", number=12, certificate=CertificateKind.GOOD, tlsa=(2, 1, 1, Signer.ISSUER)),
    Host(name="mx-mismatch", number=13, certificate=CertificateKind.GOOD, tlsa=(3, 1, 1, Signer.STRANGER)),
    Host(name="mx-stripped", number=14, certificate=None, tlsa=(3, 1, 1, Signer.STRANGER)),
    Host(name="mx-fail", number=15, certificate=CertificateKind.GOOD),
    Host(name="mx-clear", number=16, certificate=None),
    Host(name="mx-pkix", number=17, certificate=CertificateKind.GOOD),
    Host(name="mx-named", number=18, certificate=CertificateKind.GOOD, issued_for="secure.test"),
)

# next-hop domain → its MX hosts in order of preference
DESTINATIONS = {
    "ee.test": ("mx-ee",),
    "ta.test": ("mx-ta",),
    "mismatch.test": ("mx-mismatch",),
    "stripped.test": ("mx-stripped",),
    "skip.test": ("mx-fail", "mx-ee"),
    "fail.test": ("mx-fail",),
    "clear.test": ("mx-clear",),
    "may-clear.test": ("mx-stripped",),
    "may-mismatch.test": ("mx-mismatch",),
    "none.test": ("mx-pkix",),
    "encrypt.test": ("mx-pkix",),
    "encrypt-clear.test": ("mx-clear",),
    "verify.test": ("mx-pkix",),
    "verify-wrong.test": ("mx-named",),
    "secure.test": ("mx-named",),
    "secure-wrong.test": ("mx-pkix",),
    "fingerprint.test": ("mx-ee",),
    "fingerprint-wrong.test": ("mx-pkix",),
    "insecure.test": ("mx-ee",),
    "bogus.test": ("mx-ee",),
    "expired.test": ("mx-ee",),
}
REFUSED = {"unknown.ee.test": ("mx-ee",)}
"""Domains that lead to a host which takes no mail for them: 554 5.7.1."""
SIGNING = {"insecure.test": Signing.UNSIGNED, "bogus.test": Signing.WRONG_DS, "expired.test": Signing.EXPIRED}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All of it, running.

    :param port: the one SMTP port of all MX hosts.
    :param tls_policy: a policy map for the destinations that have a line.
    """

    directory: Path
    port: int
    resolver: Endpoint
    ca_file: Path
    tls_policy: str
    postfix: Postfix

    def relay_settings(self) -> dict[str, dict[str, Setting]]:
        """A relay that asks our Unbound, reaches our MX hosts, knows our CA and reads ``tls_policy`` beside its file."""
        return {
            "smtp": {"port": self.port, "tls_policy_maps": ["tls_policy"], "tls_CAfile": str(self.ca_file)},
            "dns": {"mode": "trust-ad", "nameservers": [str(self.resolver)]},
        }


@contextmanager
def world(directory: Path) -> Iterator[World]:
    """Start everything in a directory that other users may enter.

    :raises UnavailableError: if a server is missing or may not be started.
    """
    network = LoopbackNetwork()
    authority = Authority(directory, datetime.now(UTC))
    addresses = [network.address(host.number) for host in HOSTS]
    port = free_port(network.address(1), *addresses)
    name_server, resolver = Endpoint(network.address(1), port), Endpoint(network.address(2), RESOLVER_PORT)
    credentials = {
        host.name: authority.issue(host.certificate, host.issued_for or f"{host.name}.test")
        for host in HOSTS
        if host.certificate is not None
    }
    stranger = authority.issue(CertificateKind.GOOD, "stranger.test")
    zones = _zones(
        [f"{host.name} IN A {network.address(host.number)}" for host in HOSTS]
        + [line for host in HOSTS for line in _tlsa(host, port, authority, credentials.get(host.name, stranger))]
    )
    folders = {name: directory / name for name in ("dns", "postfix")}
    for folder in folders.values():
        folder.mkdir()
    tree = sign_tree(zones, name_server.address, folders["dns"])
    listeners = [
        Listener(
            host.name,
            Endpoint(network.address(host.number), port),
            credentials[host.name].pem_file if host.name in credentials else None,
        )
        for host in HOSTS
    ]
    with (
        name_service(tree, name_server, (resolver,), folders["dns"]),
        postfix(listeners, folders["postfix"], virtual_domains=tuple(DESTINATIONS)) as receiver,
    ):
        yield World(
            directory=directory,
            port=port,
            resolver=resolver,
            ca_file=authority.ca_file,
            tls_policy=_policy(fingerprint(credentials["mx-ee"].leaf)),
            postfix=receiver,
        )


def _tlsa(host: Host, port: int, authority: Authority, presented: Credential) -> list[str]:
    if host.tlsa is None:
        return []
    usage, selector, matching, signer = host.tlsa
    data = tlsa_rdata(usage, selector, matching, authority.signer(presented, signer))[3:].hex()
    return [f"_{port}._tcp.{host.name} IN TLSA {usage} {selector} {matching} {data}"]


def _zones(host_records: Sequence[str]) -> list[Zone]:
    def exchangers(owner: str, hosts: Sequence[str]) -> list[str]:
        return [f"{owner} IN MX {10 * place} {host}.test." for place, host in enumerate(hosts, 1)]

    inside = [
        line
        for name, hosts in (DESTINATIONS | REFUSED).items()
        if name not in SIGNING
        for line in exchangers(f"{name}.", hosts)
    ]
    return [
        Zone("."),
        Zone("test.", records=[*host_records, *inside]),
        *(Zone(f"{name}.", signing, exchangers("@", DESTINATIONS[name])) for name, signing in SIGNING.items()),
        Zone("_tcp.mx-fail.test.", Signing.UNLOADABLE),
    ]


def _policy(digest: str) -> str:
    other = ":".join(["00"] * 32)
    return f"""\
# next-hop              level
may-clear.test          may
may-mismatch.test       may
none.test               none
encrypt.test            encrypt
encrypt-clear.test      encrypt
verify.test             verify
verify-wrong.test       verify
secure.test             secure
secure-wrong.test       secure
fingerprint.test        fingerprint match={digest}
fingerprint-wrong.test  fingerprint match={other}
"""
