from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import aiohttp
import pytest

from relay.desk import http
from relay.desk.http import DeskFailed, Facts, Pages, serve
from relay.log.metrics import Metrics
from relay.queue.showq import entry_object
from tests.unit.control.stores import NOW, FixedQueue, entry


@dataclass
class Desk:
    """A desk under test, with what it shows."""

    store: FixedQueue
    url: str = ""
    metrics: Metrics = field(default_factory=lambda: Metrics("1.2.3"))
    reasons: list[str] = field(default_factory=list)

    def facts(self) -> Facts:
        return Facts(
            version="1.2.3",
            store=self.store,
            acts=self.store.acts,
            metrics=self.metrics,
            unready=lambda: self.reasons,
            clock=lambda: NOW + timedelta(seconds=60),
        )

    async def get(self, path: str, *, method: str = "GET", host: str = "") -> tuple[int, str]:
        async with aiohttp.ClientSession() as session:
            headers = {"Host": host} if host else {}
            async with session.request(method, self.url + path, headers=headers) as response:
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                return response.status, await response.text()


@asynccontextmanager
async def desk(*queued: str, address: str = "127.0.0.1") -> AsyncIterator[Desk]:
    shown = Desk(FixedQueue(*(entry(queue_id) for queue_id in queued)))
    async with serve([(address, 0)], Pages(shown.facts())) as ((host, port),):
        shown.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        yield shown


async def test_the_index_names_the_pages_and_the_version() -> None:
    async with desk() as shown:
        status, text = await shown.get("/")
    assert status == 200
    for word in ("1.2.3", "/metrics", "/healthz", "/readyz"):
        assert word in text


async def test_health() -> None:
    async with desk() as shown:
        shown.store.broken = "disk I/O error"
        shown.reasons.append("listener down")
        assert await shown.get("/healthz") == (200, "ok\n")


async def test_ready() -> None:
    async with desk() as shown:
        status, text = await shown.get("/readyz")
    assert (status, json.loads(text)) == (200, {"ready": True, "reasons": []})


async def test_not_ready_says_every_reason() -> None:
    async with desk() as shown:
        shown.store.broken = "disk I/O error"
        shown.reasons.append("resolver not probed yet")
        status, text = await shown.get("/readyz")
    reasons = ["resolver not probed yet", "queue store: disk I/O error"]
    assert (status, json.loads(text)) == (503, {"ready": False, "reasons": reasons})


async def test_a_store_that_never_answers_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "STORE_PATIENCE", 0.01)
    async with desk("A") as shown:
        shown.store.may_answer.clear()
        status, text = await shown.get("/readyz")
        assert status == 503
        assert "no answer within" in text
        assert (await shown.get("/api/queue"))[0] == 503
        status, text = await shown.get("/metrics")
        assert status == 200
        assert "dane_relay_queue_up 0.0" in text


async def test_metrics_show_the_queue_as_it_is_now() -> None:
    async with desk("A", "B") as shown:
        status, text = await shown.get("/metrics")
    assert status == 200
    assert "dane_relay_queue_up 1.0" in text
    assert "dane_relay_queue_messages 2.0" in text
    assert 'dane_relay_queue_deliveries{state="deferred"} 2.0' in text
    assert 'dane_relay_queue_deliveries{state="active"} 0.0' in text
    assert "dane_relay_queue_oldest_seconds 60.0" in text
    found = re.search(r"^dane_relay_tasks (\S+)$", text, re.MULTILINE)
    assert found is not None
    assert float(found[1]) >= 2  # this test and the request that it made


async def test_many_scrapes_count_the_queue_once() -> None:
    async with desk("A") as shown:
        for _ in range(5):
            await shown.get("/metrics")
        assert shown.store.counted == 1


