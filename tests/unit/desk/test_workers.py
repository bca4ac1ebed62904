"""The numbers of several workers as those of one relay."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from relay.desk.workers import Totals
from relay.log.events import Program, ResolverProbed, Warned
from relay.log.metrics import Metrics


def worker(*, warnings: int = 0, messages: int = 0, oldest: float = 0.0, validating: bool = True) -> str:
    metrics = Metrics("1.2.3")
    for _ in range(warnings):
        metrics.observe(Warned(Program.SMTP, "x"))
    metrics.queue(messages=messages, deliveries={"waiting": messages}, oldest_age=oldest)
    metrics.observe(ResolverProbed(validating=validating, kind="x" if validating else "", why="", changed=True))
    return metrics.render().decode()


def samples(text: bytes) -> dict[str, float]:
    """By name and labels, as Prometheus would read it."""
    return {
        sample.name + "".join(f",{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_sums_and_what_is_no_sum() -> None:
    one, two = worker(warnings=2, messages=3, oldest=10), worker(warnings=1, messages=4, oldest=90, validating=False)
    found = samples(Totals().summed({"worker 1": one, "worker 2": two}, silent=0))
    assert found["dane_relay_warnings_total,smtp"] == 3
    assert found["dane_relay_queue_messages"] == 7
    assert found["dane_relay_queue_oldest_seconds"] == 90
    assert found["dane_relay_resolver_validating"] == 0
    assert found["dane_relay_info,1.2.3"] == 1
    assert (found["dane_relay_workers_up"], found["dane_relay_workers_down"]) == (2, 0)


def test_a_worker_that_begins_anew_takes_nothing_away() -> None:
    """A sum that falls would be read as a relay that began anew, and everything counted twice."""
    totals = Totals()
    totals.summed({"worker 1": worker(warnings=5), "worker 2": worker(warnings=7)}, silent=0)
    down = samples(totals.summed({"worker 1": worker(warnings=6)}, silent=1))
    assert (down["dane_relay_warnings_total,smtp"], down["dane_relay_workers_down"]) == (13, 1)
    again = samples(totals.summed({"worker 1": worker(warnings=6), "worker 2": worker(warnings=1)}, silent=0))
    assert again["dane_relay_warnings_total,smtp"] == 6 + 7 + 1


def test_buckets_stay_buckets() -> None:
    text = worker()
    found = samples(Totals().summed({"worker 1": text, "worker 2": text}, silent=0))
    alone = samples(text.encode())
    missing = set(alone) - set(found)
    assert all(name.partition(",")[0].endswith("_created") for name in missing)
    buckets = [name for name in alone if "_bucket," in name]
    assert buckets
    assert set(buckets) <= set(found)
