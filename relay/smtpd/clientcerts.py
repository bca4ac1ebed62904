"""Clients that may relay because of their certificate: ``smtpd.relay_clientcerts``. Pure.

As with Postfix's ``permit_tls_clientcerts``: a fingerprint of the certificate or of its public key stands in a map. Issuer, names
and dates do not count; the handshake has shown that the client has the key.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.mail.envelope import Client, ClientCertificate
from relay.maps.table import Found, LookupTable, MapProblem, find


@dataclass(frozen=True, slots=True)
class KnownCertificates:
    """The maps, in order; a look-up that fails permits nothing."""

    tables: tuple[LookupTable, ...] = ()

    def permit(self, client: Client) -> bool:
        """Whether the client showed a certificate that is in a map, or whose key is."""
        shown = client.tls.certificate
        if not isinstance(shown, ClientCertificate):
            return False
        prints = (each.lower() for each in (shown.fingerprint, shown.key_fingerprint) if each)
        return any(isinstance(find(self.tables, each), Found) for each in prints)

    @property
    def problems(self) -> tuple[MapProblem, ...]:
        """What is wrong with lines of the maps."""
        return tuple(problem for table in self.tables for problem in table.problems)


NO_CERTIFICATES = KnownCertificates()
