"""Where mail goes: relayhost, transports, maps of routes, and what Postfix kept for itself."""

from __future__ import annotations

import re

from relay.config.kinds import toml_list
from relay.config.section import kind_of
from relay.config.smtp import SmtpSection
from relay.importing.draft import Draft, Sort
from relay.importing.source import Source, split

# Names that /etc/services gives to the ports that mail is sent to.
_PORTS = {"smtp": "25", "smtps": "465", "submissions": "465", "submission": "587"}
_SERVICE = re.compile(r"(?P<host>\[[^\[\]]+\]|[^\[\]:]+):(?P<service>[A-Za-z][\w-]*)", re.ASCII)
_CLIENTS = ("smtp", "relay")
# Mail for these domains ends in Postfix's own mailboxes or aliases.
_OWN_DOMAINS = ("mydestination", "virtual_alias_domains", "virtual_mailbox_domains", "relay_domains")
_MAPS = (
    ("smtp_tls_policy_maps", "tls_policy_maps"),
    ("transport_maps", "transport_maps"),
    ("sender_dependent_relayhost_maps", "sender_dependent_relayhost_maps"),
)


def next_hops(text: str) -> list[str]:
    """Next-hops as we write them: ports by number."""
    return [_next_hop(item) for item in split(text)]


def _next_hop(text: str) -> str:
    match = _SERVICE.fullmatch(text)
    port = _PORTS.get(match["service"].lower()) if match else None
    return f"{match['host']}:{port}" if match and port else text


def translate_routes(source: Source, draft: Draft) -> None:
    """All of it."""
    for name, key in _MAPS:
        translate_maps(source, draft, name, key)
    _default_route(source, draft)
    for name in ("smtp_fallback_relay", "fallback_relay"):
        hops = next_hops(source.take(name))
        if hops and ("smtp", "fallback_relay") not in draft.settings:
            where = "fallback_relay" if source.is_set("fallback_relay") and not source.is_set(name) else name
            draft.put("smtp", "fallback_relay", hops, source.place(where), where)
            draft.remark(
                Sort.DIFFERS,
                source.place(where),
                f"{where}: the TLS policy of a destination holds at the fallback relay too, unless a policy map has a "
                "line for the relay itself; Postfix goes by the relay's own policy alone",
            )
    _own_domains(source, draft)


def translate_maps(source: Source, draft: Draft, name: str, key: str) -> None:
    """An option of maps; one that has a map of a type that is not here is written so that the relay does not start."""
    specs = [spec.removeprefix("proxy:") for spec in source.items(name)]
    if not specs:
        return
    try:
        kind_of(SmtpSection.model_fields[key]).read(specs, draft.base)
    except ValueError as error:
        draft.put_as_it_stands("smtp", key, toml_list(tuple(specs)), source.place(name), name)
        text = f"{name}: the relay does not start with it, so that no mail goes past it: {error}"
        draft.remark(Sort.LOOK, source.place(name), text)
        return
    draft.put("smtp", key, specs, source.place(name), name)


def _default_route(source: Source, draft: Draft) -> None:
    """``default_transport`` with a next-hop overrides ``relayhost`` (postfix resolve.c)."""
    transport, _, hop = source.take("default_transport").partition(":")
    relayhost = next_hops(source.take("relayhost"))
    place = source.place("default_transport")
    if transport not in _CLIENTS:
        text = (
            f'default_transport: mail that no map routes went to "{transport}", which is not here; it would go out now'
        )
        draft.remark(Sort.LOOK, place, text)
    elif hop.strip():
        draft.put("smtp", "relayhost", next_hops(hop), place, "default_transport")
        if ("smtp", "sender_dependent_relayhost_maps") in draft.settings:
            del draft.settings["smtp", "sender_dependent_relayhost_maps"]
            where = source.place("sender_dependent_relayhost_maps")
            draft.remark(Sort.DIFFERS, where, "left out: default_transport names a next-hop, which overrides it")
        return
    if relayhost:
        draft.put("smtp", "relayhost", relayhost, source.place("relayhost"), "relayhost")


def _own_domains(source: Source, draft: Draft) -> None:
    for name in _OWN_DOMAINS:
        domains = source.take(name)
        if domains and (source.is_set(name) or name == "mydestination"):
            text = f"{name}: mail for {domains[:120]} did not go by relayhost and MX hosts; here it does, or by transport_maps"
            draft.remark(Sort.DIFFERS, source.place(name), text)
    if source.is_set("relay_transport") and source.value("relay_transport") not in _CLIENTS:
        text = "relay_transport: write its next-hop for each domain of relay_domains into transport_maps"
        draft.remark(Sort.LOOK, source.place("relay_transport"), text)
    source.take("relay_transport")
