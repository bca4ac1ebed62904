"""Options that are right one by one and wrong together, and limits of this release that are no matter of type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from relay.config.config import Config
from relay.config.kinds import seconds_text
from relay.config.netkinds import endpoint_text
from relay.config.section import RELEASE
from relay.config.sections import SQLITE
from relay.policy.level import Level


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two or more options that cannot hold together; the first is the one whose place is named."""

    options: tuple[tuple[str, str], ...]
    message: str


def contradictions(config: Config) -> Iterator[Contradiction]:
    """Find what contradicts itself; the caller leaves out what involves an option that is wrong already."""
    yield from _releases(config)
    yield from _workers(config)
    yield from _certificates(config)
    yield from _users(config)
    yield from _receiving(config)
    yield from _sending(config)
    yield from _queue(config)
    yield from _bounces(config)


def _releases(config: Config) -> Iterator[Contradiction]:
    if not config.queue.url.startswith(SQLITE):
        yield Contradiction(
            (("queue", "url"),), f'PostgreSQL is not in this release ({RELEASE}); set url = "sqlite:queue.sqlite"'
        )
    for endpoint in config.http.listen:
        if not ip_address(endpoint[0]).is_loopback:
            yield Contradiction(
                (("http", "listen"),),
                f"{endpoint_text(endpoint)} is no loopback address; beyond loopback every page needs a token, "
                f"and token_file is not in this release ({RELEASE})",
            )


def _workers(config: Config) -> Iterator[Contradiction]:
    workers = config.relay.workers
    if workers > 1 and config.queue.url.startswith(f"{SQLITE}/"):
        yield Contradiction(
            (("relay", "workers"), ("queue", "url")),
            f"workers = {workers} needs queues in relay.state_dir, one for each worker; "
            'set url = "sqlite:queue.sqlite"',
        )
    if workers > 1 and config.smtp.tls_ratchet != "off":
        yield Contradiction(
            (("relay", "workers"), ("smtp", "tls_ratchet")),
            f'workers = {workers} does not go with tls_ratchet: what one worker has seen the others do not know; set it to "off" '
            "or workers to 1",
        )


def _certificates(config: Config) -> Iterator[Contradiction]:
    for name, section in (("smtpd", config.smtpd), ("smtp", config.smtp)):
        cert, key = (name, "tls_cert_file"), (name, "tls_key_file")
        if section.tls_cert_file and not section.tls_key_file:
            yield Contradiction(
                (cert, key), "tls_cert_file without tls_key_file; name the key too (it may be one file)"
            )
        if section.tls_key_file and not section.tls_cert_file:
            yield Contradiction((key, cert), "tls_key_file without tls_cert_file; name the certificate too")
    smtpd = config.smtpd
    if smtpd.tls_security_level.uses_tls and not smtpd.tls_cert_file and not smtpd.tls_key_file:
        yield Contradiction(
            (("smtpd", "tls_security_level"), ("smtpd", "tls_cert_file"), ("smtpd", "tls_key_file")),
            f'tls_security_level = "{smtpd.tls_security_level.word}" needs tls_cert_file and tls_key_file',
        )


