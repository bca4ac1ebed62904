"""``validate``: a resolver that validates in this process, with libunbound (DESIGN section 6).

Secure here means that libunbound followed signatures from our own trust anchor to the records; whoever it asked on the way
need not be believed. Without an anchor nothing is secure.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from dataclasses import dataclass
from typing import Final

import dns.rcode

from relay.dns.anchor import Anchors
from relay.dns.answer import Answer, Bogus, Found, LookupFailed, LookupFault, NoData, NxDomain, RRType
from relay.dns.libunbound import MAX_DATA, Context, Result, UnboundError
from relay.dns.message import EDNS_PAYLOAD, MAX_TTL
from relay.mail.names import BadName, Domain, IpAddress

MAX_PARALLEL: Final = 100  # with three times as many libunbound is slower, and loses answers
_MAX_WHY: Final = 300
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]")

# Names that libunbound answers for itself, as insecure NXDOMAIN for three hours, unless told not to. What exists under
# them is for the DNS to say: home networks and test worlds use them, and an unproven absence must not bounce mail. Kept
# are ``localhost.`` and the loopback's reverse zones (RFC 6761 section 6.3).
LOCAL_ZONES: Final = ("test.", "invalid.", "onion.", "home.arpa.", "service.arpa.", "resolver.arpa.")

_OPTIONS: Final = {
    "module-config": "validator iterator",
    "use-syslog": "no",
    "verbosity": "0",
    "edns-buffer-size": str(EDNS_PAYLOAD),
    # Enough for MAX_PARALLEL questions with the DS and DNSKEY questions that they bring, within 1,024 open files.
    "outgoing-range": "400",
    "num-queries-per-thread": "1024",
    "outgoing-num-tcp": "20",
    "msg-cache-size": "4m",
    "rrset-cache-size": "8m",
    "key-cache-size": "4m",
    "neg-cache-size": "1m",
    "infra-cache-numhosts": "10000",
    "cache-max-ttl": "86400",
    "serve-expired": "no",
    # A name server that was away is asked again when it is back, not after a quarter of an hour.
    "infra-host-ttl": "60",
    "infra-keep-probing": "yes",
    "val-permissive-mode": "no",
    "val-log-level": "2",  # fills why_bogus
    "harden-glue": "yes",
    "harden-dnssec-stripped": "yes",
    "harden-below-nxdomain": "yes",
    "harden-short-bufsize": "yes",
    "harden-large-queries": "yes",
    "unwanted-reply-threshold": "10000000",
    "qname-minimisation": "yes",
    "unblock-lan-zones": "yes",  # the reverse zones of private addresses (RFC 6303)
}
# Not in every version of the library; without them it only takes longer to notice that a name server is back.
_MAY_BE_UNKNOWN: Final = frozenset({"infra-keep-probing"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Whom libunbound asks.

    :param forwarders: recursive name servers with their ports; if there are none, it goes from the root down itself.
    :param root_hints: a file with the addresses of the root servers, empty for those that the library knows.
    """

    forwarders: tuple[tuple[IpAddress, int], ...] = ()
    root_hints: str = ""

    def __str__(self) -> str:
        if not self.forwarders:
            return "libunbound with full recursion"
        servers = (f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}" for host, port in self.forwarders)
        return f"libunbound through {', '.join(servers)}"


def configure(context: Context, upstream: Upstream) -> None:
    """Make the settings that all contexts share, but for the trust anchor.

    :raises UnboundError: if the library refuses one.
    """
    for name, value in _OPTIONS.items():
        try:
            context.set_option(name, value)
        except UnboundError:
            if name not in _MAY_BE_UNKNOWN:
                raise
    # No zone of the Internet may send us to services on our own loopback, unless that is where we are told to ask.
    on_loopback = bool(upstream.root_hints) or any(host.is_loopback for host, _ in upstream.forwarders)
    context.set_option("do-not-query-localhost", "no" if on_loopback else "yes")
    if upstream.root_hints:
        context.set_option("root-hints", upstream.root_hints)
    for host, port in upstream.forwarders:
        context.forward_to(str(host), port)


def settle(context: Context) -> None:
    """End the settings: what they name is read now, and the library's own zones go.

    :raises UnboundError: if the settings cannot be used.
    """
    for zone in LOCAL_ZONES:
        context.remove_local_zone(zone)