async def test_one_message() -> None:
    async with desk("A1", "B2") as shown:
        status, text = await shown.get("/api/queue/B2")
        assert (status, json.loads(text)) == (200, entry_object(entry("B2")))
        status, text = await shown.get("/api/queue/C3")
        assert (status, json.loads(text)) == (404, {"error": "C3: no such message in the queue"})
        assert (await shown.get("/api/queue/a%2Fb"))[0] == 400
        assert (await shown.get(f"/api/queue/{'A' * 65}"))[0] == 400
        shown.store.broken = "disk full"
        status, text = await shown.get("/api/queue/B2")
        assert (status, json.loads(text)) == (503, {"error": "queue store: disk full"})


async def test_the_queue_page_by_page() -> None:
    async with desk("A", "B", "C") as shown:
        status, text = await shown.get("/api/queue?limit=2")
        first = json.loads(text)
        rest = json.loads((await shown.get(f"/api/queue?limit=2&after={first['after']}"))[1])
    assert status == 200
    assert first == {"messages": [entry_object(entry("A")), entry_object(entry("B"))], "after": "B"}
    assert rest == {"messages": [entry_object(entry("C"))], "after": ""}


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "limit=", "limit=99999999999", "after=../x", "after=" + "A" * 65, "after=%00"],
)
async def test_a_bad_query_is_refused(query: str) -> None:
    async with desk("A") as shown:
        status, text = await shown.get(f"/api/queue?{query}")
    assert status == 400
    assert "error" in json.loads(text)


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/readyz", "/api/queue"])
async def test_a_rebound_name_gets_nothing(path: str) -> None:
    async with desk("A") as shown:
        status, text = await shown.get(path, host="rebound.example")
        assert status == 421
        assert "a@b.example" not in text
        assert (await shown.get(path, host="localhost:9"))[0] == 200


async def test_a_probe_without_a_host_header_is_no_browser() -> None:
    async with desk() as shown:
        host, port = shown.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert (await reader.readline()).split()[1] == b"200"
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
async def test_nothing_can_be_changed(method: str) -> None:
    async with desk("A") as shown:
        assert (await shown.get("/api/queue", method=method))[0] == 405


async def test_a_page_that_is_not_there() -> None:
    async with desk() as shown:
        assert await shown.get("/nothing") == (404, "404 Not Found\n")


async def test_the_port_is_taken() -> None:
    async with desk() as shown:
        port = int(shown.url.rpartition(":")[2])
        with pytest.raises(DeskFailed, match=rf"http\.listen 127\.0\.0\.1:{port}: address already in use"):
            async with serve([("127.0.0.1", port)], Pages(shown.facts())):
                pass


@pytest.mark.parametrize(
    ("host", "named"), [("0.0.0.0", r"0\.0\.0\.0:8025"), ("::", r"\[::\]:8025"), ("192.0.2.1", r"192\.0\.2\.1:8025")]
)
async def test_beyond_loopback_is_refused(host: str, named: str) -> None:
    shown = Desk(FixedQueue())
    with pytest.raises(DeskFailed, match=rf"http\.listen {named}: .*loopback only"):
        async with serve([(host, 8025)], Pages(shown.facts())):
            pass


async def test_several_addresses() -> None:
    shown = Desk(FixedQueue())
    async with serve([("127.0.0.1", 0), ("127.0.0.2", 0)], Pages(shown.facts())) as bound:
        for host, port in bound:
            shown.url = f"http://{host}:{port}"
            assert await shown.get("/healthz") == (200, "ok\n")
    assert [host for host, _ in bound] == ["127.0.0.1", "127.0.0.2"]


async def test_a_connection_too_many_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 1)
    async with desk() as shown:
        host, port = shown.url.removeprefix("http://").split(":")
        kept = await asyncio.open_connection(host, int(port))
        kept[1].write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await kept[0].readline()).split()[1] == b"200"
        refused = await asyncio.open_connection(host, int(port))
        assert await asyncio.wait_for(refused[0].read(), 20) == b""
        for _, writer in (kept, refused):
            writer.close()
            await writer.wait_closed()
