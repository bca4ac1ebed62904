from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from relay.mail.envelope import Client
from relay.smtpd.access import LocalRewrite, client_address, is_in, is_written_here
from relay.smtpd.options import LOOPBACK

NETWORKS = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("192.0.2.9", True),
        ("192.0.3.9", False),
        ("::ffff:192.0.2.9", True),
        ("::ffff:192.0.3.9", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("127.0.0.1", False),
        ("::", False),
    ],
)
def test_only_mynetworks(address: str, may: bool) -> None:
    assert is_in(ip_address(address), NETWORKS) is may


def test_nobody_without_networks() -> None:
    assert not is_in(ip_address("127.0.0.1"), ())


def test_a_mapped_network_means_its_ipv4_clients() -> None:
    mapped = (ip_network("::ffff:127.0.0.0/104"),)
    assert is_in(ip_address("127.1.2.3"), mapped)
    assert not is_in(ip_address("128.0.0.1"), mapped)


def test_the_default_is_loopback() -> None:
    assert is_in(ip_address("127.0.0.1"), LOOPBACK)
    assert is_in(ip_address("::1"), LOOPBACK)
    assert not is_in(ip_address("10.0.0.1"), LOOPBACK)


def test_everything_of_ipv4_is_nothing_of_ipv6() -> None:
    assert not is_in(ip_address("2001:db8::1"), (ip_network("0.0.0.0/0"),))


def test_peer_addresses() -> None:
    assert client_address("::ffff:192.0.2.9") == ip_address("192.0.2.9")
    assert client_address("fe80::1%eth0") == ip_address("fe80::1")
    assert client_address("192.0.2.9") == ip_address("192.0.2.9")


@pytest.mark.parametrize(
    ("client", "clauses", "written_here"),
    [
        (Client(address=ip_address("127.0.0.1")), {LocalRewrite.INET_INTERFACES}, True),
        (Client(address=ip_address("192.0.2.1")), {LocalRewrite.INET_INTERFACES}, True),
        (Client(address=ip_address("192.0.2.2")), {LocalRewrite.INET_INTERFACES}, False),
        (Client(address=ip_address("10.1.1.1")), {LocalRewrite.INET_INTERFACES}, False),
        (Client(address=ip_address("10.1.1.1")), {LocalRewrite.MYNETWORKS}, True),
        (Client(address=ip_address("10.1.1.1")), {LocalRewrite.SASL_AUTHENTICATED}, False),
        (Client(address=ip_address("192.0.2.2"), user="joe"), {LocalRewrite.SASL_AUTHENTICATED}, True),
        (Client(address=ip_address("127.0.0.1"), user="joe"), set(), False),
    ],
)
def test_whose_mail_is_completed(client: Client, clauses: set[LocalRewrite], written_here: bool) -> None:
    assert (
        is_written_here(
            client,
            clauses,
            mynetworks=[ip_network("10.0.0.0/8")],
            is_own=lambda address: address == ip_address("192.0.2.1"),
        )
        == written_here
    )
