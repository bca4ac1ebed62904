"""What each address of a destination showed, taken from a story in which every one was called. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

from relay.delivery.gather import LookupTrouble
from relay.explain.objects import verdict_words
from relay.explain.story import (
    AddressStory,
    Failed,
    Handshake,
    HopStory,
    HostStory,
    NoHandshake,
    NotReached,
    NotTried,
    Satisfied,
    SessionStory,
    Story,
    Tried,
)
from relay.outcome.wording import explain
from relay.policy.policy import TlsPolicy, Withheld
from relay.tls.peer import CertFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One address.

    :param where: ``NAME[ADDRESS]:PORT``, or as much of it as is known.
    :param met: whether its session satisfied the policy.
    :param text: what the verdict rests on, or what stands in the way: a reason as in the log.
    :param leaf: the first certificate; empty if none was seen.
    :param temporary: whether a look-up that failed stands in the way, which may pass by itself.
    :param word: Postfix's, empty without a handshake.
    """

    where: str
    met: bool
    text: str
    leaf: tuple[CertFacts, ...] = ()
    temporary: bool = False
    level: str = ""
    word: str = ""


def shown(story: Story) -> tuple[Shown, ...]:
    """Everything, in the order in which a delivery would try it."""
    return tuple(one for hop in story.hops for one in _of_hop(hop))


def _of_hop(hop: HopStory) -> Iterator[Shown]:
    match hop.found:
        case LookupTrouble(status=status, text=text):
            yield Shown(where=hop.next_hop.key, met=False, text=text, temporary=status.klass == 4)
        case NotReached(why):
            yield Shown(where=hop.next_hop.key, met=False, text=why)
        case _:
            for host in hop.hosts:
                yield from _of_host(host, hop.next_hop.port)


def _of_host(host: HostStory, port: int) -> Iterator[Shown]:
    match host.addresses:
        case LookupTrouble(status=status, text=text):
            yield Shown(where=f"{host.host}:{port}", met=False, text=text, temporary=status.klass == 4)
        case NotReached(why):
            yield Shown(where=f"{host.host}:{port}", met=False, text=why)
        case addresses:
            yield from (_of_address(each, f"{host.host}[{each.address.address}]:{port}") for each in addresses)


def _of_address(story: AddressStory, where: str) -> Shown:
    match story.made:
        case NotReached(why):
            return Shown(where=where, met=False, text=why)
        case Tried() as tried:
            return _tried(tried, where)
        case _:
            assert_never(story.made)


def _tried(tried: Tried, where: str) -> Shown:
    match tried.decision:
        case Withheld() as none:
            text = explain(none.text, expected=none.expected, found=none.found, rule=str(none.rule))
            return Shown(where=where, met=False, text=text, temporary=tried.lookup_failed, level=none.asked.word)
        case TlsPolicy() as policy:
            return _of_session(tried.session, where, policy.level.word)
        case _:
            assert_never(tried.decision)


def _of_session(session: SessionStory, where: str, level: str) -> Shown:
    match session:
        case NotTried(why):
            return Shown(where=where, met=False, text=why, level=level)
        case Satisfied(verdict=verdict, handshake=handshake):
            return Shown(
                where=where,
                met=True,
                text=verdict_words(verdict),
                leaf=_leaf(handshake),
                level=level,
                word=verdict.word.value,
            )
        case Failed(trouble=trouble, handshake=handshake):
            return Shown(
                where=where,
                met=False,
                text=trouble.reason,
                leaf=_leaf(handshake),
                level=level,
                word=handshake.word.value if isinstance(handshake, Handshake) else "",
            )
        case _:
            assert_never(session)


def _leaf(handshake: Handshake | NoHandshake) -> tuple[CertFacts, ...]:
    return handshake.peer.chain[:1] if isinstance(handshake, Handshake) else ()
