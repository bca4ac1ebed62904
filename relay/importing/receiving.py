"""Taking mail: addresses and ports from master.cf and inet_interfaces, and who may relay."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address

from relay.importing.draft import Draft, Sort
from relay.importing.files import Service
from relay.importing.source import Source, split

_PORTS = {"smtp": 25, "smtps": 465, "submissions": 465, "submission": 587}
_LOOPBACK = ("127.0.0.1", "::1")
_ANYWHERE = ("0.0.0.0", "::")
_RESTRICTIONS = ("smtpd_relay_restrictions", "smtpd_recipient_restrictions")
_UNDERSTOOD = {
    "permit_mynetworks",
    "permit_sasl_authenticated",
    "permit_tls_clientcerts",
    "defer_unauth_destination",
    "reject_unauth_destination",
}


def listeners(services: Iterable[Service]) -> tuple[Service, ...]:
    """The services that take mail over SMTP."""
    return tuple(one for one in services if one.kind == "inet" and one.program in {"smtpd", "postscreen"})


def translate_receiving(source: Source, draft: Draft, services: Sequence[Service], place: str) -> None:
    """All of it.

    :param place: what is named where master.cf has no service that takes mail.
    """
    _listen(source, draft, services, place)
    _networks(source, draft)
    _users(source, draft, services)
    _clientcerts(source, draft)
    _proxies(source, draft)
    for name in _RESTRICTIONS:
        _restrictions(source, draft, name)


def _listen(source: Source, draft: Draft, services: Sequence[Service], place: str) -> None:
    versions = _versions(source)
    interfaces = list(_interfaces(source, draft, versions))
    found: dict[str, list[str]] = {"listen": [], "submissions_listen": []}
    for service in services:
        wrapped = any(option.name == "smtpd_tls_wrappermode" and option.value == "yes" for option in service.options)
        if service.program == "postscreen":
            draft.remark(Sort.NO_COUNTERPART, service.place, "postscreen: clients reach the relay without its tests")
        endpoints = list(_endpoints(service.name, interfaces))
        if not endpoints and interfaces:
            draft.remark(Sort.LOOK, service.place, f'"{service.name}": no address and port that can be listened at')
        found["submissions_listen" if wrapped else "listen"] += endpoints
    where = services[0].place if services else place
    draft.put("smtpd", "listen", list(dict.fromkeys(found["listen"])), where, "smtpd services, inet_interfaces")
    if found["submissions_listen"]:
        draft.put("smtpd", "submissions_listen", found["submissions_listen"], where, "smtpd_tls_wrappermode = yes")


def _versions(source: Source) -> tuple[int, ...]:
    protocols = [item.lower() for item in source.items("inet_protocols")]
    both = "all" in protocols or {"ipv4", "ipv6"} <= set(protocols)
    return (4, 6) if both else (6,) if protocols == ["ipv6"] else (4,)


def translate_protocols(source: Source, draft: Draft) -> None:
    """``inet_protocols``, which holds for both directions in Postfix and for sending here."""
    if source.is_set("inet_protocols"):
        word = {(4, 6): "all", (4,): "ipv4", (6,): "ipv6"}[_versions(source)]
        draft.put("smtp", "inet_protocols", word, source.place("inet_protocols"), "inet_protocols")


def _interfaces(source: Source, draft: Draft, versions: tuple[int, ...]) -> Iterator[str]:
    """The addresses that services without one listen at."""
    for item in source.items("inet_interfaces"):
        if item.lower() in {"all", "loopback-only"}:
            addresses = _ANYWHERE if item.lower() == "all" else _LOOPBACK
            yield from (one for one in addresses if ip_address(one).version in versions)
            continue
        bare = item.removeprefix("[").removesuffix("]")
        if item.lower() == "localhost":
            yield from (one for one in _LOOPBACK if ip_address(one).version in versions)
        elif _is_address(bare):
            yield bare
        else:
            text = f"inet_interfaces: write the addresses of {item} into smtpd.listen; names are not looked up"
            draft.remark(Sort.LOOK, source.place("inet_interfaces"), text)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _endpoints(name: str, interfaces: Iterable[str]) -> Iterator[str]:
    """Where a service listens: ``port``, ``host:port`` or ``[host]:port``."""
    match = re.fullmatch(r"(?:\[?(?P<host>[^\[\]]+?)\]?:)?(?P<port>[\w-]+)", name, re.ASCII)
    if match is None:
        return
    port = _PORTS.get(match["port"].lower(), int(match["port"]) if match["port"].isdigit() else 0)
    host = "127.0.0.1" if match["host"] == "localhost" else match["host"]
    for address in [host] if host else interfaces:
        if port and _is_address(address):
            yield f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _networks(source: Source, draft: Draft) -> None:
    name, place = "mynetworks", source.place("mynetworks")
    items = source.items(name)
    if not items:
        style = source.take("mynetworks_style").lower()
        text = (
            f"mynetworks: not set, so Postfix takes its own {'addresses' if style == 'host' else 'networks'} "
            f"(mynetworks_style = {style}); here it is loopback: write the networks into smtpd.mynetworks"
        )
        draft.remark(Sort.DIFFERS, place, text)
        return
    source.take("mynetworks_style")
    odd = [item for item in items if not re.match(r"\[?[0-9a-fA-F:.]+\]?(?:/\d+)?$", item)]
    if odd:
        # An exception that is left out would let in whom it shuts out.
        text = f"mynetworks: {' '.join(odd)[:120]}: cannot be written here: only loopback is let in until you say more"
        draft.remark(Sort.LOOK, place, text)
        return
    draft.put("smtpd", name, list(items), place, name)


def _users(source: Source, draft: Draft, services: Sequence[Service]) -> None:
    """Passwords are with Dovecot or Cyrus SASL, as hashes of which ours cannot be made: whoever imports adds the users."""
    name = "smtpd_sasl_auth_enable"
    places = [source.place(name)] if source.switch(name) else []
    places += [one.place for each in services for one in each.options if one.name == name and one.value == "yes"]
    if places:
        text = (
            f"{name}: clients log in as the users of smtpd.users_file, which needs TLS and does not ask Dovecot or Cyrus: "
            'set users_file = "users", and then `dane-relay user add NAME -c relay.toml` once for each user'
        )
        draft.remark(Sort.LOOK, places[0], text)


def _clientcerts(source: Source, draft: Draft) -> None:
    """Nobody is let in whom Postfix would not have let in: the map counts with its restriction and its question only."""
    name = "relay_clientcerts"
    if not source.is_set(name):
        return
    place, maps = source.place(name), list(split(source.take(name)))
    digest = source.take("smtpd_tls_fingerprint_digest").lower()
    permitted = any("permit_tls_clientcerts" in split(source.value(each).lower()) for each in _RESTRICTIONS)
    if not permitted or source.value("smtpd_tls_ask_ccert").lower() != "yes":
        draft.remark(Sort.IDLE, place, f"{name}, without permit_tls_clientcerts and smtpd_tls_ask_ccert")
    elif digest != "sha256":
        text = (
            f"{name}: has {digest} fingerprints; write SHA-256 ones into a map, and that into smtpd.relay_clientcerts"
        )
        draft.remark(Sort.LOOK, place, text)
    else:
        draft.put("smtpd", name, maps, place, f"{name}, permit_tls_clientcerts")


def _proxies(source: Source, draft: Draft) -> None:
    name = "smtpd_upstream_proxy_protocol"
    if source.take(name):
        text = f"{name}: write the addresses of your proxies into smtpd.proxy_protocol_networks; here they count, not the port"
        draft.remark(Sort.LOOK, source.place(name), text)


def _restrictions(source: Source, draft: Draft, name: str) -> None:
    if not source.is_set(name):
        return
    items = [item.lower() for item in split(source.take(name))]
    if "reject_unauth_destination" in items:
        text = f"{name}: reject_unauth_destination answers 554; here strangers get 454 4.7.1 Relay access denied"
        draft.remark(Sort.DIFFERS, source.place(name), text)
    strange = [item for item in items if item not in _UNDERSTOOD]
    if strange:
        draft.remark(Sort.NO_COUNTERPART, source.place(name), f"{name}: {', '.join(strange)[:200]}")