def _users(config: Config) -> Iterator[Contradiction]:
    smtpd = config.smtpd
    submissions = ("smtpd", "submissions_listen")
    if smtpd.submissions_listen and not smtpd.tls_security_level.uses_tls:
        yield Contradiction(
            (submissions, ("smtpd", "tls_security_level")),
            "submissions_listen needs TLS; set tls_security_level to may or encrypt, with tls_cert_file and tls_key_file",
        )
    for other, endpoints in ((("smtpd", "listen"), smtpd.listen), (("http", "listen"), config.http.listen)):
        for endpoint in set(smtpd.submissions_listen) & set(endpoints):
            if endpoint[1]:
                text = f"{endpoint_text(endpoint)} is also {'.'.join(other)}; give each its own port"
                yield Contradiction((submissions, other), text)
    if smtpd.users_file and not smtpd.tls_security_level.uses_tls:
        yield Contradiction(
            (("smtpd", "users_file"), ("smtpd", "tls_security_level")),
            "users_file needs TLS, since AUTH is never offered in the clear; set tls_security_level to may or encrypt",
        )
    if smtpd.relay_clientcerts and not (smtpd.tls_ask_ccert and smtpd.tls_security_level.uses_tls):
        yield Contradiction(
            (("smtpd", "relay_clientcerts"), ("smtpd", "tls_ask_ccert")),
            "relay_clientcerts needs clients that are asked for a certificate; set tls_ask_ccert = true, and "
            "tls_security_level to may or encrypt",
        )
    if smtpd.users_file and not smtpd.tls_auth_only:
        yield Contradiction(
            (("smtpd", "tls_auth_only"), ("smtpd", "users_file")),
            "tls_auth_only = false would take passwords in the clear, which this relay never does; leave it out",
        )


def _receiving(config: Config) -> Iterator[Contradiction]:
    smtpd = config.smtpd
    if smtpd.message_size_limit == 0:
        yield Contradiction(
            (("smtpd", "message_size_limit"),),
            'message_size_limit = 0 would take no mail at all; name the largest message, for instance "10MiB"',
        )
    if smtpd.soft_error_limit > smtpd.hard_error_limit:
        yield Contradiction(
            (("smtpd", "soft_error_limit"), ("smtpd", "hard_error_limit")),
            f"soft_error_limit ({smtpd.soft_error_limit}) is above hard_error_limit ({smtpd.hard_error_limit})",
        )
    for endpoint in set(smtpd.listen) & set(config.http.listen):
        if endpoint[1]:
            yield Contradiction(
                (("smtpd", "listen"), ("http", "listen")),
                f"{endpoint_text(endpoint)} is also http.listen; give each its own port",
            )


def _sending(config: Config) -> Iterator[Contradiction]:
    smtp = config.smtp
    level = ("smtp", "tls_security_level")
    if smtp.initial_destination_concurrency > smtp.destination_concurrency_limit:
        yield Contradiction(
            (("smtp", "initial_destination_concurrency"), ("smtp", "destination_concurrency_limit")),
            f"initial_destination_concurrency ({smtp.initial_destination_concurrency}) is above "
            f"destination_concurrency_limit ({smtp.destination_concurrency_limit})",
        )
    if smtp.tls_security_level is Level.FINGERPRINT:
        yield Contradiction(
            (level,), 'level "fingerprint" needs fingerprints, which only lines of tls_policy_maps can give'
        )
    if config.dns.trust_anchor_file and config.dns.mode == "trust-ad":
        yield Contradiction(
            (("dns", "trust_anchor_file"), ("dns", "mode")),
            'trust_anchor_file is for validating here, and with mode = "trust-ad" others validate; set "validate" or "auto"',
        )
    if config.dns.on_no_validation == "degrade" and smtp.tls_security_level is not Level.DANE:
        yield Contradiction(
            (("dns", "on_no_validation"), level),
            'on_no_validation = "degrade" is about the global level dane only, and smtp.tls_security_level is '
            f'"{smtp.tls_security_level.word}"; set "defer"',
        )


def _queue(config: Config) -> Iterator[Contradiction]:
    queue = config.queue
    if queue.minimal_backoff_time > queue.maximal_backoff_time:
        yield Contradiction(
            (("queue", "minimal_backoff_time"), ("queue", "maximal_backoff_time")),
            f"minimal_backoff_time ({seconds_text(queue.minimal_backoff_time)}) is above "
            f"maximal_backoff_time ({seconds_text(queue.maximal_backoff_time)})",
        )


def _bounces(config: Config) -> Iterator[Contradiction]:
    for word in config.bounce.notify_classes:
        if not config.bounce.reader(word):
            yield Contradiction(
                (("bounce", "notify_classes"), ("bounce", "postmaster")),
                f"notify_classes has {word}, and nobody gets those copies; set postmaster to a mail address",
            )
