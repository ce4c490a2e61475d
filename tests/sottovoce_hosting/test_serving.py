"""Serving services: health, JSON errors, dispatch, TLS, and the end."""

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import trio
from prometheus_client import CollectorRegistry
from quart_trio import QuartTrio

from sottovoce_hosting.database import DatabaseError
from sottovoce_hosting.service import Origins, Receive, Scope, Send, Service, WebSocketHandler
from sottovoce_hosting.settings import HostingSettings
from sottovoce_hosting.testing import PATIENCE, ServedForTest, start_server
from sottovoce_wire import directory as wire
from sottovoce_wire.errors import Code
from tests.certificates import self_signed


@dataclass
class Stub:
    """A service that fails in named ways and notes what is done to it."""

    name: str = "stub"
    trouble: str | None = None
    events: list[str] = field(default_factory=list)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    @property
    def websockets(self) -> Mapping[str, WebSocketHandler]:
        return {f"/{self.name}/socket": self._greet}

    def add_routes(self, app: QuartTrio) -> None:
        app.add_url_rule(f"/{self.name}", self.name, self._view)
        app.add_url_rule(f"/{self.name}/fail", f"{self.name} fails", self._fail)
        app.add_url_rule(f"/{self.name}/folder/", f"{self.name}'s folder", self._view)
        app.add_url_rule(f"/{self.name}/full", f"{self.name} is full", self._fill)

    async def _view(self) -> str:
        return self.name

    async def _fail(self) -> str:
        raise RuntimeError("words that nobody may see")

    async def _fill(self) -> str:
        raise DatabaseError("the disk is full")

    async def _greet(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": self.name.encode()})
        await send({"type": "websocket.close"})

    def not_ready(self) -> str | None:
        return self.trouble

    async def drain(self) -> None:
        self.events.append("drain")
        if self.trouble == "does not drain":
            raise RuntimeError("words that nobody may see")

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Service]:
        self.events.append("open")
        yield self
        self.events.append("close")


def opening(*stubs: Stub) -> Callable[[Origins], list[AbstractAsyncContextManager[Service]]]:
    return lambda _: [stub.opened() for stub in stubs]


async def get(server: ServedForTest, path: str, method: str = "GET") -> httpx.Response:
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as http:
        return await http.request(method, server.url + path)


def assert_problem(answer: httpx.Response, status: int, code: Code) -> None:
    assert answer.status_code == status
    assert wire.decode(wire.Problem, answer.content).code == code


async def test_a_server_that_runs_is_live_and_ready(nursery: trio.Nursery) -> None:
    server = await start_server(nursery, opening(Stub()))
    assert [(await get(server, path)).status_code for path in ("/livez", "/readyz")] == [200, 200]


async def test_a_service_in_trouble_is_live_but_not_ready(nursery: trio.Nursery) -> None:
    server = await start_server(nursery, opening(Stub("one"), Stub("two", trouble="the disk is full")))
    assert (await get(server, "/livez")).status_code == 200
    answer = await get(server, "/readyz")
    assert_problem(answer, 503, Code.TRY_AGAIN)
    assert "the disk is full" in answer.text


async def test_services_share_a_port(nursery: trio.Nursery) -> None:
    server = await start_server(nursery, opening(Stub("one"), Stub("two")))
    assert [(await get(server, path)).text for path in ("/one", "/two")] == ["one", "two"]


@pytest.mark.parametrize(
    ("path", "method", "status", "code"),
    [
        ("/nowhere", "GET", 404, Code.UNKNOWN_PATH),
        ("/one/", "GET", 404, Code.UNKNOWN_PATH),
        ("/static/one", "GET", 404, Code.UNKNOWN_PATH),
        ("/one/socket", "GET", 404, Code.UNKNOWN_PATH),
        ("/one", "POST", 405, Code.UNKNOWN_PATH),
        ("/one", "OPTIONS", 405, Code.UNKNOWN_PATH),
        ("/one/fail", "GET", 500, Code.INTERNAL),
        ("/one/full", "GET", 503, Code.TRY_AGAIN),
    ],
)
async def test_every_refusal_is_a_problem_in_json(
    nursery: trio.Nursery, path: str, method: str, status: int, code: Code
) -> None:
    server = await start_server(nursery, opening(Stub("one")))
    answer = await get(server, path, method)
    assert_problem(answer, status, code)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", [b"/one//folder/", b"/one/folder", b"//x/one", b"//[x/one", b"/\\x/one"])
