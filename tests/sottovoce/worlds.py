"""What the tests of the client do in a world of `sottovoce.testing`: read, wait, make people acquainted."""

from collections.abc import Callable
from typing import TypeVar

import pytest
import trio

from sottovoce import Client
from sottovoce.store.database import Tables
from sottovoce.testing import World
from sottovoce.testing.fixtures import sottovoce_world as sottovoce_world

T = TypeVar("T")
#: Seconds of the world's time, which costs none.
PATIENCE = 600


@pytest.fixture
def world(sottovoce_world: World) -> World:
    """The kit's fixture under a shorter name. Nothing takes time where a test asks for `autojump_clock` too."""
    return sottovoce_world


@pytest.fixture
async def alice(world: World) -> Client:
    return await world.person("alice", accept_everyone=True)


@pytest.fixture
async def bob(world: World) -> Client:
    return await world.person("bob", accept_everyone=True)


async def texts(client: Client, count: int) -> list[str]:
    """The next texts, which all count as handled."""
    found: list[str] = []
    with trio.fail_after(PATIENCE):
        async for message in client.messages():
            found.append(message.text)
            await message.mark_handled()
            if len(found) == count:
                break
    return found


async def acquaint(one: Client, other: Client) -> None:
    """Let both write, so that everything from now on is an ordinary message, and no receipt is owed."""
    for writer, reader, text in ((one, other, "hello"), (other, one, "hello yourself")):
        assert reader.username is not None
        sent = await writer.send(reader.username, text)
        assert await texts(reader, 1) == [text]
        await until(sent.wait_read)
    await trio.sleep(PATIENCE)


async def until(waiting: Callable[[], object]) -> None:
    """Wait for something that must come."""
    with trio.fail_after(PATIENCE):
        await waiting()  # type: ignore[misc]


async def look(client: Client, work: Callable[[Tables], T]) -> T:
    """What the client's store says."""
    return await client._local.transact(work)
