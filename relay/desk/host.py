"""Which addresses the desk may listen on, and which Host headers it answers to. Pure.

A web page may give its own name our loopback address (DNS rebinding) and have a browser read from us what the browser's
user may read: so a request must name loopback, or it gets nothing.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9.-]{1,253}))(?::[0-9]{1,5})?", re.ASCII)
_LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})


def is_loopback(host: str) -> bool:
    """Whether a host name or address literal (without brackets) means this machine, and only from this machine."""
    if host.lower().rstrip(".") in _LOOPBACK_NAMES:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def names_loopback(header: str) -> bool:
    """Whether a Host header's value names loopback, with any port (a port may be forwarded)."""
    match = _HOST.fullmatch(header.strip())
    return match is not None and is_loopback(match["v6"] or match["name"])