async def test_another_spelling_of_a_path_is_unknown_and_leads_nowhere(nursery: trio.Nursery, path: bytes) -> None:
    server = await start_server(nursery, opening(Stub("one")))
    head, _, body = (await server.exchange(b"GET %s HTTP/1.0\r\nHost: evil.example\r\n\r\n" % path)).partition(
        b"\r\n\r\n"
    )
    assert head.split()[1] == b"404"
    assert b"evil" not in head + body
    assert wire.decode(wire.Problem, body).code == Code.UNKNOWN_PATH


@pytest.mark.parametrize("target", [b"http://[x/one", b"http://x/one", b"*", b"one", b"x:1"])
async def test_a_target_that_is_no_path_is_refused_and_not_logged(
    nursery: trio.Nursery, target: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    server = await start_server(nursery, opening(Stub("one")))
    head, _, body = (await server.exchange(b"GET %s HTTP/1.0\r\n\r\n" % target)).partition(b"\r\n\r\n")
    assert head.split()[1] == b"400"
    assert wire.decode(wire.Problem, body).code == Code.BAD_REQUEST
    assert "".join(capfd.readouterr()) == ""


async def test_a_failing_request_is_logged_without_its_words_and_its_path(
    nursery: trio.Nursery, capfd: pytest.CaptureFixture[str]
) -> None:
    server = await start_server(nursery, opening(Stub("one")))
    await get(server, "/one/fail")
    logged = "".join(capfd.readouterr())
    assert "RuntimeError" in logged
    for words in ("nobody may see", "/one", "127.0.0.1"):
        assert words not in logged


async def test_no_answer_names_the_software(nursery: trio.Nursery) -> None:
    server = await start_server(nursery, opening(Stub()))
    assert "server" not in (await get(server, "/livez")).headers


@pytest.mark.parametrize(
    ("path", "status"), [(b"/one/socket", b"101"), (b"/two/socket", b"101"), (b"/one", b"403"), (b"/", b"403")]
)
async def test_a_websocket_is_found_by_its_exact_path(nursery: trio.Nursery, path: bytes, status: bytes) -> None:
    server = await start_server(nursery, opening(Stub("one"), Stub("two")))
    answer = await server.exchange(
        b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n" % path
    )
    assert answer.split()[1] == status


async def test_services_are_drained_and_then_closed_in_reverse(nursery: trio.Nursery) -> None:
    one, two = Stub("one"), Stub("two", events=[])
    two.events = one.events
    server = await start_server(nursery, opening(one, two))
    server.stop.set()
    with trio.fail_after(PATIENCE):
        await server.stopped.wait()
    assert one.events == ["open", "open", "drain", "drain", "close", "close"]


async def test_a_service_that_cannot_drain_does_not_stop_the_others(
    nursery: trio.Nursery, capfd: pytest.CaptureFixture[str]
) -> None:
    one, two = Stub("one", trouble="does not drain"), Stub("two")
    server = await start_server(nursery, opening(one, two))
    server.stop.set()
    with trio.fail_after(PATIENCE):
        await server.stopped.wait()
    assert two.events == ["open", "drain", "close"]
    assert "nobody may see" not in "".join(capfd.readouterr())


async def test_an_idle_connection_does_not_hold_up_the_end(nursery: trio.Nursery) -> None:
    server = await start_server(nursery, opening(Stub()))
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as http, await server.connect():
        await http.get(server.url + "/livez")
        server.stop.set()
        with trio.fail_after(PATIENCE / 2):
            await server.stopped.wait()


async def test_after_the_end_nobody_listens(nursery: trio.Nursery) -> None:
    server = await start_server(nursery, opening(Stub()))
    server.stop.set()
    await server.stopped.wait()
    with pytest.raises(OSError, match="connect"):
        await server.connect()


async def test_with_a_certificate_the_server_speaks_tls_and_only_http_1_1(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    cert, key = self_signed(tmp_path)
    settings = HostingSettings(port=0, tls_cert=cert, tls_key=key, public_url="https://localhost")
    server = await start_server(nursery, opening(Stub("one")), settings)
    assert server.url.startswith("https://127.0.0.1:")
    context = ssl.create_default_context(cafile=str(cert))
    context.set_alpn_protocols(["h2", "http/1.1"])
    with trio.fail_after(PATIENCE):
        stream = trio.SSLStream(await server.connect(), context, server_hostname="localhost", https_compatible=True)
        await stream.send_all(b"GET /one HTTP/1.0\r\n\r\n")
        answer = b"".join([piece async for piece in stream])
    assert answer.endswith(b"one")
    assert stream.selected_alpn_protocol() == "http/1.1"
    await stream.aclose()
    assert b"HTTP" not in await server.exchange(b"GET /one HTTP/1.0\r\n\r\n")
