"""Ending well: a signal ends the measuring, and what was started goes with it."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Final

try:
    from uvloop import Loop
except ImportError:  # scripts/bench installs it; the tests do without
    from asyncio import SelectorEventLoop as Loop

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_until_signal(work: Callable[[], Awaitable[None]]) -> int:
    """Run `work` to its end, or until a signal cancels it; the signal's number, or 0."""
    received = 0

    async def measure() -> None:
        task = asyncio.current_task()

        def end(number: int) -> None:
            nonlocal received
            if not received and task is not None:
                task.cancel()
            received = number

        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, end, number)
        await work()

    try:
        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(measure())
    except asyncio.CancelledError:
        pass
    return received
