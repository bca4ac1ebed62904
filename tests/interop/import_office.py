"""A small office: all mail to the provider's smarthost, some partners direct, TLS where it can be had."""

from __future__ import annotations

from relay.lab.ca import CertificateKind
from relay.lab.script import Rcpt, Script, StartTls
from tests.interop.import_setup import Setup, direct, elsewhere
from tests.interop.side_by_side_case import NO_STARTTLS, OTHER_PORT, Host

_LOGIN = Script(
    extensions=("PIPELINING", "SIZE 67108864", "8BITMIME", "ENHANCEDSTATUSCODES", "AUTH PLAIN LOGIN"),
    refused=(("AUTH", "235 2.7.0 Authentication successful"),),
)
_SMART = Host(name="smart.isp.test", port=OTHER_PORT, script=_LOGIN)
_OLD_ISP = Host(name="old.isp.test", port=OTHER_PORT, script=_LOGIN)
_LISTS = Host(name="lists.isp.test", port=OTHER_PORT, certificate=CertificateKind.SELF_SIGNED)
_KINDS = CertificateKind

_MAIN = """\
# /etc/postfix/main.cf of a small office
compatibility_level = 3.6
etc = @directory@
smtpd_banner = $myhostname ESMTP $mail_name (Debian/GNU)
biff = no
append_dot_mydomain = no
readme_directory = no

myhostname = mail.office.test
mydomain = office.test
myorigin = $mydomain
mydestination =
mynetworks = 127.0.0.0/8
    [::1]/128
inet_protocols = ipv4
recipient_delimiter = +
mailbox_size_limit = 0
message_size_limit = 20480000

relayhost = [smart.isp.test]:@other_port@
transport_maps = texthash:$etc/transport
sender_dependent_relayhost_maps = texthash:$etc/sender_relay
smtp_tcp_port = @port@

smtp_tls_security_level = may
smtp_tls_CAfile = @ca@
smtp_tls_policy_maps = texthash:${etc}/tls_policy
smtp_tls_loglevel = 1
smtp_tls_session_cache_database = btree:${data_directory}/smtp_scache
smtp_tls_note_starttls_offer = yes

smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = texthash:$etc/sasl_passwd
smtp_sasl_tls_security_options = noanonymous

smtp_connect_timeout = ${stress?{5}:{10}}s
maximal_queue_lifetime = 2d
header_checks =
smtp_header_checks =
notify_classes = bounce, resource
"""

_TRANSPORT = """\
# partners that want their mail without a detour
.direct.test          smtp:
closed-shop.test      error:5.7.1 we have no business with them
later.test            retry:4.3.2 not before Monday
trash.test            discard:
boss@mixed.test       smtp:
mixed.test            smtp:[lists.isp.test]:@other_port@
.lists.test           smtp:[lists.isp.test]:@other_port@
plain-route.test      :
"""

_NOBODYS = ":".join(["AB", "CD"] * 16)
_POLICY = """\
[smart.isp.test]:@other_port@    secure
[old.isp.test]:@other_port@      encrypt
[lists.isp.test]:@other_port@    encrypt protocols=>=TLSv1.2
bank.direct.test                 secure
bank-old.direct.test             secure
bank-other.direct.test           secure match=mx.bank-other.direct.test
insurer.direct.test              verify
insurer-wrong.direct.test        verify match=hostname:nexthop
tax.direct.test                  encrypt
tax-old.direct.test              encrypt
tax-self.direct.test             encrypt ciphers=high
pinned.direct.test               fingerprint match=@fingerprint:mx.pinned.direct.test@
pinned-old.direct.test           fingerprint match=@nobody@
legacy.direct.test               none
broken.direct.test               encypt
"""

_SENDERS = """\
accounts@sender.test      [old.isp.test]:@other_port@
newsletter@sender.test    [lists.isp.test]:@other_port@
@branch.test              DUNNO
"""

_PASSWORDS = """\
[smart.isp.test]:@other_port@    office:sesame
[old.isp.test]:@other_port@      office:open
"""

_TEMPORARY = Script(refused=(("RCPT", "450 4.2.0 not now"),))

OFFICE = Setup(
    name="office",
    main=_MAIN,
    files={
        "transport": _TRANSPORT,
        "tls_policy": _POLICY.replace("@nobody@", _NOBODYS),
        "sender_relay": _SENDERS,
        "sasl_passwd": _PASSWORDS,
    },
    destinations=(
        *(elsewhere(f"customer{number}", _SMART) for number in range(1, 7)),
        elsewhere("branch-mail", _SMART, sender="clerk@branch.test"),
        elsewhere("reader1", _LISTS, sender="newsletter@sender.test"),
        elsewhere("reader2", _LISTS, sender="newsletter@sender.test"),
        elsewhere("tax-adviser", _OLD_ISP, sender="accounts@sender.test"),
        elsewhere("a", _LISTS, zone="lists.test"),
        elsewhere("deep.b", _LISTS, zone="lists.test"),
        elsewhere("mixed", _LISTS),
        elsewhere("plain-route", _SMART),
        elsewhere("closed-shop"),
        elsewhere("later"),
        elsewhere("trash"),
        direct("good.direct"),
        direct("old.direct", script=NO_STARTTLS),
        direct("self.direct", certificate=_KINDS.SELF_SIGNED),
        direct("expired.direct", certificate=_KINDS.EXPIRED),
        direct("wrong-name.direct", certificate=_KINDS.WRONG_NAME),
        direct("refuses-tls.direct", script=StartTls.REFUSED_454),
        direct("babbles.direct", script=StartTls.GARBAGE),
        direct("nobody.direct", listens=False),
        direct("busy.direct", script=Script(greeting="421 4.3.2 too busy")),
        direct("grey.direct", script=_TEMPORARY),
        direct("unknown-user.direct", script=Script(rcpt=Rcpt.REJECTED)),
        direct("spam-filter.direct", script=Script(end_of_data="554 5.7.1 looks like spam")),
        direct("bank.direct"),
        direct("bank-old.direct", certificate=_KINDS.EXPIRED),
        direct("bank-other.direct"),
        direct("insurer.direct"),
        direct("insurer-wrong.direct", certificate=_KINDS.WRONG_NAME),
        direct("tax.direct"),
        direct("tax-old.direct", script=NO_STARTTLS),
        direct("tax-self.direct", certificate=_KINDS.SELF_SIGNED),
        direct("pinned.direct", certificate=_KINDS.SELF_SIGNED),
        direct("pinned-old.direct"),
        direct("legacy.direct"),
        direct("broken.direct"),
        direct("gone.direct", listens=False),
    ),
    remarks=(
        "main.cf:4: of no consequence here: smtpd_banner",
        "tls_policy:2: differs: [old.isp.test]:",
        "main.cf:29: of no consequence here: smtp_tls_session_cache_database",
        "tls_policy:15: to be looked at: broken.direct.test: invalid security level",
    ),
)
