"""The services of master.cf that are not listeners: clients with settings of their own, and what else was changed there."""

from __future__ import annotations

from collections.abc import Sequence

from relay.importing.draft import Draft, Sort
from relay.importing.files import MasterFile, Service
from relay.importing.source import Source

# As Postfix ships them: they change nothing that could be missed here.
_SHIPPED = {"syslog_name", "smtp_fallback_relay", "smtp_helo_timeout", "smtp_connect_timeout"}
_CLIENTS = {"smtp", "lmtp"}
_OURS = {"smtp", "relay", "error", "retry", "discard"}


def client(services: Sequence[Service]) -> Service | None:
    """The service that transport ``smtp`` is, whose settings hold for all mail here."""
    return next((one for one in services if one.kind in {"unix", "pass"} and one.name == "smtp"), None)


def translate_services(source: Source, draft: Draft, master: MasterFile, listening: Sequence[Service]) -> None:
    """Name every setting of a service that holds for more, or for less, here."""
    for problem in master.problems:
        draft.remark(Sort.LOOK, problem.place, problem.text)
    sending = client(master.services)
    for service in master.services:
        if service is sending or (listening and service is listening[0]):
            continue
        if service in listening:
            _of_listener(source, draft, service)
        elif service.program in _CLIENTS and service.kind == "unix":
            _of_client(draft, service)
        else:
            for option in service.options:
                draft.remark(Sort.NO_COUNTERPART, option.place, f"{service.name} {service.program}: -o {option.name}")


def _of_listener(source: Source, draft: Draft, service: Service) -> None:
    for option in service.options:
        if option.name in {"syslog_name", "smtpd_tls_wrappermode"}:
            continue
        value = source.expanded(option.value, option.place, option.name)
        if value != source.value(option.name):
            text = f"{service.name} smtpd: -o {option.name} = {value[:80]}: here all listeners have the same options"
            draft.remark(Sort.NO_COUNTERPART, option.place, text)


def _of_client(draft: Draft, service: Service) -> None:
    if service.name not in _OURS and service.name != "lmtp":
        text = (
            f"transport {service.name}: transports of one's own are not here: mail that a map routes to {service.name}: "
            "waits with 4.3.5; write smtp: and a line in tls_policy_maps for its next-hop"
        )
        draft.remark(Sort.LOOK if service.options else Sort.DIFFERS, service.place, text)
    for option in service.options:
        if service.name == "relay" and option.name in _SHIPPED:
            continue
        text = f"{service.name} {service.program}: -o {option.name} = {option.value[:80]}"
        draft.remark(Sort.NO_COUNTERPART, option.place, text)
