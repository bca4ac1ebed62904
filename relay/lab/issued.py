"""What a lab's authority has issued: a credential and TLSA records for each host, and the policy map that names some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from relay.lab.ca import Authority, Credential, Signer, fingerprint, tlsa_rdata
from relay.lab.destination import Destination, Host


@dataclass(frozen=True, slots=True)
class Issued:
    """Everything that follows from the authority's keys.

    :param credentials: by host name.
    :param tlsa: TLSA RDATA in presentation form, by host name.
    """

    authority: Authority
    credentials: Mapping[str, Credential]
    tlsa: Mapping[str, tuple[str, ...]]

    def policy_map(self, destinations: Sequence[Destination]) -> str:
        """The policy map of the lab, in Postfix's text form."""
        lines = ["# The policy map of the lab, in the form of Postfix's smtp_tls_policy_maps."]
        for one in destinations:
            if one.policy:
                own = self.credentials[one.hosts[0].name]
                leaf, stranger = own.leaf, self.authority.signer(own, Signer.STRANGER)
                policy = one.policy.format(leaf=fingerprint(leaf), stranger=fingerprint(stranger))
                lines.append(f"{one.domain}\t{policy}")
        return "\n".join(lines) + "\n"


def issue_for(hosts: Sequence[Host], authority: Authority) -> Issued:
    """Issue what each host presents, and the records that are to be published for it."""
    credentials = {host.name: authority.issue(host.certificate, host.name) for host in hosts}
    tlsa = {host.name: _tlsa(authority, host, credentials[host.name]) for host in hosts}
    return Issued(authority, credentials, tlsa)


def _tlsa(authority: Authority, host: Host, credential: Credential) -> tuple[str, ...]:
    texts = []
    for spec in host.tlsa:
        certificate = authority.signer(credential, spec.made_from)
        rdata = tlsa_rdata(spec.usage, spec.selector, spec.matching, certificate)
        texts.append(f"{rdata[0]} {rdata[1]} {rdata[2]} {rdata[3:].hex()}")
    return tuple(texts)
