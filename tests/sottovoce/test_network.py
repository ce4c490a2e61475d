"""The real network: through proxies, and never into private networks that somebody else has named."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import WebSocketConnection

from sottovoce import errors, open_client
from sottovoce.network import Internet, Link
from sottovoce_hosting.settings import HostingSettings
from sottovoce_hosting.testing import start_server
from tests.certificates import self_signed
from tests.servers import ServerProcess
from tests.sottovoce.proxy_servers import proxy_server
from tests.sottovoce.relays import PATIENCE, Talk, relay

HELLO = b"\x91\x92\x01\x91\x01"
ELSEWHERE = "https://chat.example"
proxies = pytest.mark.parametrize("scheme", ["socks5h", "http"])


class Names(trio.abc.HostnameResolver):
    """Looks names up in a table, and remembers which."""

    def __init__(self, **table: str) -> None:
        self.table = table
        self.asked: list[str] = []

    async def getaddrinfo(self, host: bytes | None, port: Any, *_: Any, **__: Any) -> Any:
        name = (host or b"").decode()
        self.asked.append(name)
        addresses = self.table.get(name.replace(".", "_"), "").split()
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port))) for address in addresses]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise AssertionError


@pytest.fixture
def names() -> Names:
    """No name leads anywhere, but where the test says so."""
    return Names()


async def never(_: Link) -> None:
    raise AssertionError


async def answer_hello(talk: Talk) -> None:
    await talk.welcome()


async def say_hello(link: Link) -> None:
    await link.send(HELLO)
    assert await link.receive()


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[int, list[trio.SocketStream]]]:
    """A port of this machine, and who connected to it."""
    visitors: list[trio.SocketStream] = []

    async def note(stream: trio.SocketStream) -> None:
        visitors.append(stream)

    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(partial(trio.serve_tcp, note, 0, host="127.0.0.1"))
        yield listeners[0].socket.getsockname()[1], visitors
        nursery.cancel_scope.cancel()


@proxies
async def test_both_kinds_of_connection_go_through_the_proxy_which_alone_looks_names_up(
    scheme: str, nursery: trio.Nursery, names: Names
) -> None:
    trio.socket.set_custom_hostname_resolver(names)
    server = await start_server(nursery, lambda _: [], HostingSettings(port=0))
    async with proxy_server(scheme) as (proxy, asked), relay(answer_hello) as origin:
        port = int(origin.rpartition(":")[2])
        network = Internet(proxy)
        await network.with_link(f"http://localhost:{port}", f"http://localhost:{port}", say_hello)
        assert asked == [("localhost", port)]
        asked.clear()
        http = network.http(server.url.replace("127.0.0.1", "localhost"))
        assert (await http.request("GET", "/livez", b"", {}))[0] == 200
        await http.aclose()
        assert asked == [("localhost", int(server.url.rpartition(":")[2]))]
    assert names.asked == []
    server.stop.set()


@proxies
async def test_two_people_write_to_each_other_through_a_proxy(
    scheme: str, shared_server: ServerProcess, tmp_path: Path
) -> None:
    port = int(shared_server.url.rpartition(":")[2])
    name = "alice" if scheme == "http" else "anna"
    async with (
        proxy_server(scheme) as (proxy, asked),
        open_client(tmp_path / "a", server=shared_server.url, proxy=proxy) as alice,
        open_client(tmp_path / "b", server=shared_server.url, proxy=proxy, accept_everyone=True) as bob,
    ):
        await alice.register(name)
        await bob.register(f"bob-{name}")
        await alice.send(f"bob-{name}", "hello")
        with trio.fail_after(PATIENCE):
            async for message in bob.messages():
                assert message.text == "hello"
                break
    assert len(asked) >= 5  # each one's owner connection and requests, and a sender's
    assert set(asked) == {("127.0.0.1", port)}


@proxies
async def test_tls_is_spoken_with_the_server_and_not_with_the_proxy(
    scheme: str, nursery: trio.Nursery, tmp_path: Path
) -> None:
    cert, key = self_signed(tmp_path)
    settings = HostingSettings(port=0, tls_cert=cert, tls_key=key, public_url="https://localhost")
    server = await start_server(nursery, lambda _: [], settings)
    origin = server.url.replace("127.0.0.1", "localhost")
    async with proxy_server(scheme) as (proxy, asked):
        network = Internet(proxy)
        with pytest.raises(errors.ServerUnreachable, match=r"certificate of https://localhost:.* is not trusted"):
            await network.with_link(origin, origin, never)
        http = network.http(origin)
        with pytest.raises(errors.ServerUnreachable, match=r"certificate of https://localhost:.* is not trusted"):
            await http.request("GET", "/livez", b"", {})
        await http.aclose()
        assert len(asked) == 2
    server.stop.set()


@proxies
async def test_a_proxy_that_is_not_there_is_named_as_the_reason_and_nobody_is_dialled_directly(scheme: str) -> None:
    network = Internet(f"{scheme}://secret:secret@127.0.0.1:1")
    async with listening() as (port, visitors):
        origin = f"http://127.0.0.1:{port}"
        http = network.http(origin)
        for attempt in (network.with_link(origin, origin, never), http.request("GET", "/", b"", {})):
            with pytest.raises(errors.ServerUnreachable, match="nothing answers at the proxy") as caught:
                await attempt
            assert "secret" not in caught.value.diagnostics()
        await http.aclose()
        assert visitors == []


@proxies
async def test_a_proxy_that_hangs_up_is_named_as_the_reason(scheme: str) -> None:
    async with listening() as (port, _):
        network = Internet(f"{scheme}://127.0.0.1:{port}")
        http = network.http("https://chat.example")
        for attempt in (network.with_link(ELSEWHERE, ELSEWHERE, never), http.request("GET", "/", b"", {})):
            with pytest.raises(errors.ServerUnreachable):
                await attempt
        await http.aclose()


@pytest.mark.parametrize("host", ["127.0.0.1", "10.1.2.3", "[::1]", "printer.local", "[fe80::1]", "localhost"])
async def test_a_private_address_that_somebody_else_names_is_dialled_neither_directly_nor_through_a_proxy(
    host: str, names: Names
) -> None:
    trio.socket.set_custom_hostname_resolver(names)
    async with listening() as (port, visitors), proxy_server("socks5h") as (proxy, asked):
        for network in (Internet(), Internet(proxy)):
            with pytest.raises(errors.ServerUnreachable, match="private network"):
                await network.with_link(f"https://{host}:{port}", ELSEWHERE, never)
        assert (visitors, asked, names.asked) == ([], [], [])


@pytest.mark.parametrize("addresses", ["127.0.0.1", "127.0.0.1 8.8.8.8", "9.9.9.9 127.0.0.1", "169.254.169.254"])
async def test_a_public_name_that_leads_to_a_private_address_is_not_dialled(addresses: str) -> None:
    trio.socket.set_custom_hostname_resolver(Names(relay_example=addresses))
    async with listening() as (port, visitors):
        with pytest.raises(errors.ServerUnreachable, match="private network"):
            await Internet().with_link(f"https://relay.example:{port}", ELSEWHERE, never)
        assert visitors == []


async def test_a_foreign_name_is_looked_up_once_so_that_it_cannot_lead_elsewhere_by_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = Names(relay_example="8.8.8.8 9.9.9.9")
    dialled: list[str] = []

    async def refuse(host: str, _: int) -> trio.SocketStream:
        dialled.append(host)
        raise OSError

    monkeypatch.setattr(trio, "open_tcp_stream", refuse)
    trio.socket.set_custom_hostname_resolver(names)
    with pytest.raises(errors.ServerUnreachable, match="nothing answers"):
        await Internet().with_link("https://relay.example", ELSEWHERE, never)
    assert names.asked == ["relay.example"]
    assert dialled == ["8.8.8.8", "9.9.9.9"]


@pytest.mark.parametrize("_again", range(16))  # which of two tasks goes first is chance
@pytest.mark.parametrize("is_busy", [False, True])
async def test_an_interrupt_in_the_websocket_librarys_own_task_is_not_taken_for_a_lost_connection(
    monkeypatch: pytest.MonkeyPatch, _again: int, is_busy: bool
) -> None:
    handle, was_interrupted = WebSocketConnection._handle_message_event, False

    async def interrupted(socket: WebSocketConnection, event: Any) -> None:
        if socket.is_client:
            nonlocal was_interrupted
            was_interrupted = True
            raise KeyboardInterrupt
        await handle(socket, event)

    async def talk(link: Link) -> None:
        await link.send(HELLO)
        while is_busy and not was_interrupted:
            await trio.lowlevel.checkpoint()
        await link.receive()

    monkeypatch.setattr(WebSocketConnection, "_handle_message_event", interrupted)
    async with relay(answer_hello) as origin:
        with pytest.RaisesGroup(KeyboardInterrupt), trio.fail_after(PATIENCE):
            await Internet(None).with_link(origin, origin, talk)


async def test_ones_own_server_may_be_anywhere(names: Names) -> None:
    names.table["chat_example"] = "127.0.0.1"
    trio.socket.set_custom_hostname_resolver(names)
    async with listening() as (port, visitors):
        own = f"https://chat.example:{port}"
        with pytest.raises(errors.ServerUnreachable):
            await Internet().with_link(own, own, never)
        assert len(visitors) == 1
