"""``[dns]`` becomes a resolver: its candidates, the trust anchor, the probe, and what is told of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from relay.app.options import nameservers
from relay.config.config import Config
from relay.dns import follow, libunbound
from relay.dns.ad import AdResolver
from relay.dns.anchor import AnchorError, Anchors, managed_anchor, read_anchors
from relay.dns.cache import CachingResolver
from relay.dns.choose import Candidate, CandidateUnavailable, Choice, Kind
from relay.dns.libunbound import NoLibunbound, UnboundError
from relay.dns.probe import Validation, ValidationProbe
from relay.dns.unbound import UnboundResolver, Upstream
from relay.log.events import Noted, Observer, Program, ResolverProbed, Warned
from relay.mail.names import Domain

_UNTIL_CHOSEN = 1.0


class CannotResolve(Exception):  # noqa: N818 - it names the state, not the handling
    """``[dns]`` cannot be put to work on this machine; the message says what stands in the way and what to do."""


@dataclass(frozen=True, slots=True)
class Resolving:
    """What the relay asks.

    :param resolver: answers, from memory where it can.
    :param probe: whether the answers can be believed.
    """

    resolver: CachingResolver
    probe: ValidationProbe


@asynccontextmanager
async def open_resolving(config: Config, observe: Observer, *, root_hints: str = "") -> AsyncIterator[Resolving]:
    """The resolver of a configuration, for the length of the context.

    :param root_hints: a file with the addresses of the root servers; empty for the Internet's.
    :raises CannotResolve: if it cannot work as configured.
    """
    try:
        managed = _anchor_file(config)
        candidates = _candidates(config, managed, root_hints)
    except (AnchorError, NoLibunbound) as error:
        raise CannotResolve(str(error)) from None
    bogus_name = Domain.parse(config.dns.probe_bogus_name) if config.dns.probe_bogus_name else None
    choice = Choice([one for one, _ in candidates], bogus_name=bogus_name, monotonic=time.monotonic)
    resolver = CachingResolver(choice, monotonic=time.monotonic)

    def changed(opinion: Validation) -> None:
        resolver.clear()  # what was said under the other opinion is not to be relied on
        observe(
            ResolverProbed(
                validating=opinion.validating,
                why=opinion.why,
                changed=opinion.serial > 1,
                resolver=opinion.resolver,
                kind=opinion.kind,
            )
        )

    following = None
    if managed is not None and not config.dns.trust_anchor_file:
        upstreams = {one: upstream for one, upstream in candidates if upstream is not None}
        following = asyncio.create_task(
            _keep_following(managed, choice, upstreams, config.dns.timeout, observe), name="follow the trust anchor"
        )
    try:
        yield Resolving(resolver, ValidationProbe(choice.look, monotonic=time.monotonic, changed=changed))
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await choice.close()


def _anchor_file(config: Config) -> Path | None:
    """The file that the trust anchor is read from; None where nothing in this process validates."""
    if config.dns.mode == "trust-ad":
        return None
    try:
        libunbound.load()
    except NoLibunbound as error:
        if config.dns.mode == "validate":
            raise NoLibunbound(f'dns.mode = "validate": {error}') from None
        return None
    if config.dns.trust_anchor_file:
        path = Path(config.dns.trust_anchor_file)
        read_anchors(path)
        return path
    return managed_anchor(config.relay.state_dir)


def _candidates(config: Config, anchor: Path | None, root_hints: str) -> list[tuple[Candidate, Upstream | None]]:
    """The resolvers that the mode allows, best first, each with whom libunbound asks if it is one of its."""
    servers = nameservers(config)
    mode = config.dns.mode
    forwarding = Upstream(forwarders=tuple((server.address, server.port) for server in servers))
    recursion = Upstream(root_hints=root_hints)
    found: list[tuple[Candidate, Upstream | None]] = []
    if mode != "trust-ad" and servers:
        found.append((_validating(config, Kind.FORWARDING, forwarding, anchor), forwarding))
    if mode == "auto" or (mode == "validate" and not servers):
        found.append((_validating(config, Kind.RECURSION, recursion, anchor), recursion))
    if mode != "validate" and servers:
        name = f"trust-ad through {', '.join(map(str, servers))}"

        async def believe() -> AdResolver:
            return AdResolver(servers, timeout=config.dns.timeout)

        found.append((Candidate(name=name, kind=Kind.TRUST_AD, open=believe), None))
    if not found:
        raise CannotResolve("no name server: set dns.nameservers, or name one in /etc/resolv.conf")
    return found


def _validating(config: Config, kind: Kind, upstream: Upstream, anchor: Path | None) -> Candidate:
    async def open_it() -> UnboundResolver:
        try:
            libunbound.load()
            anchors = read_anchors(anchor) if anchor is not None else Anchors((), "none")
            return await UnboundResolver.open(upstream, anchors, timeout=config.dns.timeout)
        except (AnchorError, NoLibunbound, UnboundError) as error:
            raise CandidateUnavailable(str(error)) from None

    return Candidate(name=str(upstream), kind=kind, open=open_it)


async def _keep_following(
    path: Path, choice: Choice, upstreams: dict[Candidate, Upstream], timeout: float, observe: Observer
) -> None:
    """Keep the managed trust anchor up to date through whichever candidate validates (RFC 5011)."""
    while True:
        upstream = upstreams.get(choice.chosen) if choice.chosen is not None else None
        if upstream is None:
            await asyncio.sleep(_UNTIL_CHOSEN)
            continue
        try:
            if await follow.follow(path, upstream, timeout=timeout):
                observe(Noted(Program.MASTER, f"trust anchor {path}: the trusted keys have changed"))
                await choice.renew()
            await asyncio.sleep(follow.FOLLOW_SECONDS)
        except follow.FollowFailed as error:
            observe(Warned(Program.MASTER, f"trust anchor {path} could not be brought up to date: {error}"))
            await asyncio.sleep(follow.RETRY_SECONDS)