class UnboundResolver:
    """A ``Resolver`` over libunbound; made by ``open``.

    :param anchors: without any keys in it, no answer is secure.
    :param timeout: seconds for a whole look-up.
    """

    def __init__(self, *, upstream: Upstream, anchors: Anchors, timeout: float) -> None:
        self._upstream = upstream
        self._anchors = anchors
        self._timeout = timeout
        self._context: Context | None = None
        self._tokens = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Result | UnboundError]] = {}
        self._parallel = asyncio.Semaphore(MAX_PARALLEL)
        self._asking = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @classmethod
    async def open(cls, upstream: Upstream, anchors: Anchors, *, timeout: float) -> UnboundResolver:
        """Make a resolver and attach it to the running loop; takes some milliseconds, without a chance to be cancelled.

        :raises NoLibunbound: if the library is not there.
        :raises UnboundError: if it refuses the settings or the anchors.
        """
        resolver = cls(upstream=upstream, anchors=anchors, timeout=timeout)
        context = resolver._made()
        asyncio.get_running_loop().add_reader(context.fileno(), resolver._readable)
        resolver._context = context
        return resolver

    def _made(self) -> Context:
        context = Context(self._deliver)
        try:
            configure(context, self._upstream)
            for anchor in self._anchors.records:
                context.add_trust_anchor(anchor)
            settle(context)
        except UnboundError:
            context.close()
            raise
        return context

    async def query(self, name: Domain, rrtype: RRType) -> Answer:
        """See ``Resolver.query``."""
        self._asking += 1
        self._idle.clear()
        try:
            async with self._parallel:
                return await self._query(name, rrtype)
        finally:
            self._asking -= 1
            if not self._asking:
                self._idle.set()

    async def _query(self, name: Domain, rrtype: RRType) -> Answer:
        context = self._context
        if context is None:
            return LookupFailed(LookupFault.SERVFAIL, f"{self._upstream}: closed")
        token = next(self._tokens)
        future = asyncio.get_running_loop().create_future()
        self._waiting[token] = future
        number = None
        try:
            number = context.resolve(f"{name.name}.", int(rrtype), token)
            async with asyncio.timeout(self._timeout):
                outcome = await future
        except TimeoutError:
            return LookupFailed(LookupFault.TIMEOUT, f"{self._upstream}: no answer in {self._timeout:g} s")
        except UnboundError as error:
            outcome = error
        finally:
            del self._waiting[token]
            if number is not None and not (future.done() and not future.cancelled()) and self._context is context:
                context.cancel(number)
        if isinstance(outcome, UnboundError):
            return LookupFailed(LookupFault.SERVFAIL, f"{self._upstream}: {outcome}")
        return self._answer(outcome, name)

    def _answer(self, result: Result, name: Domain) -> Answer:
        """What a result says; bogus first, because a bogus result claims success and has data."""
        if result.bogus:
            why = _line(result.why_bogus) or "DNSSEC validation failure"
            return Bogus(why if name.name else f"{why} (trust anchor: {self._anchors.source})")
        if result.rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return self._failure(result)
        if len(result.data) > MAX_DATA:
            return LookupFailed(LookupFault.LIMIT, f"more than {MAX_DATA} records")
        canonical = _canonical(result.canonname, name)
        secure = result.secure and bool(self._anchors.records)
        ttl = max(0, min(result.ttl, MAX_TTL))
        if result.nxdomain:
            return NxDomain(canonical=canonical, secure=secure, ttl=ttl)
        if not result.data:
            return NoData(canonical=canonical, secure=secure, ttl=ttl)
        return Found(canonical=canonical, rdata=result.data, secure=secure, ttl=ttl)

    def _failure(self, result: Result) -> LookupFailed:
        said = f" ({_line(result.why_bogus)})" if result.why_bogus else ""
        if result.rcode == dns.rcode.SERVFAIL:
            # The library's own word too for servers that are silent, lame or refuse.
            return LookupFailed(LookupFault.SERVFAIL, f"{self._upstream}: SERVFAIL{said}")
        if result.rcode == dns.rcode.REFUSED:
            return LookupFailed(LookupFault.REFUSED, f"{self._upstream}: REFUSED{said}")
        return LookupFailed(LookupFault.MALFORMED, f"{self._upstream}: rcode {result.rcode}{said}")

    def _readable(self) -> None:
        context = self._context
        if context is None:
            return
        try:
            context.process()
        except UnboundError as error:
            # The library's thread is gone: a descriptor at its end would be readable for ever.
            asyncio.get_running_loop().remove_reader(context.fileno())
            for token in tuple(self._waiting):
                self._deliver(token, error)

    def _deliver(self, token: int, outcome: Result | UnboundError) -> None:
        future = self._waiting.get(token)
        if future is not None and not future.done():
            future.set_result(outcome)

    async def close(self) -> None:
        """Let the look-ups under way end (each has its deadline), then free the library's side."""
        await self._idle.wait()
        context, self._context = self._context, None
        if context is not None:
            asyncio.get_running_loop().remove_reader(context.fileno())
            await asyncio.to_thread(context.close)


def _line(text: str) -> str:
    line = _UNPRINTABLE.sub("?", text)
    return line if len(line) <= _MAX_WHY else f"{line[: _MAX_WHY - 3]}..."


def _canonical(canonname: str, asked: Domain) -> Domain:
    """The owner of the records; what is no host name (the library writes odd octets as ``?``) is kept as it is written."""
    text = canonname.removesuffix(".").lower()
    if not canonname or text == asked.name:
        return asked
    try:
        return Domain.parse(text)
    except BadName:
        return Domain(text)
