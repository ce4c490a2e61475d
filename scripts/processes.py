"""Ending well: what the scripts share so that nothing they start outlives them, however they are ended themselves."""

import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import trio

_PATIENCE: Final = 5.0


def run_to_the_end(main: Callable[[], Awaitable[int]]) -> int:
    """Run `main` under trio; its result is the exit code. SIGINT, SIGTERM and SIGHUP cancel it: then 128 + signal."""
    return trio.run(_until_signal, main)


async def _until_signal(main: Callable[[], Awaitable[int]]) -> int:
    code = 0

    async def watch() -> None:
        nonlocal code
        async for number in signals:
            code = 128 + number
            nursery.cancel_scope.cancel()

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            code = await main()
            nursery.cancel_scope.cancel()
    return code


async def end_session(process: trio.Process) -> None:
    """For `trio.run_process(deliver_cancel=…, start_new_session=True)`: end the process and all that it started.

    SIGINT lets pytest and the servers of its tests unwind; SIGKILL takes what is left.
    """
    try:
        _signal_session(process, signal.SIGINT)
        await trio.sleep(_PATIENCE)  # cancelled as soon as the process has ended
    finally:
        _signal_session(process, signal.SIGKILL)


def _signal_session(process: trio.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
