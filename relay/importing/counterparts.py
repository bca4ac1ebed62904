"""Parameters one by one: which option has their meaning, and which need none. Pure but for what options take."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from relay.config.bounce import CLASSES
from relay.config.config import SECTIONS
from relay.importing.defaults import DEFAULTS
from relay.importing.draft import Draft, Sort
from relay.importing.files import Parameter
from relay.importing.source import Source, split

_BY_NAME: Mapping[str, tuple[str, str]] = {
    "myhostname": ("relay", "myhostname"),
    "message_size_limit": ("smtpd", "message_size_limit"),
    "hopcount_limit": ("smtpd", "hopcount_limit"),
    "header_size_limit": ("smtpd", "header_size_limit"),
    "local_header_rewrite_clients": ("smtpd", "local_header_rewrite_clients"),
    "always_add_missing_headers": ("smtpd", "always_add_missing_headers"),
    "message_drop_headers": ("smtpd", "message_drop_headers"),
    "initial_destination_concurrency": ("smtp", "initial_destination_concurrency"),
    "queue_minfree": ("queue", "minfree"),
    "syslog_name": ("log", "syslog_name"),
    "maillog_file": ("log", "file"),
    "smtp_tls_loglevel": ("log", "tls_loglevel"),
    "smtp_tcp_port": ("smtp", "port"),
    "2bounce_notice_recipient": ("bounce", "double_bounce_notice_recipient"),
    "error_notice_recipient": ("bounce", "error_notice_recipient"),
}
# Sections whose keys are parameters with a prefix, and which one.
_PREFIXES = (("smtp", "smtp_"), ("smtpd", "smtpd_"), ("bounce", "bounce_"), ("queue", ""), ("bounce", ""))
_UNITS: Mapping[str, str] = {
    "maximal_queue_lifetime": "d",
    "bounce_queue_lifetime": "d",
    "delay_warning_time": "h",
}
_PORTS: Mapping[str, str] = {"smtp": "25", "submission": "587", "smtps": "465", "submissions": "465"}
# What is always so here, and so needs no option where it was set to this.
_ALWAYS: Mapping[str, str] = {
    "smtp_dns_support_level": "dnssec",
    "smtp_host_lookup": "dns",
    "disable_dns_lookups": "no",
    "ignore_mx_lookup_error": "no",
    "smtp_always_send_ehlo": "yes",
    "smtp_never_send_ehlo": "no",
    "smtp_skip_5xx_greeting": "yes",
    "smtp_skip_quit_response": "yes",
    "smtp_defer_if_no_mx_address_found": "no",
    "smtp_balance_inet_protocols": "yes",
    "smtp_tls_enforce_peername": "yes",
    "smtp_tls_per_site": "",
    "tls_append_default_CA": "no",
    "smtp_sasl_auth_enable": "no",
    "smtpd_sasl_auth_enable": "no",
    "smtp_sasl_security_options": "noanonymous",
    "smtp_sasl_tls_security_options": "noanonymous",
    "smtp_sasl_type": "cyrus",
    "smtpd_client_restrictions": "",
    "smtpd_helo_required": "no",
    "disable_vrfy_command": "yes",
    "smtputf8_enable": "yes",
    "smtpd_delay_reject": "yes",
    "compatibility_level": "3.6",
    "parent_domain_matches_subdomains": "",
    "allow_min_user": "no",
}
# Of parts of Postfix that are not here: mailboxes, aliases, its processes, where it is installed.
_IDLE = re.compile(
    r"(?:alias_|local_|mailbox_|mail_spool|home_mailbox|lmtp_|virtual_(?:mailbox|uid|gid|transport|minimum|limit)|"
    r"pipe_|qmqpd_|forward_path|luser_relay|biff$|recipient_delimiter|owner_request|prepend_delivered|"
    r"(?:command|daemon|data|queue|shlib|meta|config|html|manpage|sample|readme)_directory$|"
    r"(?:sendmail|newaliases|mailq)_path$|setgid_group|mail_owner|default_privs|multi_instance|"
    r"compatibility_level|default_process_limit|.*_process_limit$|import_environment|export_environment|debug|"
    r"mydomain$|myorigin$|append_(?:dot_mydomain|at_myorigin)|swap_bangpath|allow_percent_hack|"
    r"smtpd?_tls_session_cache_|tls_random_|smtpd_banner|fast_flush|in_flow_delay|qmgr_|trigger_timeout|"
    r"postscreen_|milter_|non_smtpd_milters|.*_delivery_slot_|max_(?:idle|use)$|proxy_read_maps|anvil_|"
    r"unknown_local_recipient_reject_code|smtpd_tls_loglevel|maillog_file_|ipc_|hash_queue_|stress$)"
)


# Without these mail takes another way, or leaves under another policy.
_MATTERS = frozenset({"smtp_tls_per_site", "sender_dependent_default_transport_maps", "content_filter"})


def translate_one_by_one(source: Source, draft: Draft) -> None:
    """Every parameter that was set and that nobody dealt with before."""
    own = source.used_names()
    for parameter in list(source.left()):
        name = parameter.name
        value = source.take(name)
        if (name in _ALWAYS and value.lower() == _ALWAYS[name]) or not (
            value or DEFAULTS.get(name) or counterpart(name)
        ):
            continue  # as it is here anyway, or empty as by default
        home = counterpart(name)
        if home is not None:
            if name.endswith("_notice_recipient") and value and "@" not in value:
                value += f"@{source.value('myorigin')}"  # as postfix trivial-rewrite completes it
            if home not in draft.settings:
                draft.put(*home, _raw(name, value, home), parameter.place, name)
            continue
        if name in _MATTERS:
            what = "there is nothing like it here, and with it mail took another way or left under another policy"
            text = f"{name} = {_shown(parameter, value)}: {what}"
            draft.remark(Sort.LOOK, parameter.place, text)
        elif _IDLE.match(name):
            draft.remark(Sort.IDLE, parameter.place, name)
        elif name not in own:
            draft.remark(Sort.NO_COUNTERPART, parameter.place, f"{name} = {_shown(parameter, value)}")


def translate_defaults_of_destinations(source: Source, draft: Draft) -> None:
    """``default_destination_...`` where there is no ``smtp_destination_...`` that says more."""
    for key in SECTIONS["smtp"].model_fields:
        name = f"default_{key}"
        if key.startswith("destination_") and source.is_set(name):
            value = source.take(name)
            if not source.is_set(f"smtp_{key}"):
                draft.put("smtp", key, _raw(name, value, ("smtp", key)), source.place(name), name)


def translate_notify_classes(source: Source, draft: Draft) -> None:
    """The classes that there are here; the postmaster hears of the others in the log."""
    name = "notify_classes"
    if not source.is_set(name):
        return
    classes = list(source.items(name))
    ours = [one for one in classes if one in CLASSES]
    draft.put("bounce", name, ours, source.place(name), name)
    if ours:
        # a bare name gets $myorigin (postfix trivial-rewrite)
        domain = source.value("myorigin")
        draft.put("bounce", "postmaster", f"postmaster@{domain}", source.place("myorigin"), "postmaster at myorigin")
    if len(ours) < len(classes):
        others = ", ".join(one for one in classes if one not in ours)
        draft.remark(Sort.NO_COUNTERPART, source.place(name), f"{name}: {others}")


def counterpart(name: str) -> tuple[str, str] | None:
    """The option with the meaning of a parameter, None if there is none."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    for section, prefix in _PREFIXES:
        key = name.removeprefix(prefix)
        if name.startswith(prefix) and key in SECTIONS[section].model_fields:
            return section, key
    return None


def _raw(name: str, value: str, home: tuple[str, str]) -> object:
    """A value as TOML would give it."""
    if home == ("smtp", "port"):
        value = _PORTS.get(value.lower(), value)
    if value.isascii() and value.isdigit() and len(value) < 19:
        return f"{value}{_UNITS[name]}" if name in _UNITS else int(value)
    default = SECTIONS[home[0]].model_fields[home[1]].default
    return list(split(value)) if isinstance(default, tuple) and home[1].endswith("maps") else value


def _shown(parameter: Parameter, value: str) -> str:
    """The value, cut; nothing of what may be a secret."""
    if re.search(r"passw|secret|token", parameter.name):
        return "..."
    return value[:100] or "(empty)"


def names_of_counterparts() -> Iterator[str]:
    """Every parameter that has an option, for the documentation."""
    yield from _BY_NAME
    for section, prefix in _PREFIXES:
        yield from (f"{prefix}{key}" for key in SECTIONS[section].model_fields)
