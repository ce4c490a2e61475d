"""A program that uses the SDK, as a process of its own: it does what its standard input says, line by line.

Only what the package publishes is called here. A text begins with the time at which it was handed to `send`, which both
processes read off one clock.
"""

import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, TypeAlias

import trio

from sottovoce import Client, Message, open_client

#: Bytes of a text, most of it filling.
TEXT: Final = 200

Order: TypeAlias = Callable[..., Awaitable[Any]]


class Program:
    """One client, and the orders that it takes: each a method's name and its arguments; the answer is what it returns.
    Times are seconds of the clock that all processes of this machine share."""

    def __init__(self, path: Path, server: str) -> None:
        self._path = path
        self._server = server
        self._stack = AsyncExitStack()
        self._client: Client
        self._messages: AsyncIterator[Message]

    @property
    def orders(self) -> dict[str, Order]:
        """What can be asked of it."""
        every = self.open, self.close, self.register, self.listen, self.send, self.pour, self.take, self.take_pages
        return {order.__name__: order for order in every}

    async def open(self) -> float:
        """Open the client; how long that took."""
        began = time.monotonic()
        opened = open_client(self._path, server=self._server, accept_everyone=True)
        self._client = await self._stack.enter_async_context(opened)
        return time.monotonic() - began

    async def close(self) -> None:
        """Close it, if it is open."""
        await self._stack.aclose()

    async def register(self, name: str) -> str:
        """Make the account; its id."""
        await self._client.register(name)
        return self._client.account_id or ""

    async def listen(self) -> None:
        """Begin to iterate."""
        self._messages = self._client.messages()

    async def send(self, to: str) -> None:
        """Send one message, until the relay has accepted it."""
        await (await self._client.send(to, _stamped())).wait_sent()

    async def pour(self, to: str, count: int, tasks: int) -> tuple[float, float]:
        """Send so many messages from so many tasks, until the relay has accepted all. When it began, and ended."""
        began = time.monotonic()
        left = iter(range(count))

        async def send_some() -> None:
            for _ in left:
                sent = await self._client.send(to, _stamped())
            await sent.wait_sent()

        async with trio.open_nursery() as nursery:
            for _ in range(min(tasks, count)):
                nursery.start_soon(send_some)
        return began, time.monotonic()

    async def take(self, count: int) -> tuple[float, float]:
        """Read so many messages: when the last was sent, and when it was there."""
        for _ in range(count):
            message = await anext(self._messages)
        ended = time.monotonic()
        await message.mark_handled()
        return float(message.text.split()[0]), ended

    async def take_pages(self, count: int) -> float:
        """Read so many messages, a page at a time: when the last was there."""
        pages = self._client.pages()
        while count > 0:
            page = await anext(pages)
            count -= len(page)
        ended = time.monotonic()
        for message in page:
            await message.mark_handled()
        return ended


def _stamped() -> str:
    return f"{time.monotonic()} ".ljust(TEXT, ".")


async def _obey(program: Program) -> None:
    orders = program.orders
    try:
        async for line in trio.wrap_file(sys.stdin):
            name, *arguments = json.loads(line)
            answer = await orders[name](*arguments)
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
    finally:
        await program.close()


def main() -> None:
    """Run until standard input ends: arguments are the store's path and the server's address."""
    trio.run(_obey, Program(Path(sys.argv[1]), sys.argv[2]))
