"""A server as a process: signals, the line that says it is ready, and exits that say in one line what is wrong.

Exit codes: 0 after SIGTERM or SIGINT, 1 when the server cannot start or go on. Never a traceback.
"""

import gc
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Final

import trio

from .database import DatabaseError
from .errors import StartError, leaves, name_of, place_of
from .lockfile import LockHeld
from .logs import configure, stderr
from .serving import OpenServices, serve
from .settings import HostingSettings

#: Seconds that the end waits for whoever reads the log.
_LAST_WORDS: Final = 1.0
#: Seconds after which a thread that computes lets another go on. Python's own 5 ms are what connections would wait
#: whenever a database thread builds a page, and the other way round.
_SWITCH_SECONDS: Final = 0.0005
#: New objects between two looks for garbage, and young looks between older ones. Python's own 700 and 10 take a quarter
#: of the time of a process that makes some dozen objects for every message and hardly a cycle.
_GARBAGE: Final = (20_000, 10, 5)
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def run(name: str, open_services: OpenServices, settings: HostingSettings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. A second signal ends the process at once.

    Prints `name: ready at http://127.0.0.1:8480` to stdout when connections are answered, and on a line below where the
    data is: a server that was started in another folder begins with none.
    """
    configure(settings.log_level)
    _tune()
    try:
        trio.run(_serve_until_signalled, name, open_services, settings)
    except Exception as error:  # whatever it is, the person gets one line
        say(name, reason(error))
        return 1
    finally:
        stderr.flush(_LAST_WORDS)
    return 0


def _tune() -> None:
    """Set what Python leaves to each process for one that serves many connections."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.set_threshold(*_GARBAGE)
    gc.freeze()  # what is imported stays: no need to look at it again


def say(name: str, text: str) -> None:
    """Print one line about the whole process to stderr, or give up after a second."""
    stderr.write(f"{name}: {text}\n")
    stderr.flush(_LAST_WORDS)


def reason(error: BaseException) -> str:
    """One line for the person who runs the server: what is wrong and what to do."""
    for leaf in leaves(error):
        if isinstance(leaf, StartError | DatabaseError | LockHeld):
            return str(leaf)
        if isinstance(leaf, OSError) and leaf.filename is not None:
            return f"cannot use {leaf.filename}: {leaf.strerror}"
    return f"internal error: {name_of(error)} at {place_of(error)}"


async def _serve_until_signalled(name: str, open_services: OpenServices, settings: HostingSettings) -> None:
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(_watch_signals, stop)
        address = await nursery.start(partial(serve, open_services, settings, stop=stop))
        public = f" for clients at {address.origins.main}" if settings.public_url else ""
        lines = [f"ready at {address.url}{public}"]
        if address.metrics is not None:
            lines.append(f"metrics at {address.metrics}")
        lines.append(f"data in {_printable(settings.data.absolute())}")
        sys.stdout.write("".join(f"{name}: {line}\n" for line in lines))
        sys.stdout.flush()


def _printable(path: Path) -> str:
    """One line that stdout takes: a folder may be called anything."""
    encoding = sys.stdout.encoding
    line = "".join(c if c.isprintable() else "?" for c in str(path))
    return line.encode(encoding, "backslashreplace").decode(encoding)


async def _watch_signals(stop: trio.Event, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        task_status.started()
        async for _ in signals:
            break
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # the next one ends the process at once
    stop.set()
