"""A Postfix configuration into ours: what has a counterpart is translated, all else is named with its line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from relay.importing.counterparts import (
    translate_defaults_of_destinations,
    translate_notify_classes,
    translate_one_by_one,
)
from relay.importing.draft import Draft, Sort
from relay.importing.files import MasterFile, read_main, read_master
from relay.importing.receiving import listeners, translate_protocols, translate_receiving
from relay.importing.routes import translate_maps, translate_routes
from relay.importing.services import client, translate_services
from relay.importing.source import Source, split
from relay.importing.tls import translate_tls

_AS_SHIPPED = "smtp inet n - y - - smtpd\nsmtp unix - - y - - smtp\n"


def translate(main: str, master: str, *, name: str, base: Path, hostname: str) -> Draft:
    """Translate a configuration.

    :param main: the text of main.cf.
    :param master: the text of master.cf, empty where there is none: then what Postfix ships is taken for it.
    :param name: main.cf as reasons are to call it.
    :param base: the directory of main.cf, absolute; relative paths of the result start there.
    :param hostname: the host's own name, for ``myhostname`` where nothing sets it.
    """
    draft = Draft(base)
    read = read_main(main, name)
    services = read_master(master or _AS_SHIPPED, f"{name.removesuffix('main.cf')}master.cf")
    for problem in read.problems:
        draft.remark(Sort.LOOK if "expected" in problem.text else Sort.DIFFERS, problem.place, problem.text)
    source = Source(read.parameters, _known(read.parameters, base, hostname), draft)
    listening = listeners(services.services)
    _overrides(source, services)
    source.take("smtpd_tls_wrappermode")
    if listening:
        source.override(listening[0].options)
    translate_receiving(source, draft, listening, name)
    translate_protocols(source, draft)
    translate_tls(source, draft)
    translate_routes(source, draft)
    _credentials(source, draft)
    translate_defaults_of_destinations(source, draft)
    translate_notify_classes(source, draft)
    translate_services(source, draft, services, listening)
    translate_one_by_one(source, draft)
    return draft


def _overrides(source: Source, services: MasterFile) -> None:
    sending = client(services.services)
    if sending is not None:
        source.override(sending.options)


def _known(parameters: Mapping[str, object], base: Path, hostname: str) -> Mapping[str, str]:
    known = {"config_directory": str(base), "myhostname": hostname}
    # mydomain is myhostname without its first label (postfix mail_params.c)
    written = getattr(parameters.get("myhostname"), "value", hostname)
    known["mydomain"] = str(written).partition(".")[2] or "localdomain"
    return known


def _credentials(source: Source, draft: Draft) -> None:
    """Passwords count only where ``smtp_sasl_auth_enable`` says so."""
    name = "smtp_sasl_password_maps"
    if not source.switch("smtp_sasl_auth_enable"):
        if source.take(name):
            draft.remark(Sort.IDLE, source.place(name), f"{name}: smtp_sasl_auth_enable is not yes, so nobody logs in")
        return
    translate_maps(source, draft, name, "sasl_password_maps")
    allowed = source.value("smtp_sasl_tls_security_options") or source.value("smtp_sasl_security_options")
    if "noplaintext" in split(allowed):
        names = ("smtp_sasl_tls_security_options", "smtp_sasl_security_options")
        where = next(filter(source.is_set, names), names[1])
        text = f"{where}: noplaintext keeps Postfix from PLAIN and LOGIN; here they are used, over a session that proved the host"
        draft.remark(Sort.DIFFERS, source.place(where), text)
