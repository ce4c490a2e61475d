"""Metrics: on a port of their own, for this machine, and no way from there to anything else."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from importlib.metadata import version

import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families
from quart_trio import QuartTrio

from sottovoce_hosting.errors import StartError
from sottovoce_hosting.metrics import listen_for_metrics, url_of
from sottovoce_hosting.service import Origins, Service, WebSocketHandler
from sottovoce_hosting.serving import serve
from sottovoce_hosting.settings import HostingSettings
from sottovoce_hosting.testing import PATIENCE, ServedForTest, read_until_closed, start_server

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = (
    b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Bakery:
    """A service that counts."""

    name = "bakery"
    websockets: dict[str, WebSocketHandler] = {}  # noqa: RUF012 - never changed

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.loaves = Counter("loaves", "Baked so far.", registry=self.registry)

    def add_routes(self, app: QuartTrio) -> None:
        pass

    def not_ready(self) -> str | None:
        return None

    async def drain(self) -> None:
        pass

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Service]:
        yield self


class Broken(CollectorRegistry):
    """A registry that cannot be read."""

    def collect(self) -> None:  # type: ignore[override] # it never returns
        raise RuntimeError("words that nobody may see")


async def start(nursery: trio.Nursery, *services: Bakery) -> ServedForTest:
    def opening(_: Origins) -> list[AbstractAsyncContextManager[Service]]:
        return [service.opened() for service in services]

    return await start_server(nursery, opening, HostingSettings(port=0, metrics_port=0))


async def connect(server: ServedForTest) -> trio.SocketStream:
    assert server.address.metrics is not None
    return await trio.open_tcp_stream("127.0.0.1", int(server.address.metrics.split(":")[2].split("/")[0]))


async def exchange(server: ServedForTest, data: bytes) -> bytes:
    stream = await connect(server)
    await stream.send_all(data)
    return await read_until_closed(stream)


async def figures(server: ServedForTest) -> dict[str, float]:
    head, _, body = (await exchange(server, GET)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    families = text_string_to_metric_families(body.decode())
    return {sample.name: sample.value for family in families for sample in family.samples}


async def test_what_services_count_is_served_together(nursery: trio.Nursery) -> None:
    one, two = Bakery(), Bakery()
    two.registry = CollectorRegistry()
    cakes = Counter("cakes", "Baked so far.", registry=two.registry)
    server = await start(nursery, one, two)
    one.loaves.inc(3)
    cakes.inc(4)
    served = await figures(server)
    assert (served["loaves_total"], served["cakes_total"]) == (3, 4)
    assert "loaves_created" not in served


async def test_the_process_tells_of_its_memory_files_start_and_connections(nursery: trio.Nursery) -> None:
    server = await start(nursery, Bakery())
    assert (await figures(server))["sottovoce_open_connections"] == 0
    async with await server.connect() as stream:
        await stream.send_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await stream.receive_some()
        served = await figures(server)
    assert served["sottovoce_open_connections"] == 1
    for name in ("process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"):
        assert served[name] > 0
    assert f'sottovoce_build_info{{version="{version("sottovoce")}"}}'.encode() in await exchange(server, GET)


async def test_without_a_port_there_are_none(nursery: trio.Nursery) -> None:
    server = await start_server(nursery, lambda _: [Bakery().opened()])
    assert server.address.metrics is None
    assert b"404" in await server.exchange(b"GET /metrics HTTP/1.0\r\n\r\n")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /", b"404"),
        (b"GET /livez", b"404"),
        (b"GET /metrics/", b"404"),
        (b"POST /metrics", b"405"),
        (b"HEAD /metrics", b"405"),
        (b"GET http://x/metrics", b"404"),
    ],
)
async def test_nothing_else_is_served(nursery: trio.Nursery, request_line: bytes, status: bytes) -> None:
    server = await start(nursery, Bakery())
    answer = await exchange(server, request_line + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.split()[1] == status


@pytest.mark.parametrize(
    "said",
    [
        b"\xff" * 100_000,
        b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 20_000,
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 100_000,
        UPGRADE + b"more",
    ],
    ids=["no HTTP", "endless head", "large body", "a WebSocket"],
)
async def test_whatever_is_said_there_the_server_stays(nursery: trio.Nursery, said: bytes) -> None:
    server = await start(nursery, Bakery())
    stream = await connect(server)
    with trio.fail_after(PATIENCE), suppress(trio.BrokenResourceError):  # it may be closed already
        await stream.send_all(said)
    assert b"loaves" not in await read_until_closed(stream)
    assert (await figures(server))["loaves_total"] == 0
    assert await server.is_alive()


async def test_a_figure_that_cannot_be_read_ends_one_answer_only(
    nursery: trio.Nursery, capfd: pytest.CaptureFixture[str]
) -> None:
    bakery = Bakery()
    bakery.registry = Broken()
    server = await start(nursery, bakery)
    assert (await exchange(server, GET)).split()[1] == b"500"
    assert await server.is_alive()
    logged = "".join(capfd.readouterr())
    assert "RuntimeError" in logged
    assert "nobody may see" not in logged


async def test_more_connections_than_a_few_are_refused(nursery: trio.Nursery) -> None:
    server = await start(nursery, Bakery())
    held = [await connect(server) for _ in range(8)]
    await trio.testing.wait_all_tasks_blocked()  # all eight have been let in
    assert await exchange(server, GET) == b""
    for stream in held:
        await stream.aclose()
    assert await server.is_alive()


async def test_who_is_connected_there_does_not_hold_up_the_end(nursery: trio.Nursery) -> None:
    server = await start(nursery, Bakery())
    async with await connect(server):
        server.stop.set()
        with trio.fail_after(PATIENCE / 2):
            await server.stopped.wait()


async def test_a_port_in_use_is_one_line() -> None:
    [listener] = await listen_for_metrics(HostingSettings(metrics_port=0))
    async with listener:
        url = url_of([listener])
        assert url is not None
        port = int(url.split(":")[2].split("/")[0])
        with pytest.raises(StartError) as caught:
            await listen_for_metrics(HostingSettings(metrics_port=port))
    said = f"cannot serve metrics on 127.0.0.1 port {port}: Address already in use; choose another metrics_port"
    assert str(caught.value) == said


async def test_a_metrics_port_in_use_stops_the_start() -> None:
    [listener] = await listen_for_metrics(HostingSettings(metrics_port=0))
    async with listener:
        settings = HostingSettings(port=0, metrics_port=listener.socket.getsockname()[1])
        with pytest.raises(StartError, match="cannot serve metrics"):
            await serve(lambda _: [Bakery().opened()], settings, stop=trio.Event())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_the_address_is_told_as_it_is_read(host: str) -> None:
    try:
        [listener] = await listen_for_metrics(HostingSettings(metrics_port=0, metrics_host=host))
    except StartError:
        pytest.skip("this machine has no such address")
    async with listener:
        port = listener.socket.getsockname()[1]
        assert url_of([listener]) == f"http://{'[::1]' if host == '::1' else host}:{port}/metrics"
