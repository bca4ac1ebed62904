"""The configuration's sections as the options of each room, so that no room depends on the file's layout."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address

from relay.config.config import Config
from relay.delivery import pool
from relay.delivery.options import DeliveryOptions, Timeouts
from relay.delivery.reach import Families, Ourselves, Preference, Reach
from relay.dns.ad import NameServer, is_trusted
from relay.dns.system import system_nameservers
from relay.log.json import JsonLines
from relay.log.postfix import PostfixLines
from relay.log.sink import Lines
from relay.mail.envelope import Address
from relay.mail.names import Domain, IpAddress
from relay.queue.notices import NoticeClass, ReportOptions
from relay.queue.schedule import RetrySchedule
from relay.scheduling.window import Limits
from relay.smtpd.content import BareLineEnds
from relay.smtpd.options import SmtpdOptions
from relay.worker.options import WorkerOptions


def delivery_options(config: Config) -> DeliveryOptions:
    """``[smtp]`` for the delivery room."""
    smtp = config.smtp
    return DeliveryOptions(
        helo_name=config.helo_name,
        mx_address_limit=smtp.mx_address_limit,
        mx_session_limit=smtp.mx_session_limit,
        reach=Reach(
            families=Families(smtp.inet_protocols),
            preference=Preference(smtp.address_preference),
            ourselves=_ourselves(config),
        ),
        bind_address=smtp.bind_address,
        bind_address6=smtp.bind_address6,
        minimal_backoff_time=config.queue.minimal_backoff_time,
        note_starttls_offer=smtp.tls_note_starttls_offer,
        discard_ehlo_keywords=frozenset(word.upper() for word in smtp.discard_ehlo_keywords),
        line_length_limit=smtp.line_length_limit,
        soft_bounce=config.queue.soft_bounce,
        wrapped_ports=None if smtp.tls_wrappermode else frozenset(smtp.tls_wrappermode_ports),
        sasl_mechanism_filter=smtp.sasl_mechanism_filter,
        sasl_auth_soft_bounce=smtp.sasl_auth_soft_bounce,
        timeouts=Timeouts(
            connect=smtp.connect_timeout,
            helo=smtp.helo_timeout,
            starttls=smtp.starttls_timeout,
            mail=smtp.mail_timeout,
            rcpt=smtp.rcpt_timeout,
            data_init=smtp.data_init_timeout,
            data_xfer=smtp.data_xfer_timeout,
            data_done=smtp.data_done_timeout,
        ),
    )


def pool_limits(config: Config) -> pool.Limits:
    """``[smtp]`` for sessions between messages."""
    smtp = config.smtp
    return pool.Limits(
        idle=smtp.connection_cache_time_limit,
        age=smtp.connection_reuse_time_limit,
        messages=smtp.connection_reuse_count_limit,
    )


def _ourselves(config: Config) -> Ourselves:
    """Under which names and addresses this relay takes mail."""
    listen = [(ip_address(host), port) for host, port in (*config.smtpd.listen, *config.smtpd.submissions_listen)]
    return Ourselves(
        names=frozenset(Domain.parse(name) for name in (config.relay.myhostname, config.helo_name) if name[:1] != "["),
        port=config.smtp.port,
        endpoints=frozenset((address, port) for address, port in listen if not address.is_unspecified),
        everywhere=frozenset((address.version, port) for address, port in listen if address.is_unspecified),
        is_local=is_local,
    )


def is_local(address: IpAddress) -> bool:
    """Whether an address is one of this machine's: only to those can a socket be bound."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def smtpd_options(config: Config) -> SmtpdOptions:
    """``[smtpd]`` for the front end."""
    smtpd = config.smtpd
    offers_tls = smtpd.tls_security_level.uses_tls
    return SmtpdOptions(
        hostname=Domain.parse(config.relay.myhostname),
        soft_bounce=config.queue.soft_bounce,
        mynetworks=smtpd.mynetworks,
        message_size_limit=smtpd.message_size_limit,
        recipient_limit=smtpd.recipient_limit,
        hopcount_limit=smtpd.hopcount_limit,
        timeout=smtpd.timeout,
        proxy_networks=smtpd.proxy_protocol_networks,
        client_connection_count_limit=smtpd.client_connection_count_limit,
        client_connection_rate_limit=smtpd.client_connection_rate_limit,
        client_message_rate_limit=smtpd.client_message_rate_limit,
        client_recipient_rate_limit=smtpd.client_recipient_rate_limit,
        client_auth_rate_limit=smtpd.client_auth_rate_limit,
        client_event_limit_exceptions=smtpd.client_event_limit_exceptions or smtpd.mynetworks,
        connection_limit=smtpd.connection_limit,
        content_memory_limit=smtpd.content_memory_limit,
        forbid_bare_newline=BareLineEnds(smtpd.forbid_bare_newline),
        forbid_unauth_pipelining=smtpd.forbid_unauth_pipelining,
        soft_error_limit=smtpd.soft_error_limit,
        hard_error_limit=smtpd.hard_error_limit,
        error_sleep_time=smtpd.error_sleep_time,
        junk_command_limit=smtpd.junk_command_limit,
        tls_cert_file=smtpd.tls_cert_file if offers_tls else "",
        tls_key_file=smtpd.tls_key_file if offers_tls else "",
        tls_ask_ccert=smtpd.tls_ask_ccert,
        tls_required=smtpd.tls_security_level.requires_tls,
    )


