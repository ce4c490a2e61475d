"""What a keyserver counts: requests and bundles. No label tells of an account, a name, a device or an address."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter

from sottovoce_wire.directory import Bundle


class Metrics:
    """The counters of one keyserver, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "sottovoce_keyserver_requests",
            "Answered requests, by route and class of status.",
            ["route", "status"],
            registry=self.registry,
        )
        self._bundles = Counter(
            "sottovoce_keyserver_bundles",
            "Prekey bundles handed out, with a one-time prekey or without.",
            ["one_time_prekey"],
            registry=self.registry,
        )

    def count_request(self, route: str, status: int) -> None:
        """A request to the route as it is registered, never as it was spelled."""
        self._requests.labels(route, f"{status // 100}xx").inc()

    def count_bundles(self, bundles: Iterable[Bundle]) -> None:
        """Bundles that are about to be answered."""
        for bundle in bundles:
            self._bundles.labels("without" if bundle.one_time_prekey is None else "with").inc()
