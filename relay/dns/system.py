"""The name servers that the system is configured with."""

from __future__ import annotations

from ipaddress import ip_address

import dns.exception
import dns.resolver

from relay.mail.names import IpAddress


def system_nameservers(path: str = "/etc/resolv.conf") -> tuple[IpAddress, ...]:
    """The addresses in a resolv.conf, in order; empty if there is none or it names none."""
    resolver = dns.resolver.Resolver(configure=False)
    try:
        resolver.read_resolv_conf(path)
    except (dns.exception.DNSException, OSError):
        return ()
    # A scope (fe80::1%eth0) makes no ip_address that we could compare with trusted_nameservers.
    return tuple(ip_address(server) for server in resolver.nameservers if isinstance(server, str) and "%" not in server)
