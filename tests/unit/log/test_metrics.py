from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from relay.log.events import ClientDisconnected, ResolverProbed
from relay.log.metrics import Metrics
from tests.unit.log.cases import CASES, LOCAL, bounced, deferred, sent, settled


def samples(metrics: Metrics) -> dict[str, float]:
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def test_every_event_is_counted_and_named_ours() -> None:
    metrics = Metrics("1.2.3")
    before = samples(metrics)
    for event in CASES.values():
        metrics.observe(event)
    after = samples(metrics)
    assert all(name.startswith("dane_relay_") for name in after)
    assert after["dane_relay_info{version=1.2.3}"] == 1
    assert sum(after.values()) > sum(before.values())


def test_accepted_messages_and_octets() -> None:
    metrics = Metrics("0")
    metrics.observe(CASES["accepted"])
    metrics.observe(CASES["accepted"])
    found = samples(metrics)
    assert found["dane_relay_accepted_messages_total{}"] == 2
    assert found["dane_relay_accepted_bytes_total{}"] == 2468
    assert found["dane_relay_accepted_recipients_total{}"] == 4


def test_rejects_by_stage_and_code() -> None:
    metrics = Metrics("0")
    metrics.observe(CASES["reject at RCPT"])
    metrics.observe(CASES["reject at CONNECT"])
    found = samples(metrics)
    assert found["dane_relay_rejects_total{code=454,where=RCPT}"] == 1
    assert found["dane_relay_rejects_total{code=421,where=CONNECT}"] == 1


def test_deliveries_by_status_with_their_delays() -> None:
    metrics = Metrics("0")
    for event in (settled(sent()), settled(sent()), settled(deferred("x")), settled(bounced("y"))):
        metrics.observe(event)
    found = samples(metrics)
    assert found["dane_relay_deliveries_total{status=sent}"] == 2
    assert found["dane_relay_deliveries_total{status=deferred}"] == 1
    assert found["dane_relay_deliveries_total{status=bounced}"] == 1
    assert found["dane_relay_delivery_delay_seconds_count{status=sent}"] == 2
    assert abs(found["dane_relay_delivery_delay_seconds_sum{status=sent}"] - 0.826) < 1e-9
    assert found["dane_relay_delivery_stage_seconds_count{stage=setup}"] == 2


def test_statuses_that_never_happened_are_there_as_zero() -> None:
    assert samples(Metrics("0"))["dane_relay_deliveries_total{status=bounced}"] == 0


def test_tls_sessions_by_word_and_protocol() -> None:
    metrics = Metrics("0")
    metrics.observe(CASES["TLS 1.3"])
    metrics.observe(CASES["TLS refused"])
    found = samples(metrics)
    assert found["dane_relay_tls_sessions_total{protocol=TLSv1.3,word=Verified}"] == 1
    assert found["dane_relay_tls_refused_total{}"] == 1


def test_open_sessions_of_clients() -> None:
    metrics = Metrics("0")
    metrics.observe(CASES["connect"])
    metrics.observe(CASES["connect"])
    metrics.observe(ClientDisconnected(LOCAL, {}))
    assert samples(metrics)["dane_relay_client_connections_open{}"] == 1
    assert samples(metrics)["dane_relay_client_connections_total{}"] == 2


def test_the_resolver_gauge_follows_the_last_probe() -> None:
    metrics = Metrics("0")
    metrics.observe(ResolverProbed(True, "good", True))
    assert samples(metrics)["dane_relay_resolver_validating{}"] == 1
    metrics.observe(ResolverProbed(True, "good", True, resolver="libunbound through 127.0.0.1:53", kind="one"))
    metrics.observe(ResolverProbed(True, "good", True, resolver="trust-ad through 127.0.0.1:53", kind="other"))
    chosen = {name: value for name, value in samples(metrics).items() if "resolver_chosen" in name}
    assert chosen == {"dane_relay_resolver_chosen{kind=other}": 1}
    metrics.observe(ResolverProbed(False, "bad", True))
    assert not [name for name in samples(metrics) if "resolver_chosen" in name]
    assert samples(metrics)["dane_relay_resolver_validating{}"] == 0


def test_the_queue_gauges_and_a_store_that_falls_silent() -> None:
    metrics = Metrics("0")
    metrics.queue(messages=7, deliveries={"deferred": 5, "active": 0}, oldest_age=12.5)
    found = samples(metrics)
    assert found["dane_relay_queue_up{}"] == 1
    assert found["dane_relay_queue_messages{}"] == 7
    assert found["dane_relay_queue_deliveries{state=deferred}"] == 5
    assert found["dane_relay_queue_oldest_seconds{}"] == 12.5
    metrics.queue_silent()
    assert samples(metrics)["dane_relay_queue_up{}"] == 0


def test_no_label_takes_a_value_from_outside() -> None:
    metrics = Metrics("0")
    for event in CASES.values():
        metrics.observe(event)
    text = metrics.render().decode()
    for foreign in ("good.example", "d.example", "192.0.2", "alice", "app.example", "lab"):
        assert foreign not in text.replace("status=", "")


def test_what_sharing_places_costs_is_asked_for_at_each_scrape() -> None:
    metrics, waits = Metrics("0"), [0]
    assert not any("place" in name for name in samples(metrics)), "nobody shares"
    metrics.places(lambda: waits[0], lambda: 0.25)
    waits[0] = 3
    found = samples(metrics)
    assert found["dane_relay_destination_place_waits{}"] == 3
    assert found["dane_relay_destination_place_lock_seconds{}"] == 0.25
