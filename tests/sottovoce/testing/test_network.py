"""Connections without sockets behave as connections do: they carry messages, end, and lose what is under way."""

from collections.abc import Awaitable, Callable

import pytest
import trio

from sottovoce import errors
from sottovoce.network import Link, Network
from sottovoce.testing import ORIGIN, MemoryNetwork
from sottovoce_wire import directory as wire
from sottovoce_wire import limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import Goodbye, Hello, Ping, Pong, RelayFrame, Welcome, decode_relay_message, message

HELLO = message(Hello([limits.PROTOCOL_VERSION]))


@pytest.fixture
def network(nursery: trio.Nursery) -> MemoryNetwork:
    return MemoryNetwork(nursery)


async def hear(link: Link) -> list[RelayFrame]:
    return decode_relay_message(await link.receive())


def dialled(network: Network, talk: Callable[[Link], Awaitable[None]], origin: str = ORIGIN) -> Awaitable[None]:
    return network.with_link(origin, ORIGIN, talk)


async def test_a_link_carries_messages_both_ways(network: MemoryNetwork) -> None:
    async def talk(link: Link) -> None:
        await link.send(HELLO)
        assert isinstance((await hear(link))[0], Welcome)
        await link.send(message(Ping(5)))
        assert await hear(link) == [Pong(5)]

    await dialled(network.of("alice"), talk)


async def test_each_connection_has_a_nonce_of_its_own(network: MemoryNetwork) -> None:
    nonces = set()

    async def talk(link: Link) -> None:
        await link.send(HELLO)
        (welcome,) = await hear(link)
        assert isinstance(welcome, Welcome)
        nonces.add(welcome.nonce)

    for _ in range(3):
        await dialled(network.of("alice"), talk)
    assert len(nonces) == 3


async def test_goodbye_is_heard_before_the_end(network: MemoryNetwork) -> None:
    async def talk(link: Link) -> None:
        await link.send(message(Ping(1)))
        assert await hear(link) == [Goodbye(Code.UNEXPECTED_FRAME, "Hello comes first, and once")]
        with pytest.raises(errors.ServerUnreachable):
            await link.receive()
        with pytest.raises(errors.ServerUnreachable):
            await link.send(HELLO)

    await dialled(network.of("alice"), talk)


async def test_a_cut_wakes_who_listens_and_takes_what_was_under_way(
    network: MemoryNetwork, nursery: trio.Nursery
) -> None:
    ended = trio.Event()

    async def listen(link: Link) -> None:
        with pytest.raises(errors.ServerUnreachable):
            await link.receive()
        ended.set()

    async def talk(link: Link) -> None:
        await link.send(HELLO)
        network.faults.cut("alice")
        with pytest.raises(errors.ServerUnreachable):
            await link.receive()

    async def bystand(link: Link) -> None:
        await link.send(HELLO)
        await dialled(network.of("alice"), talk)
        assert isinstance((await hear(link))[0], Welcome)
        assert not ended.is_set()
        network.faults.cut()
        await ended.wait()

    nursery.start_soon(dialled, network.of("carol"), listen)
    await trio.testing.wait_all_tasks_blocked()
    await dialled(network.of("bob"), bystand)


async def test_what_talk_raises_comes_through_and_ends_the_connection(network: MemoryNetwork) -> None:
    kept: list[Link] = []

    async def talk(link: Link) -> None:
        kept.append(link)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await dialled(network.of("alice"), talk)
    with pytest.raises(errors.ServerUnreachable):
        await kept[0].send(HELLO)


async def test_there_is_no_other_server(network: MemoryNetwork) -> None:
    async def talk(_: Link) -> None:
        raise AssertionError("nobody is there")

    alice = network.of("alice")
    for origin in ("https://elsewhere.example", "http://127.0.0.1:8480"):
        with pytest.raises(errors.ServerUnreachable):
            await dialled(alice, talk, origin)
        with pytest.raises(errors.ServerUnreachable):
            await alice.http(origin).request("GET", wire.PATH_INFO, b"", {})


async def test_the_keyserver_answers(network: MemoryNetwork) -> None:
    requests = network.of("alice").http(ORIGIN)
    status, body = await requests.request("GET", wire.PATH_INFO, b"", {})
    assert (status, wire.decode(wire.Info, body).relay) == (200, ORIGIN)
    await requests.aclose()
