"""TLS: levels, trust, certificates; where Postfix's defaults are not ours, they are written out."""

from __future__ import annotations

from relay.importing.draft import Draft, Sort
from relay.importing.source import Source

_OLD_LEVEL = "3.11"  # from which compatibility level on the default is may


def translate_tls(source: Source, draft: Draft) -> None:
    """All of it."""
    _client_level(source, draft)
    _server_level(source, draft)
    for key in ("tls_mandatory_protocols", "tls_protocols"):
        name = f"smtp_{key}"
        if source.take(name):
            draft.put("smtp", key, source.value(name), source.place(name), name)
    digest = source.take("smtp_tls_fingerprint_digest")
    draft.put(
        "smtp",
        "tls_fingerprint_digest",
        digest,
        source.place("smtp_tls_fingerprint_digest"),
        "smtp_tls_fingerprint_digest",
    )
    _trust(source, draft)
    for section in ("smtp", "smtpd"):
        _certificate(source, draft, section)


def _client_level(source: Source, draft: Draft) -> None:
    name, level = "smtp_tls_security_level", source.take("smtp_tls_security_level").lower()
    enforce, use = source.switch("smtp_enforce_tls"), source.switch("smtp_use_tls")
    peername = source.switch("smtp_tls_enforce_peername")
    dnssec = source.take("smtp_dns_support_level").lower() == "dnssec"
    if not level:
        # postfix smtp.c: the parameters before 2.3 count where the level is empty
        level = "verify" if enforce and peername else "encrypt" if enforce else "may" if use else "none"
        name = "smtp_enforce_tls" if enforce else "smtp_use_tls" if use else name
        if level == "none" and _compatible(source, _OLD_LEVEL):
            level = "may"
    place = source.place(name)
    if level in ("dane", "dane-only") and not dnssec:
        text = f"{name} = {level} without smtp_dns_support_level = dnssec: "
        if level == "dane":
            draft.put("smtp", "tls_security_level", "may", place, f"{name}, which Postfix took for may")
            draft.remark(
                Sort.DIFFERS, place, f"{text}Postfix took it for may, and so does this file; write dane to have DANE"
            )
            return
        draft.remark(Sort.DIFFERS, place, f"{text}Postfix deferred all mail")
    draft.put("smtp", "tls_security_level", level, place, name)
    if level == "none":
        draft.remark(Sort.DIFFERS, place, f"{name}: no TLS at all, as in Postfix; without this line it is dane here")


def _compatible(source: Source, with_level: str) -> bool:
    return (
        source.expanded(f"${{{{$compatibility_level}} >=level {{{with_level}}} ? {{yes}}}}", "", "compatibility_level")
        == "yes"
    )


def _server_level(source: Source, draft: Draft) -> None:
    name, level = "smtpd_tls_security_level", source.take("smtpd_tls_security_level").lower()
    enforce, use = source.switch("smtpd_enforce_tls"), source.switch("smtpd_use_tls")
    if not level and (enforce or use):
        level, name = ("encrypt", "smtpd_enforce_tls") if enforce else ("may", "smtpd_use_tls")
    if level:
        draft.put("smtpd", "tls_security_level", level, source.place(name), name)


def _trust(source: Source, draft: Draft) -> None:
    named = [name for name in ("smtp_tls_CAfile", "smtp_tls_CApath") if source.take(name)]
    system = source.switch("tls_append_default_CA")
    for name in named:
        draft.put("smtp", name.removeprefix("smtp_"), source.value(name), source.place(name), name)
        if system:
            text = f"{name}: tls_append_default_CA = yes adds the system's store in Postfix; here {name} is all"
            draft.remark(Sort.DIFFERS, source.place(name), text)
    if not named and not system:
        text = (
            "smtp_tls_CAfile, smtp_tls_CApath: nobody set them, so Postfix trusts no authority at levels verify and secure; "
            "here it is the system's store unless tls_CAfile says otherwise"
        )
        draft.remark(Sort.DIFFERS, source.place("smtp_tls_CAfile"), text)


def _certificate(source: Source, draft: Draft, section: str) -> None:
    """One certificate with its key: those of ``chain_files`` before ECDSA before RSA."""
    chains = [one for one in source.items(f"{section}_tls_chain_files") if one != "none"]
    pairs = [
        (
            f"{section}_tls_{kind}cert_file",
            source.take(f"{section}_tls_{kind}cert_file"),
            source.take(f"{section}_tls_{kind}key_file"),
        )
        for kind in ("ec", "")
    ]
    if chains:
        pairs.insert(0, (f"{section}_tls_chain_files", chains[0], chains[0]))
    used = [pair for pair in pairs if pair[1] and pair[1] != "none"]
    for position, (name, cert, key) in enumerate(used):
        place = source.place(name)
        if position:
            draft.remark(Sort.DIFFERS, place, f"{name}: left out, there is one certificate here: that of {used[0][0]}")
            continue
        draft.put(section, "tls_cert_file", cert, place, name)
        draft.put(section, "tls_key_file", key, place, f"the key of {name}")
    if len(chains) > 1:
        text = f"{section}_tls_chain_files: only the first file is used: {chains[0]}; key and chain must be in it"
        draft.remark(Sort.LOOK, source.place(f"{section}_tls_chain_files"), text)
