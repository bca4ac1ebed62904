"""Reference identifiers of DANE-TA peers (RFC 7672 section 3.2.2)."""

from __future__ import annotations

import pytest

from relay.dane.names import reference_names
from relay.mail.names import Domain

BASE, NEXT, EXPANDED = Domain("mx.example.net"), Domain("example.com"), Domain("example.org")


@pytest.mark.parametrize(
    ("next_hop", "expanded", "mx_secure", "names"),
    [
        (NEXT, None, True, (BASE, NEXT)),
        (NEXT, EXPANDED, True, (BASE, NEXT, EXPANDED)),
        (NEXT, NEXT, True, (BASE, NEXT)),
        (BASE, None, True, (BASE,)),
        (None, None, True, (BASE,)),
        # Without DNSSEC on the MX records, the next-hop says nothing about who runs the host.
        (NEXT, EXPANDED, False, (BASE,)),
        (None, EXPANDED, True, (BASE,)),
    ],
)
def test_reference_names(
    next_hop: Domain | None, expanded: Domain | None, mx_secure: bool, names: tuple[Domain, ...]
) -> None:
    got = reference_names(base=BASE, next_hop=next_hop, expanded_next_hop=expanded, mx_secure=mx_secure)
    assert got == names
