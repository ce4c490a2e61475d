"""What the relay counts, for Prometheus. No metric and no label names a queue, a key, an address or anybody.

Counting is cheap: it happens for every envelope. What is exposed is read off when somebody asks.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from sottovoce_wire.errors import Code
from sottovoce_wire.frames import SendResult

from .envelopes import Envelope

_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_COUNTS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


class _Latency:
    """A histogram of seconds, without the locks of prometheus_client's own: counted in one thread."""

    def __init__(self) -> None:
        self._buckets = [0] * (len(_SECONDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float, count: int = 1) -> None:
        self._buckets[bisect_left(_SECONDS, seconds)] += count
        self._sum += seconds * count

    def family(self, name: str, text: str) -> HistogramMetricFamily:
        total = 0
        buckets = []
        for bound, count in zip((*map(str, _SECONDS), "+Inf"), self._buckets, strict=True):
            total += count
            buckets.append((bound, total))
        return HistogramMetricFamily(name, text, buckets=buckets, sum_value=self._sum)


class Metrics(Collector):
    """All of them. `clock` gives the monotonic seconds in which envelopes say when they arrived.

    `gauges` are asked when the metrics are: what the relay holds at that moment, by name and text.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self._clock = clock
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []
        self.never_written = 0  # acknowledged before they were written
        self._written = 0
        self._deleted = 0
        self._delivered = 0
        self._expired = 0
        self._results: Counter[Code] = Counter()
        self._durable = _Latency()
        self._delivery = _Latency()
        self._batches = Histogram(
            "sottovoce_relay_batch_envelopes", "Envelopes in a transaction.", buckets=_COUNTS, registry=self.registry
        )
        self.commit_seconds = Histogram(
            "sottovoce_relay_commit_seconds", "A transaction, with its fsync.", buckets=_SECONDS, registry=self.registry
        )

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show what `value` returns whenever somebody asks."""
        self._gauges.append((name, text, value))

    def written(self, envelopes: Sequence[Envelope], deleted: int) -> None:
        """These were committed, and so many deleted with them."""
        self._written += len(envelopes)
        self._deleted += deleted
        if envelopes:
            self._batches.observe(len(envelopes))
        now = self._clock()
        for envelope in envelopes:
            self._durable.observe(now - envelope.arrived)

    def delivered(self, envelopes: Sequence[Envelope]) -> None:
        """These were given to their owner's connection, together; each counts as being as late as the first."""
        self._delivered += len(envelopes)
        if envelopes[0].arrived:
            self._delivery.observe(self._clock() - envelopes[0].arrived, len(envelopes))

    def answered(self, results: Iterable[SendResult]) -> None:
        """Senders were told these."""
        for result in results:
            self._results[result.code] += 1

    def expired(self, count: int) -> None:
        """So many were swept, or replaced because they came again past their time."""
        self._expired += count

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        outcomes = CounterMetricFamily(
            "sottovoce_relay_envelopes",
            "Envelopes accepted: stored, or cut through, which were acknowledged before they had to be written.",
            labels=["outcome"],
        )
        outcomes.add_metric(["stored"], self._written)
        outcomes.add_metric(["cut_through"], self.never_written)
        yield outcomes
        yield CounterMetricFamily("sottovoce_relay_delivered", "Envelopes given to owners.", value=self._delivered)
        yield CounterMetricFamily("sottovoce_relay_deleted", "Envelopes acknowledged and deleted.", value=self._deleted)
        yield CounterMetricFamily("sottovoce_relay_expired", "Envelopes that nobody took in time.", value=self._expired)
        results = CounterMetricFamily("sottovoce_relay_results", "What senders were told.", labels=["code"])
        for code, count in sorted(self._results.items()):
            results.add_metric([code.name.lower()], count)
        yield results
        yield self._durable.family(
            "sottovoce_relay_accept_to_durable_seconds", "From an envelope's arrival to its commit."
        )
        yield self._delivery.family(
            "sottovoce_relay_accept_to_delivered_seconds", "From an envelope's arrival to its owner's connection."
        )
        for name, text, value in self._gauges:
            yield GaugeMetricFamily(name, text, value=value())
