"""Runs the bench's asyncio code in a test, with a server beside it if need be.

On asyncio's own loop: where trio-asyncio is imported, asyncio's default is another.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

#: Far longer than a passing test needs.
PATIENCE = 60.0


def run(work: Coroutine[Any, Any, None]) -> None:
    """To its end."""
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(work)


def against(serve: Serve, talk: Callable[[int], Awaitable[None]]) -> None:
    """Run `talk` with the port of a server for one connection; raises what either raises."""

    async def both() -> None:
        served: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            error: Exception | None = None
            try:
                await serve(reader, writer)
                await reader.read()
            except ConnectionError:
                pass  # the client has left
            except Exception as failure:
                error = failure
            writer.close()
            served.set_exception(error) if error else served.set_result(None)

        async with asyncio.timeout(PATIENCE), await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            await talk(server.sockets[0].getsockname()[1])
            await served

    run(both())
