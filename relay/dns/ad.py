"""``trust-ad``: a resolver that asks validating name servers and believes their AD bit (DESIGN section 6).

The AD bit counts only from a server that the administrator vouches for: a loopback address, or one of
``trusted_nameservers``. Well-known loopback stubs (container and systemd forwarders) pass bits on without validating, so
they count only when listed. What this mode cannot see is whether such a server really validates; ``relay.dns.probe`` looks.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from relay.dns.answer import Answer, Bogus, LookupFailed, LookupFault, RRType
from relay.dns.message import MalformedResponse, Response, answer_of, build_query, read_response
from relay.mail.names import Domain, IpAddress

# Docker's embedded resolver and systemd-resolved's stubs: forwarders on loopback.
STUBS: Final = frozenset(map(ip_address, ("127.0.0.11", "127.0.0.53", "127.0.0.54")))
MAX_PARALLEL: Final = 200
TRIES: Final = 2

_Reader = Callable[[bytes], Response]


@dataclass(frozen=True, slots=True)
class NameServer:
    """A recursive name server.

    :param trusted: whether its AD bit counts.
    """

    address: IpAddress
    port: int = 53
    trusted: bool = False

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


def is_trusted(address: IpAddress, trusted_nameservers: Sequence[IpAddress]) -> bool:
    """Whether the AD bit of a name server at this address is to be believed."""
    return address in trusted_nameservers or (address.is_loopback and address not in STUBS)


class AdResolver:
    """A ``Resolver`` over UDP, with TCP for truncated answers.

    :param servers: asked in order; the next one is asked when one fails.
    :param timeout: seconds for a whole look-up; shared out over servers and tries.
    """

    def __init__(self, servers: Sequence[NameServer], *, timeout: float) -> None:
        if not servers:
            raise ValueError("no name server: set dns.nameservers")
        self._servers = tuple(servers)
        self._timeout = timeout
        self._parallel = asyncio.Semaphore(MAX_PARALLEL)

    async def query(self, name: Domain, rrtype: RRType) -> Answer:
        """See ``Resolver.query``."""
        async with self._parallel:
            return await self._query(name, rrtype)

    async def close(self) -> None:
        """Nothing is held open between look-ups."""

    async def _query(self, name: Domain, rrtype: RRType) -> Answer:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        share = self._timeout / (TRIES * len(self._servers))
        failure: Answer = LookupFailed(LookupFault.TIMEOUT, f"no answer from {', '.join(map(str, self._servers))}")
        for server in self._servers * TRIES:
            remaining = deadline - loop.time()
            if remaining <= 0:
                break
            answer = await self._ask(server, name, rrtype, min(share, remaining))
            if not isinstance(answer, Bogus | LookupFailed):
                return answer
            if isinstance(answer, Bogus):
                return answer
            if _is_answer(answer) or not _is_answer(failure):
                failure = answer
        return failure

    async def _ask(self, server: NameServer, name: Domain, rrtype: RRType, timeout: float) -> Answer:
        """Ask one server once."""
        query_id = secrets.randbelow(1 << 16)
        query = build_query(name, rrtype, query_id)

        def read(wire: bytes) -> Response:
            return read_response(wire, name=name, rrtype=rrtype, query_id=query_id)

        try:
            async with asyncio.timeout(timeout):
                response = await _over_udp(server, query, read)
                if response.truncated:
                    response = read(await _over_tcp(server, query))
            return answer_of(response, name=name, rrtype=rrtype, trusted=server.trusted)
        except TimeoutError:
            return LookupFailed(LookupFault.TIMEOUT, f"no answer from {server} in {timeout:.1f} s")
        except MalformedResponse as error:
            return LookupFailed(LookupFault.MALFORMED, f"malformed answer from {server}: {error}")
        except (OSError, EOFError) as error:
            return LookupFailed(LookupFault.TIMEOUT, f"no answer from {server}: {error}")


def _is_answer(answer: Answer) -> bool:
    """Whether a failure is something a server said, as against nothing having come."""
    return not (isinstance(answer, LookupFailed) and answer.fault is LookupFault.TIMEOUT)


class _Exchange(asyncio.DatagramProtocol):
    """One query on one connected socket: a fresh source port each, and other hosts' packets never arrive."""

    def __init__(self, accept: asyncio.Future[Response], read: _Reader) -> None:
        self._accept = accept
        self._read = read

    def datagram_received(self, data: bytes, addr: object) -> None:
        if self._accept.done():
            return
        try:
            self._accept.set_result(self._read(data))
        except MalformedResponse:
            return  # perhaps forged: the true answer may still come, and the deadline ends the wait

    def error_received(self, exc: Exception) -> None:
        if not self._accept.done():
            self._accept.set_exception(exc)


async def _over_udp(server: NameServer, query: bytes, read: _Reader) -> Response:
    loop = asyncio.get_running_loop()
    accept: asyncio.Future[Response] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Exchange(accept, read), remote_addr=(str(server.address), server.port)
    )
    try:
        transport.sendto(query)
        return await accept
    finally:
        transport.close()


async def _over_tcp(server: NameServer, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(str(server.address), server.port)
    try:
        writer.write(len(query).to_bytes(2, "big") + query)
        length = int.from_bytes(await reader.readexactly(2), "big")
        return await reader.readexactly(length)
    finally:
        writer.close()
