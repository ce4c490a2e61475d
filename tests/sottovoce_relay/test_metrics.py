"""What the relay counts, as Prometheus reads it."""

import re

import pytest
from prometheus_client import generate_latest

from sottovoce_relay.envelopes import ACCEPTED, QUEUE_FULL
from sottovoce_relay.metrics import Metrics
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import SendResult
from tests.sottovoce_relay.parts import OTHER, QUEUE, envelope


class Ticks:
    """Monotonic seconds, as the test wants them."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Ticks:
    return Ticks()


@pytest.fixture
def metrics(clock: Ticks) -> Metrics:
    return Metrics(clock)


def exposed(metrics: Metrics) -> dict[str, float]:
    """Every sample by its name and labels, without our prefix."""
    lines = generate_latest(metrics.registry).decode().splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name.removeprefix("sottovoce_relay_"): float(value) for name, _, value in samples}


def test_a_relay_that_has_done_nothing_says_so(metrics: Metrics) -> None:
    shown = exposed(metrics)
    assert shown['envelopes_total{outcome="stored"}'] == shown['envelopes_total{outcome="cut_through"}'] == 0
    assert shown["batch_envelopes_count"] == 0


def test_envelopes_are_counted_by_what_became_of_them(metrics: Metrics) -> None:
    some = [envelope(seq) for seq in range(3)]
    metrics.written(some, 2)
    metrics.delivered(some[:2])
    metrics.never_written += 5
    metrics.expired(4)
    shown = exposed(metrics)
    assert shown['envelopes_total{outcome="stored"}'] == 3
    assert shown['envelopes_total{outcome="cut_through"}'] == 5
    assert (shown["deleted_total"], shown["delivered_total"], shown["expired_total"]) == (2, 2, 4)


def test_what_senders_were_told_is_counted_by_code(metrics: Metrics) -> None:
    metrics.answered([ACCEPTED, QUEUE_FULL])
    metrics.answered([ACCEPTED])
    shown = exposed(metrics)
    assert (shown['results_total{code="accepted"}'], shown['results_total{code="queue_full"}']) == (2, 1)


def test_latencies_fall_into_their_buckets(metrics: Metrics, clock: Ticks) -> None:
    some = [envelope(seq) for seq in range(3)]
    for one, ago in zip(some, (0.0004, 0.015, 60.0), strict=True):
        one.arrived = clock.now - ago
    metrics.written(some, 0)
    metrics.delivered(some[1:])
    shown = exposed(metrics)
    durable = "accept_to_durable_seconds"
    assert [shown[f'{durable}_bucket{{le="{bound}"}}'] for bound in ("0.0005", "0.01", "0.02", "10.0", "+Inf")] == [
        1,
        1,
        2,
        2,
        3,
    ]
    assert shown[f"{durable}_count"] == 3
    assert shown[f"{durable}_sum"] == pytest.approx(60.0154)
    assert shown["accept_to_delivered_seconds_count"] == 2


def test_what_came_from_the_database_has_no_latency(metrics: Metrics) -> None:
    metrics.delivered([envelope(1)])
    shown = exposed(metrics)
    assert (shown["delivered_total"], shown["accept_to_delivered_seconds_count"]) == (1, 0)


def test_transactions_are_measured_in_envelopes_and_those_without_any_are_not(metrics: Metrics) -> None:
    metrics.written([], 7)
    for count in (1, 200):
        metrics.written([envelope(seq) for seq in range(count)], 0)
    shown = exposed(metrics)
    assert (shown["batch_envelopes_count"], shown["batch_envelopes_sum"]) == (2, 201)
    assert shown['batch_envelopes_bucket{le="1.0"}'] == 1


def test_gauges_are_read_when_somebody_asks(metrics: Metrics) -> None:
    held = [1.0]
    metrics.gauge("sottovoce_relay_held_bytes", "Held.", lambda: held[0])
    assert exposed(metrics)["held_bytes"] == 1
    held[0] = 7
    assert exposed(metrics)["held_bytes"] == 7


def test_no_metric_names_a_queue_or_a_key_and_labels_have_a_closed_list_of_values(metrics: Metrics) -> None:
    metrics.written([envelope(1), envelope(2, queue=OTHER)], 1)
    metrics.answered(SendResult(code, 0) for code in Code)
    text = generate_latest(metrics.registry).decode()
    for secret in (QUEUE, OTHER):
        assert secret.decode() not in text
        assert secret.hex() not in text
    labels = dict.fromkeys(re.findall(r"(\w+)=\"", text))
    assert set(labels) == {"outcome", "code", "le"}
    assert len(re.findall(r'results_total\{code="', text)) == len(Code)
