"""The desk of a relay of several workers: each is asked, and the answers are put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web
from prometheus_client.core import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from relay.desk import http

# What is not the sum of what workers say.
_LARGEST = frozenset({"dane_relay_info", "dane_relay_resolver_chosen", "dane_relay_queue_oldest_seconds"})
_SMALLEST = frozenset({"dane_relay_resolver_validating", "dane_relay_queue_taking_mail", "dane_relay_queue_up"})
_CREATED = "_created"


class CannotSay(Exception):  # noqa: N818 - it names the state, not the handling
    """A worker does not answer; the message says which, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """How workers are asked; each raises ``CannotSay``.

    :param numbers: the text of each worker that answers, by its name, and how many do not.
    :param reasons: why mail cannot be taken and delivered.
    :param listing: messages after a queue ID, so many at most.
    :param message: one message; None where there is none of that ID.
    """

    version: str
    numbers: Callable[[], Awaitable[tuple[Mapping[str, str], int]]]
    reasons: Callable[[], Awaitable[Sequence[str]]]
    listing: Callable[[str, int], Awaitable[Sequence[Mapping[str, object]]]]
    message: Callable[[str], Awaitable[Mapping[str, object] | None]]


class Pages:
    """The pages of all workers; a ``http.Desk``."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._totals = Totals()

    async def index(self, request: web.Request) -> web.Response:
        """Name the pages and the version."""
        del request
        return http.index(self._workers.version)

    async def health(self, request: web.Request) -> web.Response:
        """The parent's loop runs, or nobody would answer."""
        del request
        return web.Response(text="ok\n")

    async def readiness(self, request: web.Request) -> web.Response:
        """Whether every worker can take and deliver mail."""
        del request
        return http.ready(await self._workers.reasons())

    async def metrics(self, request: web.Request) -> web.Response:
        """Everything counted by all."""
        del request
        texts, silent = await self._workers.numbers()
        return http.exposition(self._totals.summed(texts, silent=silent))

    async def queue(self, request: web.Request) -> web.Response:
        """A page of the queue in the order of queue IDs."""
        asked = http.page_of(request)
        if isinstance(asked, web.Response):
            return asked
        after, limit = asked
        try:
            return http.listing(await self._workers.listing(after, limit), limit)
        except CannotSay as error:
            return http.refuse(HTTPStatus.SERVICE_UNAVAILABLE, str(error))

    async def message(self, request: web.Request) -> web.Response:
        """One message, with what became of its recipients so far."""
        queue_id = request.match_info["queue_id"]
        if not http.is_queue_id(queue_id):
            return http.refuse(HTTPStatus.BAD_REQUEST, "not a queue ID")
        try:
            found = await self._workers.message(queue_id)
        except CannotSay as error:
            return http.refuse(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        if found is None:
            return http.refuse(HTTPStatus.NOT_FOUND, f"{queue_id}: no such message in the queue")
        return web.json_response(found)


Key = tuple[str, tuple[tuple[str, str], ...]]


class Totals:
    """The numbers of all workers as those of one relay; what was counted by one that ended meanwhile stays counted.

    That is known as of the last time that somebody asked.
    """

    def __init__(self) -> None:
        self._last: dict[str, dict[Key, float]] = {}
        self._before: dict[str, dict[Key, float]] = {}
        self._families: dict[str, Metric] = {}

    def summed(self, texts: Mapping[str, str], *, silent: int) -> bytes:
        """Sums, but for numbers of which the largest or smallest is meant.

        :param texts: as ``Metrics.render`` makes them, by worker.
        :param silent: workers that did not answer; theirs are as they were the last time, and missing where they go down too.
        """
        gauges: dict[str, dict[Key, float]] = {}
        for worker, text in texts.items():
            counted_now: dict[Key, float] = {}
            for family in text_string_to_metric_families(text):
                self._families.setdefault(family.name, family)
                if family.type == "gauge":
                    own = gauges.setdefault(family.name, {})
                    for key, value in _samples(family):
                        own[key] = _both(family.name, own[key], value) if key in own else value
                else:
                    counted_now.update(_samples(family))
            self._count(worker, counted_now)
        made = [_metric(self._families[name], samples) for name, samples in gauges.items()]
        counted: Counter[Key] = Counter()
        for seen in (*self._before.values(), *self._last.values()):
            counted.update(seen)
        of_family: dict[str, dict[Key, float]] = {}
        for key, value in counted.items():
            of_family.setdefault(_family_of(key[0], self._families), {})[key] = value
        made += [_metric(self._families[name], samples) for name, samples in of_family.items()]
        up = _gauge("dane_relay_workers_up", "Workers whose numbers are in this answer", len(texts))
        down = _gauge("dane_relay_workers_down", "Workers that did not answer", silent)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Made([*made, up, down]))
        return generate_latest(registry)

    def _count(self, worker: str, now: dict[Key, float]) -> None:
        last, before = self._last.get(worker, {}), self._before.setdefault(worker, {})
        if any(now.get(key, 0.0) < value for key, value in last.items()):  # it is another process than it was
            for key, value in last.items():
                before[key] = before.get(key, 0.0) + value
        self._last[worker] = now


def _samples(family: Metric) -> Iterator[tuple[Key, float]]:
    for sample in family.samples:
        if not sample.name.endswith(_CREATED):  # when a counter was made: no number that can be added
            yield (sample.name, tuple(sorted(sample.labels.items()))), sample.value


def _family_of(sample: str, families: Mapping[str, Metric]) -> str:
    for end in ("", "_total", "_bucket", "_sum", "_count"):
        if sample.endswith(end) and sample.removesuffix(end) in families:
            return sample.removesuffix(end)
    raise KeyError(sample)


def _metric(family: Metric, samples: Mapping[Key, float]) -> Metric:
    metric = Metric(family.name, family.documentation, family.type)
    for (name, labels), value in samples.items():
        metric.add_sample(name, dict(labels), value)
    return metric


def _gauge(name: str, meaning: str, value: float) -> Metric:
    metric = Metric(name, meaning, "gauge")
    metric.add_sample(name, {}, value)
    return metric


def _both(name: str, one: float, other: float) -> float:
    if name in _LARGEST:
        return max(one, other)
    return min(one, other) if name in _SMALLEST else one + other


class _Made(Collector):
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics
