"""An enterprise: TLS always, a client certificate, smarthosts that ask for it, partners by contract, a way of last resort."""

from __future__ import annotations

from relay.lab.ca import CertificateKind
from relay.lab.script import Rcpt, Script, StartTls
from tests.interop.import_setup import Setup, direct, elsewhere
from tests.interop.side_by_side_case import NO_STARTTLS, OTHER_PORT, Host

_GATE = Host(name="gate.corp.test", port=OTHER_PORT, listens=False)
_PARTNER_GATE = Host(name="gate.partner.test", port=OTHER_PORT, listens=False)
_LAST_RESORT = Host(name="resort.corp.test", port=OTHER_PORT)
_DEAD = Host(name="dead.corp.test", port=OTHER_PORT, listens=False)
_MARKETING = Host(name="marketing.corp.test", port=OTHER_PORT)
_WRONG = Host(name="wrong.partner.test", port=OTHER_PORT, certificate=CertificateKind.WRONG_NAME)

_MAIN = """\
compatibility_level = 3.6
myhostname = relay1.corp.test
mydestination =
mynetworks = 127.0.0.0/8
inet_protocols = ipv4
conf = @directory@
smtp_tcp_port = @port@

# everything outbound is encrypted, by order of the CISO
smtp_tls_security_level = encrypt
smtp_tls_mandatory_protocols = >=TLSv1.2
smtp_tls_mandatory_ciphers = high
smtp_tls_CAfile = @ca@
smtp_tls_policy_maps = texthash:$conf/tls_policy
smtp_tls_verify_cert_match = hostname, nexthop, dot-nexthop
smtp_tls_secure_cert_match = nexthop
smtp_tls_loglevel = 1

# our certificate, which the gateways ask for
smtp_tls_cert_file = @client@
smtp_tls_key_file = $smtp_tls_cert_file

transport_maps = texthash:$conf/transport, inline:{ { inline.test = smtp:[gate.corp.test]:@other_port@ } }
sender_dependent_relayhost_maps = texthash:$conf/departments
smtp_fallback_relay = [resort.corp.test]:@other_port@

smtp_helo_name = out.corp.test
smtp_destination_concurrency_limit = 10
smtp_connect_timeout = 15
smtp_generic_maps =
disable_vrfy_command = yes
smtp_address_preference = ipv4
content_filter =
"""

_TRANSPORT = """\
.internal.test        smtp:[gate.corp.test]:@other_port@
internal.test         smtp:[gate.corp.test]:@other_port@
.partner.test         smtp:[gate.partner.test]:@other_port@
two-ways.test         smtp:[dead.corp.test]:@other_port@, [gate.corp.test]:@other_port@
ceo@vip.test          smtp:[gate.corp.test]:@other_port@
wrong-gate.test       smtp:[wrong.partner.test]:@other_port@
forbidden.test        error:5.7.1 not by mail
relayed.test          relay:[gate.corp.test]:@other_port@
"""

_POLICY = """\
[gate.corp.test]:@other_port@          secure match=gate.corp.test
[gate.partner.test]:@other_port@       secure
[wrong.partner.test]:@other_port@      secure
[resort.corp.test]:@other_port@        secure
[marketing.corp.test]:@other_port@     fingerprint match=@fingerprint:marketing.corp.test@
contract-a.test    secure match=nexthop:dot-nexthop
contract-b.test    secure match=nexthop:dot-nexthop
contract-c.test    verify
contract-d.test    verify
contract-e.test    secure match=.contract-e.test tafile=@ca@
contract-f.test    fingerprint match=@fingerprint:mx.contract-f.test@|@fingerprint:mx.contract-a.test@
contract-g.test    encrypt protocols=>=TLSv1.3 ciphers=high
exempt.test        may
exempt-plain.test  may
exempt-none.test   none
"""

_DEPARTMENTS = """\
@marketing.test      [marketing.corp.test]:@other_port@
ceo@marketing.test   DUNNO
"""

_OLD = CertificateKind.EXPIRED

ENTERPRISE = Setup(
    name="enterprise",
    main=_MAIN,
    files={"transport": _TRANSPORT, "tls_policy": _POLICY, "departments": _DEPARTMENTS},
    client_options={"smtp_helo_timeout": "90s"},
    smarthosts=(_GATE, _PARTNER_GATE),
    destinations=(
        elsewhere("internal", _GATE),
        elsewhere("a", _GATE, zone="internal.test"),
        elsewhere("b.deep", _GATE, zone="internal.test"),
        elsewhere("inline", _GATE),
        elsewhere("relayed", _GATE),
        elsewhere("sales", _PARTNER_GATE, zone="partner.test"),
        elsewhere("support", _PARTNER_GATE, zone="partner.test"),
        elsewhere("two-ways", _DEAD, _GATE),
        elsewhere("vip", _GATE, local_part="ceo"),
        elsewhere("wrong-gate", _WRONG, _LAST_RESORT),
        elsewhere("forbidden"),
        elsewhere("fair", _MARKETING, sender="news@marketing.test"),
        elsewhere("show", _MARKETING, sender="Press@Marketing.Test"),
        direct("contract-a"),
        direct("contract-c"),
        direct("contract-e"),
        direct("contract-f", certificate=CertificateKind.SELF_SIGNED),
        direct("contract-g"),
        direct("exempt", certificate=CertificateKind.SELF_SIGNED),
        direct("exempt-plain", script=NO_STARTTLS),
        direct("exempt-none"),
        direct("e-good"),
        direct("e-self", certificate=CertificateKind.SELF_SIGNED),
        direct("e-wrong-name", certificate=CertificateKind.WRONG_NAME),
        direct("e-550", script=Script(rcpt=Rcpt.REJECTED)),
        direct("e-554", script=Script(end_of_data="554 5.7.1 no")),
        # what fails for now goes to the relay of last resort, which has a line of its own
        direct("contract-b", certificate=CertificateKind.WRONG_NAME),
        direct("contract-d", certificate=CertificateKind.UNKNOWN_CA),
        direct("e-plain", script=NO_STARTTLS),
        direct("e-454", script=StartTls.REFUSED_454),
        direct("e-garbage", script=StartTls.GARBAGE),
        direct("e-closed", listens=False),
        direct("e-busy", script=Script(greeting="421 4.3.2 too busy")),
        direct("e-450", script=Script(refused=(("RCPT", "450 4.2.0 not now"),))),
    ),
    remarks=(
        "main.cf:25: differs: smtp_fallback_relay: the TLS policy of a destination holds at the fallback relay too",
    ),
)
