"""The asyncio face against a real server process: tasks, their cancellation, and loops that come and go."""

import asyncio
import gc
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from sottovoce import aio, errors
from tests.servers import ServerProcess

PATIENCE = 60.0
NOWHERE = "http://127.0.0.1:9"


@asynccontextmanager
async def pair(folder: Path, server: ServerProcess, name: str, other: str) -> AsyncIterator[list[aio.Client]]:
    """Two registered clients; whoever writes to them is a contact at once."""
    opened = partial(aio.open_client, server=server.url, accept_everyone=True)
    async with asyncio.timeout(PATIENCE), opened(folder / f"{name}.db") as one, opened(folder / f"{other}.db") as two:
        await one.register(name)
        await two.register(other)
        yield [one, two]


def test_two_people_talk(shared_server: ServerProcess, tmp_path: Path) -> None:
    async def main() -> None:
        async with pair(tmp_path, shared_server, "ada", "adam") as (ada, adam):
            sent = await ada.send("adam", "hello")
            await sent.wait_sent()
            async for message in adam.messages():
                assert (message.id, message.text, message.attempt) == (sent.id, "hello", 1)
                async with message.processing():
                    await message.reply("heard you")
                break
            answer = await anext(ada.messages())
            assert (answer.sender, answer.text) == ("adam", "heard you")
            assert [message.text async for message in adam.messages(timeout=0)] == []
            assert (ada.username, ada.trouble) == ("ada", None)

    asyncio.run(main(), debug=True)


def test_tasks_send_side_by_side(shared_server: ServerProcess, tmp_path: Path) -> None:
    async def main() -> None:
        async with pair(tmp_path, shared_server, "bea", "ben") as (bea, ben):
            words = [f"word {number}" for number in range(20)]
            await asyncio.gather(*(bea.send("ben", word) for word in words))
            found: list[str] = []
            async for message in ben.messages():
                found.append(message.text)
                if len(found) == len(words):
                    break
            assert sorted(found) == sorted(words)

    asyncio.run(main())


def test_a_task_that_is_cancelled_while_it_waits_loses_no_message(shared_server: ServerProcess, tmp_path: Path) -> None:
    """Cancelled at every moment from before the message is under way until after it is here."""

    async def main() -> None:
        async with pair(tmp_path, shared_server, "cleo", "carl") as (cleo, carl):
            for number in range(20):
                waiting = asyncio.ensure_future(anext(carl.messages()))
                await cleo.send("carl", str(number))
                for _ in range(number):
                    await asyncio.sleep(0)
                waiting.cancel()
                result = await asyncio.gather(waiting, return_exceptions=True)
                message = await anext(carl.messages()) if isinstance(result[0], BaseException) else result[0]
                assert isinstance(message, aio.Message)
                assert message.text == str(number)

    asyncio.run(main())


def test_a_timeout_cancels_what_it_surrounds_and_the_client_goes_on(
    shared_server: ServerProcess, tmp_path: Path
) -> None:
    async def main() -> None:
        async with pair(tmp_path, shared_server, "dora", "dino") as (dora, dino):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await anext(dino.messages())
            await dora.send("dino", "still there")
            assert (await anext(dino.messages())).text == "still there"

    asyncio.run(main())


def test_a_block_that_is_cancelled_leaves_the_store_free(tmp_path: Path) -> None:
    opened = partial(aio.open_client, tmp_path / "a.db", server=NOWHERE)

    async def hold(opening: asyncio.Event) -> None:
        async with opened():
            opening.set()
            await asyncio.Event().wait()

    async def main() -> None:
        opening = asyncio.Event()
        holding = asyncio.ensure_future(hold(opening))
        await opening.wait()
        with pytest.raises(errors.StoreInUse):
            await opened().__aenter__()
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        for turns in range(10):  # cancelled while it opens
            holding = asyncio.ensure_future(hold(opening))
            for _ in range(turns):
                await asyncio.sleep(0)
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
        async with opened() as me:
            assert await me.contacts() == []

    asyncio.run(main())


def test_two_loops_on_two_threads_share_the_clients_thread(shared_server: ServerProcess, tmp_path: Path) -> None:
    opened = partial(aio.open_client, server=shared_server.url, accept_everyone=True)

    async def wait_for_a_word() -> str:
        async with asyncio.timeout(PATIENCE), opened(tmp_path / "b.db") as me:
            return (await anext(me.messages())).text

    async def send_a_word() -> None:
        async with asyncio.timeout(PATIENCE), opened(tmp_path / "a.db") as me:
            await me.register("edda")
            await (await me.send("emil", "hello")).wait_sent()

    async def register() -> None:
        async with opened(tmp_path / "b.db") as me:
            await me.register("emil")

    asyncio.run(register())
    with ThreadPoolExecutor(2) as pool:
        heard = pool.submit(asyncio.run, wait_for_a_word())
        pool.submit(asyncio.run, send_a_word()).result(PATIENCE)
        assert heard.result(PATIENCE) == "hello"


def test_a_program_that_drops_its_loop_leaves_nothing_open(tmp_path: Path) -> None:
    async def hold(opening: asyncio.Event) -> None:
        async with aio.open_client(tmp_path / "a.db", server=NOWHERE):
            opening.set()
            await asyncio.Event().wait()

    async def wait_until_free() -> list[object]:
        while True:
            try:
                async with aio.open_client(tmp_path / "a.db", server=NOWHERE) as me:
                    return list(await me.contacts())
            except errors.StoreInUse:
                pass

    loop = asyncio.new_event_loop()
    opening = asyncio.Event()
    holding = hold(opening)
    task = loop.create_task(holding)
    loop.run_until_complete(opening.wait())
    loop.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined] # the complaint of asyncio is deserved
    holding.close()
    del task, holding
    gc.collect()
    assert asyncio.run(wait_until_free()) == []


def test_after_its_block_a_client_says_that_it_is_closed(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open_client(tmp_path / "a.db", server=NOWHERE) as me:
            with pytest.raises(errors.NotRegistered):
                me.messages()
        with pytest.raises(errors.ClientClosed):
            await me.contacts()

    asyncio.run(main())
