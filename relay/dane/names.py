"""Reference identifiers of a DANE-TA peer (RFC 7672 section 3.2.2)."""

from __future__ import annotations

from relay.mail.names import Domain


def reference_names(
    *, base: Domain, next_hop: Domain | None, expanded_next_hop: Domain | None, mx_secure: bool
) -> tuple[Domain, ...]:
    """The names of which a certificate under a DANE-TA record must carry one, the TLSA base domain first.

    :param base: the TLSA base domain.
    :param next_hop: the domain whose MX records led here, None where no MX look-up took place.
    :param expanded_next_hop: what that domain's CNAME records lead to, None or the domain itself if it has none.
    :param mx_secure: whether the MX answer was secure; if not, its names say nothing about the host.
    """
    names = [base]
    if next_hop is not None and mx_secure:
        names += [next_hop] if expanded_next_hop is None else [next_hop, expanded_next_hop]
    return tuple(dict.fromkeys(names))
