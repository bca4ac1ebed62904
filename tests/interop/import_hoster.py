"""A hoster: DANE by default, 2,000 destinations in its maps, customers' wishes among them."""

from __future__ import annotations

import random
from collections.abc import Iterator

from relay.lab.ca import CertificateKind
from relay.lab.destination import TlsaSpec
from relay.lab.script import Rcpt, Script, StartTls
from tests.interop.import_setup import Destination, Setup, direct
from tests.interop.side_by_side_case import EE, EE_OF_STRANGER, NO_STARTTLS, TA, Case

DESTINATIONS = 2000

_MAIN = """\
# outbound cluster, node 3
compatibility_level = 3.6
site = hoster.test
myhostname = out3.$site
mydestination =
mynetworks = 127.0.0.0/8
inet_protocols = ipv4
maps = @directory@
smtp_tcp_port = @port@

smtp_dns_support_level = dnssec
smtp_host_lookup = dns
smtp_tls_security_level = dane
smtp_tls_dane_insecure_mx_policy = dane
smtp_tls_CAfile = @ca@
smtp_tls_policy_maps =
    texthash:$maps/tls_policy,
    regexp:$maps/tls_policy.regexp
transport_maps = texthash:$maps/transport
smtp_tls_mandatory_protocols = >=TLSv1.2
smtp_tls_loglevel = 1
tls_medium_cipherlist = aNULL:-aNULL:HIGH:MEDIUM:+RC4:@STRENGTH
smtp_tls_exclude_ciphers = eNULL, aNULL

default_destination_concurrency_limit = 40
smtp_destination_concurrency_limit = ${default_destination_concurrency_limit}
default_process_limit = 200
minimal_backoff_time = 4m
maximal_backoff_time = 2h
maximal_queue_lifetime = 3d
bounce_queue_lifetime = 1d
qmgr_message_active_limit = 40000
smtp_mx_address_limit = 8
smtp_mx_session_limit = 3
smtp_skip_5xx_greeting = yes
smtputf8_enable = yes
"""

_REGEXP = r"""
/^(.*\.)?government\.test$/       encrypt
/^secure-[0-9]+\.test$/           secure match=nexthop:dot-nexthop:hostname
"""

_WISHES = """\
# what customers asked for
wish-none.test              none
wish-may.test               may
wish-encrypt.test           encrypt
wish-encrypt-plain.test     encrypt
wish-dane-only.test         dane-only
wish-dane-only-none.test    dane-only
wish-secure.test            secure match=hostname
wish-secure-self.test       secure match=hostname
.customers.test             encrypt
own.customers.test          dane
wish-typo.test              dane-onyl
wish-attribute.test         encrypt nonsense=1
wish-tls13.test             encrypt protocols=>=TLSv1.3
"""


def _policy() -> str:
    """Two thousand lines as grow over the years, the lab's destinations among them."""
    chance = random.Random(2000)
    wishes = _WISHES.splitlines(keepends=True)
    values = ("may", "encrypt", "encrypt ciphers=high", "secure", "verify match=hostname", "dane", "dane-only", "none")
    lines = [
        f"customer{number:04}.example    {chance.choice(values)}\n" for number in range(DESTINATIONS - len(wishes) + 1)
    ]
    return "".join([*lines[:700], *wishes, *lines[700:]])


def _transport() -> str:
    lines = [f"moved{number:03}.example    smtp:[new{number % 7}.example]:2525\n" for number in range(300)]
    return "".join([*lines[:150], "routed.test smtp:mx-dane.test\n", *lines[150:]])


def _destinations() -> Iterator[Destination]:
    self_signed, wrong = CertificateKind.SELF_SIGNED, CertificateKind.WRONG_NAME
    yield direct("h-ee", EE, certificate=self_signed)
    yield direct("h-ta", TA)
    yield direct("h-ee-mismatch", EE_OF_STRANGER)
    yield direct("h-ta-mismatch", TlsaSpec(2, 1, 1, EE_OF_STRANGER.made_from))
    yield direct("h-ee-name", EE, certificate=wrong)
    yield direct("h-ee-expired", EE, certificate=CertificateKind.EXPIRED)
    yield direct("h-rollover", EE_OF_STRANGER, EE)
    yield direct("h-unusable", TlsaSpec(1, 1, 1), certificate=self_signed)
    yield direct("h-unusable-plain", TlsaSpec(1, 1, 1), script=NO_STARTTLS)
    yield direct("h-none", certificate=self_signed)
    yield direct("h-plain", script=NO_STARTTLS)
    yield direct("h-stripped", EE, script=NO_STARTTLS)
    yield direct("h-454", EE, script=StartTls.REFUSED_454)
    yield direct("h-garbage", EE, script=StartTls.GARBAGE)
    yield direct("h-garbage-may", script=StartTls.GARBAGE)
    yield direct("h-closed", EE, listens=False)
    yield direct("h-insecure", zone="insecure.test")
    yield direct("h-insecure-plain", zone="insecure.test", script=NO_STARTTLS)
    yield direct("h-bogus", EE, zone="bogus.test")
    yield direct("h-expired-zone", EE, zone="expired.test")
    yield direct("h-550", EE, script=Script(rcpt=Rcpt.REJECTED))
    yield direct("h-450", EE, script=Script(refused=(("RCPT", "450 4.2.0 not now"),)))
    yield direct("h-552", EE, script=Script(end_of_data="552 5.2.2 mailbox full"))
    yield direct("h-busy", EE, script=Script(greeting="554 5.3.2 not today"))
    yield Destination(case=Case(name="h-nowhere", what="", exchangers=()))
    yield direct("wish-none", EE_OF_STRANGER)
    yield direct("wish-may", EE_OF_STRANGER)
    yield direct("wish-encrypt", certificate=self_signed)
    yield direct("wish-encrypt-plain", script=NO_STARTTLS)
    yield direct("wish-dane-only", EE)
    yield direct("wish-dane-only-none")
    yield direct("wish-secure")
    yield direct("wish-secure-self", certificate=self_signed)
    yield direct("one.customers", script=NO_STARTTLS)
    yield direct("two.customers", certificate=self_signed)
    yield direct("own.customers", EE)
    yield direct("wish-typo", EE)
    yield direct("wish-attribute", EE)
    yield direct("wish-tls13")
    yield direct("government", script=NO_STARTTLS)
    yield direct("city.government")
    yield direct("secure-1")
    yield direct("secure-2", certificate=wrong)


HOSTER = Setup(
    name="hoster",
    main=_MAIN,
    files={"tls_policy": _policy(), "tls_policy.regexp": _REGEXP, "transport": _transport()},
    destinations=tuple(_destinations()),
    remarks=(
        "main.cf:22: no counterpart: tls_medium_cipherlist",
        "main.cf:23: no counterpart: smtp_tls_exclude_ciphers",
        "main.cf:27: of no consequence here: default_process_limit",
        'tls_policy:712: to be looked at: wish-typo.test: invalid security level "dane-onyl"',
        "tls_policy:713: to be looked at: wish-attribute.test: invalid attribute",
    ),
)
