"""``audit``: what a stricter policy would have said of a session that was had under another one. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from relay.outcome.wording import explain, one_line
from relay.policy.audit import Finding
from relay.policy.level import Level
from relay.policy.parameters import InvalidTlsParameter, enabled_versions
from relay.policy.policy import Decision, TlsPolicy, Withheld
from relay.tls.judge import judge, judge_plaintext
from relay.tls.peer import CheckChain, InClear, PeerFacts
from relay.tls.verdict import Encrypted, Plaintext, Refused, Trusted, Verdict, Verified

_VERSIONS = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


@dataclass(frozen=True, slots=True)
class Audited:
    """What would have come of it.

    :param level: what the audited level came to for this host.
    :param text: what it rests on, or the reason of the refusal: one line, in the words that the log would use.
    """

    finding: Finding
    level: Level
    text: str


def audit(
    decision: Decision,
    seen: PeerFacts | InClear,
    host: str,
    check_chain: CheckChain,
    now: datetime,
    *,
    answered: bool = True,
) -> Audited:
    """Judge what a session showed by a policy that it was not opened for.

    :param decision: of the audited level.
    :param host: for the text, ``NAME[ADDRESS]``.
    :param answered: whether the look-ups that the decision was made of have all been answered.
    """
    match decision:
        case Withheld():
            finding = Finding.REFUSED if answered else Finding.UNKNOWN
            return Audited(finding, decision.asked, _reason(decision.text, decision, str(decision.rule)))
        case TlsPolicy():
            return _judged(decision, seen, host, check_chain, now)
        case _:
            assert_never(decision)


def _judged(policy: TlsPolicy, seen: PeerFacts | InClear, host: str, check_chain: CheckChain, now: datetime) -> Audited:
    match seen:
        case InClear(why=why, reply=reply):
            verdict: Verdict = judge_plaintext(policy, host, reply)
            if isinstance(verdict, Plaintext):
                verdict = Plaintext(why)
        case PeerFacts():
            too_old = _too_old(policy, seen)
            if too_old:
                return Audited(Finding.REFUSED, policy.level, too_old)
            verdict = judge(policy, seen, check_chain, now)
        case _:
            assert_never(seen)
    match verdict:
        case Refused():
            return Audited(
                Finding.REFUSED, policy.level, _reason(verdict.text, verdict, verdict.rule) + _other_name(policy, seen)
            )
        case Verified(matched=matched) | Trusted(matched=matched):
            proved = policy.level.requires_match or policy.asked is Level.ENCRYPT
            return Audited(Finding.VERIFIED if proved else Finding.UNPROVED, policy.level, one_line(matched))
        case Encrypted():
            finding = Finding.VERIFIED if policy.asked is Level.ENCRYPT else Finding.UNPROVED
            return Audited(finding, policy.level, _why(policy, "encrypted"))
        case Plaintext(why):
            return Audited(Finding.UNPROVED, policy.level, _why(policy, f"in the clear: {why}"))
        case _:
            assert_never(verdict)


def _reason(text: str, why: Withheld | Refused, rule: str) -> str:
    return explain(text, expected=why.expected, found=why.found, rule=rule)


def _why(policy: TlsPolicy, session: str) -> str:
    return one_line(f"{'; '.join(policy.why[1:])}; {session}" if policy.why[1:] else session)


def _too_old(policy: TlsPolicy, seen: PeerFacts) -> str:
    """A protocol that the stricter policy would not have negotiated, though perhaps a newer one."""
    try:
        allowed = {int(version) for version in enabled_versions(policy.protocols)}
    except InvalidTlsParameter:
        return ""
    if _VERSIONS.get(seen.protocol, 0) in allowed:
        return ""
    return explain(
        "Cannot start TLS: handshake failure",
        expected=f"a TLS session ({policy.protocols})",
        found=f"{seen.protocol or 'an unknown protocol'}, the best that both sides have",
        rule=str(policy.rule),
    )


def _other_name(policy: TlsPolicy, seen: PeerFacts | InClear) -> str:
    """Hosts of many names show the certificate of the name that was asked for; this session may have asked for another."""
    if isinstance(seen, InClear) or policy.sni == seen.sni:
        return ""
    asked = f"server name {seen.sni}" if seen.sni else "no server name"
    return f" (the session sent {asked}, the audited level would send {policy.sni or 'none'})"
