"""``[smtp]``: how mail leaves. Defaults as Postfix's smtp(8), but for ``tls_security_level`` and the trust store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from relay.config.kinds import (
    OPTIONAL_PATH,
    SWITCH,
    Kind,
    choice,
    choices,
    duration,
    integer,
    notation,
    text_of,
    toml_string,
)
from relay.config.netkinds import (
    HELO_NAME,
    INSECURE_MX,
    MAPS,
    MATCH_LIST,
    MECHANISM_FILTER,
    NEXT_HOPS,
    PASSWORD_MAPS,
    PORTS,
    RELAYHOST_MAPS,
    TOKEN_MAPS,
    TRANSPORT_MAPS,
    level,
    local_address,
)
from relay.config.section import Section, option
from relay.policy.level import Level
from relay.policy.notation import parse_grade, parse_protocols
from relay.policy.policy import InsecureMxPolicy, MatchName, MatchRule
from relay.scheduling.feedback import WHOLE, Feedback

_LEVELS = tuple(one for one in Level if one is not Level.HALFDANE)
_AUDITED = ("encrypt", "verify", "secure", "dane", "dane-only")
_PROTOCOLS = notation(parse_protocols, 'protocols such as ">=TLSv1.2" or "!SSLv2, !SSLv3"')
_GRADE = notation(parse_grade, '"medium", "high" or "null"')
_TIME = duration(0.001)
# Not STARTTLS and not AUTH: the policy and the credentials decide on those.
_DISCARDABLE = (
    *("chunking", "pipelining", "size", "8bitmime", "smtputf8", "dsn", "enhancedstatuscodes"),
    "silent-discard",  # Postfix's word for not logging it
)
_COUNT = integer(1, 100_000)


def _read_feedback(raw: object, _base: Path) -> Feedback:
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        raw = f"{raw:g}"
    return Feedback.parse(text_of(raw, "a number from 0 to 1, NUMBER / concurrency or NUMBER / sqrt_concurrency"))


FEEDBACK = Kind(_read_feedback, toml_string)


class SmtpSection(Section):
    """Sending mail: TLS policy, hosts, concurrency and time limits."""

    tls_security_level: Annotated[Level, level(*_LEVELS)] = option(
        Level.DANE, "TLS security level of destinations that no policy map names."
    )
    tls_policy_maps: Annotated[tuple[str, ...], MAPS] = option(
        (),
        "Postfix tls_policy maps, tried in order: files with or without texthash:, hash:, lmdb:, btree:, cdb: (all read as "
        "text), regexp:, pcre:, cidr:, or inline:{...} and static:... (docs/policy.md).",
    )
    tls_audit_level: Annotated[str, choice("", *_AUDITED)] = option(
        "",
        'Level to try beside the one that holds, at every destination whose policy line has no audit=; "" for none. It never '
        "holds mail (docs/audit.md).",
    )
    tls_ratchet: Annotated[str, choice("off", "alarm", "enforce")] = option(
        "off",
        "What is made of a destination that offers less than the best that was seen there: off remembers nothing, alarm "
        "warns and sends, enforce defers (docs/ratchet.md).",
    )
    transport_maps: Annotated[tuple[str, ...], TRANSPORT_MAPS] = option(
        (),
        "Postfix transport files (types as in tls_policy_maps), tried in order: where mail for an address, a domain or "
        ".parent goes instead of relayhost or its MX hosts (docs/routing.md).",
    )
    relayhost: Annotated[tuple[str, ...], NEXT_HOPS] = option(
        (), "Next-hops for all mail instead of the recipient's MX hosts, tried in order: domain or [host], with :port."
    )
    sender_dependent_relayhost_maps: Annotated[tuple[str, ...], RELAYHOST_MAPS] = option(
        (),
        "Postfix files (types as in tls_policy_maps) from sender addresses, @domain or <> to the next-hops of their mail "
        "instead of relayhost; DUNNO for relayhost after all.",
    )
    fallback_relay: Annotated[tuple[str, ...], NEXT_HOPS] = option(
        (),
        "Next-hops, tried in order, for mail that all hosts of its destination failed to take for now; the TLS policy of the "
        "destination holds there too, unless a policy map has a line for the fallback relay itself (docs/routing.md).",
    )
    port: Annotated[int, integer(1, 65535)] = option(25, "TCP port of hosts where the next-hop names none.")
    tls_CAfile: Annotated[str, OPTIONAL_PATH] = option(  # noqa: N815 - the parameter's name in Postfix
        "", 'PEM file with the CA certificates to trust at verify and secure; "" for the system store.'
    )
    tls_CApath: Annotated[str, OPTIONAL_PATH] = option(  # noqa: N815 - the parameter's name in Postfix
        "", "Directory with CA certificates by hash (openssl rehash), beside tls_CAfile."
    )
    tls_cert_file: Annotated[str, OPTIONAL_PATH] = option(
        "", "PEM file with our client certificate for hosts that ask for one, then its intermediates."
    )
    tls_key_file: Annotated[str, OPTIONAL_PATH] = option("", "PEM file with the private key of that certificate.")
    tls_note_starttls_offer: Annotated[bool, SWITCH] = option(
        False, "Whether hosts that offered STARTTLS where none was used are logged."
    )
    log_tls_feature_status: Annotated[bool, SWITCH] = option(
        True, "Whether status lines carry tls=, as Postfix 3.11's do; pflogsumm up to 1.1.5 counts only lines without."
    )
    tls_protocols: Annotated[str, _PROTOCOLS] = option(">=TLSv1", "TLS protocols at level may.")
    tls_mandatory_protocols: Annotated[str, _PROTOCOLS] = option(">=TLSv1.2", "TLS protocols at levels above may.")
    tls_ciphers: Annotated[str, _GRADE] = option("medium", "Lowest cipher grade at level may.")
    tls_mandatory_ciphers: Annotated[str, _GRADE] = option("medium", "Lowest cipher grade at levels above may.")
    tls_fingerprint_digest: Annotated[str, choice("sha256", "sha384", "sha512", "sha1", "md5")] = option(
        "sha256", "Digest of certificates and keys at level fingerprint."
    )
    tls_verify_cert_match: Annotated[tuple[MatchRule, ...], MATCH_LIST] = option(
        (MatchName.HOSTNAME,), "Names of which a certificate must carry one at level verify."
    )
    tls_secure_cert_match: Annotated[tuple[MatchRule, ...], MATCH_LIST] = option(
        (MatchName.NEXTHOP, MatchName.DOT_NEXTHOP), "Names of which a certificate must carry one at level secure."
    )
    tls_dane_insecure_mx_policy: Annotated[InsecureMxPolicy, INSECURE_MX] = option(
        InsecureMxPolicy.DANE,
        "Level of hosts with TLSA records behind MX records without DNSSEC: dane, encrypt or may.",
    )
    tls_wrappermode: Annotated[bool, SWITCH] = option(
        False, "Whether hosts speak TLS from the first octet at every port, without STARTTLS."
    )
    tls_wrappermode_ports: Annotated[tuple[int, ...], PORTS] = option(
        (465,), "Ports at which hosts speak TLS from the first octet although tls_wrappermode is false."
    )
    sasl_password_maps: Annotated[tuple[str, ...], PASSWORD_MAPS] = option(
        (),
        "Postfix sasl_passwd files (types as in tls_policy_maps): a host, a next-hop or a sender, then user:password. "
        "Credentials leave only over a session in which the host proved who it is (docs/smarthosts.md).",
    )
    sasl_token_maps: Annotated[tuple[str, ...], TOKEN_MAPS] = option(
        (),
        "Files as in sasl_password_maps with user:file:PATH or user:command:PATH ARGUMENTS, for an OAuth 2 access token "
        "instead of a password.",
    )
    sender_dependent_authentication: Annotated[bool, SWITCH] = option(
        False, "Whether those maps are searched for the sender's address, then its @domain, before host and next-hop."
    )
    sasl_mechanism_filter: Annotated[tuple[str, ...], MECHANISM_FILTER] = option(
        (), "Mechanisms that may be used, of those that a host offers; !NAME for not, static:all for the rest."
    )
    sasl_auth_soft_bounce: Annotated[bool, SWITCH] = option(
        True, "Whether a login that a host refuses for good defers mail; false bounces it."
    )
    inet_protocols: Annotated[str, choice("all", "ipv4", "ipv6")] = option("all", "IP versions that mail is sent over.")
    address_preference: Annotated[str, choice("any", "ipv4", "ipv6")] = option(
        "any", "Which addresses of a host are tried first; any takes turns."
    )
    bind_address: Annotated[str, local_address(4)] = option(
        "", 'IPv4 address to send from; "" for the system\'s choice.'
    )
    bind_address6: Annotated[str, local_address(6)] = option(
        "", 'IPv6 address to send from; "" for the system\'s choice.'
    )
    helo_name: Annotated[str, HELO_NAME] = option("", 'Name that EHLO gives; "" for relay.myhostname.')
    mx_address_limit: Annotated[int, _COUNT] = option(5, "Most addresses of a destination that one attempt tries.")
    mx_session_limit: Annotated[int, _COUNT] = option(2, "Most sessions with a destination that one attempt has.")
    destination_concurrency_limit: Annotated[int, _COUNT] = option(20, "Most deliveries to one destination at a time.")
    initial_destination_concurrency: Annotated[int, _COUNT] = option(
        5, "Deliveries to one destination at a time to begin with."
    )
    destination_concurrency_positive_feedback: Annotated[Feedback, FEEDBACK] = option(
        WHOLE,
        "By how much a success lets that grow: a number from 0 to 1, NUMBER / concurrency or NUMBER / sqrt_concurrency.",
    )
    destination_concurrency_negative_feedback: Annotated[Feedback, FEEDBACK] = option(
        WHOLE, "By how much a failure of the destination lets it shrink; notation as for the positive feedback."
    )
    destination_concurrency_failed_cohort_limit: Annotated[int, integer(0, 100_000)] = option(
        1,
        "After how many failed cohorts (as many failures as deliveries at a time) in a row a destination is not dialled "
        "for queue.minimal_backoff_time; 0 for never.",
    )
    destination_recipient_limit: Annotated[int, integer(0, 100_000)] = option(
        50, "Most recipients in one transaction; 0 for no limit."
    )
    destination_rate_delay: Annotated[float, duration()] = option(
        0.0, "Pause between two deliveries to one destination, one at a time; 0 for none."
    )
    discard_ehlo_keywords: Annotated[tuple[str, ...], choices(*_DISCARDABLE)] = option(
        (), "Extensions that are not used although hosts offer them, for hosts that do not do as they say."
    )
    line_length_limit: Annotated[int, integer(0, 1_000_000)] = option(
        998,
        "Longest line that is sent, in bytes; longer ones are broken with CR LF SPACE. 0 sends every line as it is.",
    )
    connection_cache_time_limit: Annotated[float, duration()] = option(
        2.0, "How long an idle session is kept for the next message on the same terms; 0 ends each after its message."
    )
    connection_reuse_time_limit: Annotated[float, duration()] = option(
        300.0, "How old a session may be and still take another message; 0 for no limit."
    )
    connection_reuse_count_limit: Annotated[int, integer(0, 1_000_000)] = option(
        0, "How many messages one session takes; 0 for no limit."
    )
    connect_timeout: Annotated[float, _TIME] = option(30.0, "Longest wait for a TCP connection.")
    helo_timeout: Annotated[float, _TIME] = option(
        300.0, "Longest wait for the greeting and for each reply to EHLO and AUTH."
    )
    starttls_timeout: Annotated[float, _TIME] = option(300.0, "Longest wait for STARTTLS and the handshake.")
    mail_timeout: Annotated[float, _TIME] = option(300.0, "Longest wait for the reply to MAIL.")
    rcpt_timeout: Annotated[float, _TIME] = option(300.0, "Longest wait for the reply to RCPT.")
    data_init_timeout: Annotated[float, _TIME] = option(120.0, "Longest wait for the reply to DATA.")
    data_xfer_timeout: Annotated[float, _TIME] = option(180.0, "Longest wait for a host to take more content.")
    data_done_timeout: Annotated[float, _TIME] = option(600.0, "Longest wait for the reply to the end of content.")
