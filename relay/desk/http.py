"""The desk's server: metrics, health, readiness and the queue, read-only, on loopback only (DESIGN section 5.5)."""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Protocol

from aiohttp import web

from relay.desk.host import is_loopback, names_loopback
from relay.log.metrics import CONTENT_TYPE, Metrics
from relay.mail.envelope import QueueId
from relay.queue.acts import QueueActs
from relay.queue.filter import Everything
from relay.queue.showq import entry_object
from relay.queue.store import EntryState, QueueStore, StoreUnavailable

STORE_PATIENCE = 5.0
COUNTS_KEPT = 5.0
MAX_CONNECTIONS = 100
DEFAULT_PAGE = 100
MAX_PAGE = 1000
_QUEUE_ID = re.compile(r"[0-9A-Za-z]{1,64}", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,6}", re.ASCII)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_INDEX = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>dane-relay {version}</title>
<h1>dane-relay {version}</h1>
<ul>
<li><a href="/metrics">/metrics</a>: numbers for Prometheus
<li><a href="/healthz">/healthz</a>: 200 while the process lives
<li><a href="/readyz">/readyz</a>: 200 while it can take and deliver mail, else 503 and why
</ul>
"""


class DeskFailed(Exception):  # noqa: N818 - it names what happened, not the handling
    """The desk cannot listen; the message names ``http.listen`` and says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the desk shows.

    :param unready: the reasons why the relay cannot take and deliver mail now (resolver not probed yet, a listener
        down); empty when it can. The desk asks the store itself.
    :param clock: aware UTC.
    """

    version: str
    store: QueueStore
    acts: QueueActs
    metrics: Metrics
    unready: Callable[[], Sequence[str]]
    clock: Callable[[], datetime]


class Desk(Protocol):
    """One method a page."""

    async def index(self, request: web.Request) -> web.Response:
        """Name the pages and the version."""
        ...

    async def health(self, request: web.Request) -> web.Response:
        """200 while the process lives."""
        ...

    async def readiness(self, request: web.Request) -> web.Response:
        """Whether mail can be taken and delivered."""
        ...

    async def metrics(self, request: web.Request) -> web.Response:
        """Everything counted."""
        ...

    async def queue(self, request: web.Request) -> web.Response:
        """A page of the queue in the order of queue IDs."""
        ...

    async def message(self, request: web.Request) -> web.Response:
        """One message."""
        ...


@asynccontextmanager
async def serve(listen: Sequence[tuple[str, int]], pages: Desk) -> AsyncIterator[tuple[tuple[str, int], ...]]:
    """Answer on every address and port of ``http.listen`` for the length of the context; gives those really bound.

    :raises DeskFailed: if one of them is not of this machine alone, or cannot be bound.
    """
    for host, port in listen:
        if not is_loopback(host):
            raise DeskFailed(
                f"http.listen {_text(host, port)}: this release shows the desk on loopback only (127.0.0.1 or ::1);"
                " put a proxy that asks for a password in front of it, or forward the port with ssh"
            )
    runner = web.AppRunner(_application(pages), access_log=None, handle_signals=False, keepalive_timeout=30.0)
    await runner.setup()
    servers: list[asyncio.Server] = []
    try:
        for host, port in listen:
            servers.append(await _listen(runner, host, port))
        names = [socket.getsockname() for server in servers for socket in server.sockets]
        yield tuple((name[0], name[1]) for name in names)
    finally:
        for server in servers:
            server.close()
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(_bounded(runner), host, port)
    except OSError as error:
        # asyncio makes its own long text of this one.
        why = "address already in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise DeskFailed(f"http.listen {_text(host, port)}: {why}") from error


def _text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bounded(runner: web.AppRunner) -> Callable[[], asyncio.BaseProtocol]:
    def connect() -> asyncio.BaseProtocol:
        handler = runner.server
        return handler() if handler is not None and len(handler.connections) < MAX_CONNECTIONS else _Full()

    return connect


class _Full(asyncio.Protocol):
    """Closes a connection beyond the limit at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _application(pages: Desk) -> web.Application:
    application = web.Application(middlewares=[_guard], client_max_size=1024)
    application.router.add_get("/", pages.index)
    application.router.add_get("/metrics", pages.metrics)
    application.router.add_get("/healthz", pages.health)
    application.router.add_get("/readyz", pages.readiness)
    application.router.add_get("/api/queue", pages.queue)
    application.router.add_get("/api/queue/{queue_id}", pages.message)
    return application


@web.middleware
async def _guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    # Without a Host header it is no browser (HTTP/1.0 probes of load balancers send none).
    if not names_loopback(request.headers.get("Host", "localhost")):
        response: web.StreamResponse = web.Response(
            status=HTTPStatus.MISDIRECTED_REQUEST, text="this desk answers to localhost, 127.0.0.1 and [::1] only\n"
        )
    else:
        try:
            response = await handler(request)
        except web.HTTPException as error:
            response = web.Response(status=error.status, text=f"{error.status} {error.reason}\n")
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
    response.headers.update(_HEADERS)
    return response