def nameservers(config: Config) -> tuple[NameServer, ...]:
    """``dns.nameservers``, or those of the system; each with whether its AD bit counts."""
    endpoints = config.dns.nameservers or tuple((str(address), 53) for address in system_nameservers())
    trusted = config.dns.trusted_nameservers
    return tuple(
        NameServer(ip_address(host), port, trusted=is_trusted(ip_address(host), trusted)) for host, port in endpoints
    )


def report_options(config: Config) -> ReportOptions:
    """``[bounce]`` and ``queue.delay_warning_time`` for settling."""
    bounce = config.bounce
    return ReportOptions(
        size_limit=bounce.size_limit,
        delay_warning_time=config.queue.delay_warning_time,
        notices={NoticeClass(word): _address(bounce.reader(word)) for word in bounce.notify_classes},
    )


def _address(text: str) -> Address:
    return Address(text, Domain(text.rpartition("@")[2]))


def retry_schedule(config: Config) -> RetrySchedule:
    """``[queue]`` for settling."""
    queue = config.queue
    return RetrySchedule(
        minimal_backoff_time=queue.minimal_backoff_time,
        maximal_backoff_time=queue.maximal_backoff_time,
        maximal_queue_lifetime=queue.maximal_queue_lifetime,
        bounce_queue_lifetime=queue.bounce_queue_lifetime,
    )


def worker_options(config: Config) -> WorkerOptions:
    """``[smtp]`` and ``[queue]`` for the worker: how much each destination gets."""
    smtp, queue = config.smtp, config.queue
    return WorkerOptions(
        limits=Limits(
            initial=smtp.initial_destination_concurrency,
            limit=smtp.destination_concurrency_limit,
            positive=smtp.destination_concurrency_positive_feedback,
            negative=smtp.destination_concurrency_negative_feedback,
            failed_cohorts=smtp.destination_concurrency_failed_cohort_limit,
            rate_delay=smtp.destination_rate_delay,
            pause=queue.minimal_backoff_time,
            own_pause=queue.transport_retry_time,
        ),
        recipient_limit=smtp.destination_recipient_limit,
    )


def log_words(config: Config) -> Lines:
    """The language of the log, ``log.format``."""
    log = config.log
    host, pid = config.relay.myhostname.partition(".")[0], os.getpid()
    if log.format == "json":
        return JsonLines(hostname=host, pid=pid)
    return PostfixLines(
        hostname=host,
        pid=pid,
        syslog_name=log.syslog_name,
        tls_loglevel=log.tls_loglevel,
        tls_feature_status=config.smtp.log_tls_feature_status,
        tz=None,
    )