class Pages:
    """The pages of one process; a ``Desk``."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._counted_at: float | None = None

    async def index(self, request: web.Request) -> web.Response:
        """Name the pages and the version."""
        return index(self._facts.version)

    async def health(self, request: web.Request) -> web.Response:
        """The loop runs, or nobody would answer."""
        return web.Response(text="ok\n")

    async def readiness(self, request: web.Request) -> web.Response:
        """Whether mail can be taken and delivered, with the reasons if not."""
        return ready(await self.reasons())

    async def reasons(self) -> list[str]:
        """Why mail cannot be taken and delivered; empty where it can."""
        reasons = list(self._facts.unready())
        try:
            async with asyncio.timeout(STORE_PATIENCE):
                await self._facts.store.entries(limit=1)
        except StoreUnavailable as error:
            reasons.append(f"queue store: {error}")
        except TimeoutError:
            reasons.append(f"queue store: no answer within {STORE_PATIENCE:g} seconds")
        return reasons

    async def metrics(self, request: web.Request) -> web.Response:
        """Everything counted, with the queue as it is now (or was a few seconds ago)."""
        return exposition(await self.exposition())

    async def exposition(self) -> bytes:
        """All numbers, for Prometheus."""
        await self._count_queue()
        self._facts.metrics.tasks(len(asyncio.all_tasks()))
        return self._facts.metrics.render()

    async def _count_queue(self) -> None:
        loop_time = asyncio.get_running_loop().time()
        if self._counted_at is not None and loop_time - self._counted_at < COUNTS_KEPT:
            return  # counting a long queue is work for the store; a scrape a second must not slow mail down
        try:
            async with asyncio.timeout(STORE_PATIENCE):
                counts = await self._facts.store.counts()
        except (StoreUnavailable, TimeoutError):
            self._facts.metrics.queue_silent()
            return
        self._counted_at = loop_time
        oldest = counts.oldest_arrival
        self._facts.metrics.queue(
            messages=counts.messages,
            deliveries={state.value: counts.deliveries.get(state, 0) for state in EntryState},
            oldest_age=0.0 if oldest is None else max(0.0, (self._facts.clock() - oldest).total_seconds()),
        )

    async def queue(self, request: web.Request) -> web.Response:
        """A page of the queue in the order of queue IDs: ``?after=ID`` goes on, ``?limit=N`` up to 1000."""
        asked = page_of(request)
        if isinstance(asked, web.Response):
            return asked
        after, limit = asked
        try:
            async with asyncio.timeout(STORE_PATIENCE):
                page = await self._facts.store.entries(limit=limit, after=QueueId(after) if after else None)
        except StoreUnavailable as error:
            return refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"queue store: {error}")
        except TimeoutError:
            return refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"queue store: no answer within {STORE_PATIENCE:g} seconds")
        return listing([entry_object(entry) for entry in page], limit)

    async def message(self, request: web.Request) -> web.Response:
        """One message, with what became of its recipients so far."""
        queue_id = request.match_info["queue_id"]
        if not is_queue_id(queue_id):
            return refuse(HTTPStatus.BAD_REQUEST, "not a queue ID")
        try:
            async with asyncio.timeout(STORE_PATIENCE):
                found = await self._facts.acts.entries((QueueId(queue_id),), Everything())
        except StoreUnavailable as error:
            return refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"queue store: {error}")
        except TimeoutError:
            return refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"queue store: no answer within {STORE_PATIENCE:g} seconds")
        if not found:
            return refuse(HTTPStatus.NOT_FOUND, f"{queue_id}: no such message in the queue")
        return web.json_response(entry_object(found[0]))


def page_of(request: web.Request) -> tuple[str, int] | web.Response:
    """After which queue ID, and how many messages: ``?after=ID`` and ``?limit=N``; or the refusal."""
    after, limit = request.query.get("after", ""), request.query.get("limit", str(DEFAULT_PAGE))
    if after and not is_queue_id(after):
        return refuse(HTTPStatus.BAD_REQUEST, "after: not a queue ID")
    if not _DIGITS.fullmatch(limit) or not 1 <= int(limit) <= MAX_PAGE:
        return refuse(HTTPStatus.BAD_REQUEST, f"limit: not a number from 1 to {MAX_PAGE}")
    return after, int(limit)


def is_queue_id(text: str) -> bool:
    """Whether it could be one."""
    return _QUEUE_ID.fullmatch(text) is not None


def listing(messages: Sequence[Mapping[str, object]], limit: int) -> web.Response:
    """A page of the queue, and after which message the next one begins."""
    following = messages[-1]["queue_id"] if len(messages) == limit else ""
    return web.json_response({"messages": messages, "after": following})


def index(version: str) -> web.Response:
    """The list of pages."""
    return web.Response(text=_INDEX.format(version=version), content_type="text/html")


def ready(reasons: Sequence[str]) -> web.Response:
    """200, or 503 and why."""
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    return web.json_response({"ready": not reasons, "reasons": list(reasons)}, status=status)


def exposition(numbers: bytes) -> web.Response:
    """Numbers for Prometheus."""
    return web.Response(body=numbers, headers={"Content-Type": CONTENT_TYPE})


def refuse(status: HTTPStatus, why: str) -> web.Response:
    """An error as an object."""
    return web.json_response({"error": why}, status=status)
