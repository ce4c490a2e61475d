"""Logs: one JSON object a line on stderr.

No line holds a path, an address, an identifier, a key or a payload: events are fixed sentences, their fields are
counts, reasons and the types and places of errors. Nothing that logs waits for whoever reads stderr, or fails with it.
"""

import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

import structlog
from structlog.typing import FilteringBoundLogger

Level: TypeAlias = Literal["debug", "info", "warning", "error"]

_STDERR: Final = 2
#: Lines that wait to be written; beyond that they are dropped.
_WAITING_LINES: Final = 1000
#: Seconds between two lines about an event that peers can cause at will.
_RARELY: Final = 60.0

#: The logger of every server module.
log: Final[FilteringBoundLogger] = structlog.get_logger()


class Sink:
    """A file to write whole lines to, whose `write` returns at once and never raises.

    A thread of its own writes them. Lines that come while `capacity` others wait, or that cannot be written, are
    dropped; how many were is said in a line of its own once one gets through again.
    """

    def __init__(self, descriptor: int, capacity: int = _WAITING_LINES) -> None:
        self._descriptor = descriptor
        self._waiting: queue.Queue[str | threading.Event] = queue.Queue(capacity)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._dropped = 0

    def write(self, line: str) -> None:
        """Have the line written, sooner or later or never."""
        self._start()
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self._drop(1)

    def flush(self, seconds: float = 0) -> None:
        """Wait until everything before has been written, for at most that long."""
        end, done = time.monotonic() + seconds, threading.Event()
        if seconds <= 0 or self._thread is None:
            return
        try:
            self._waiting.put(done, timeout=seconds)
        except queue.Full:
            return
        done.wait(max(0, end - time.monotonic()))

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            item = self._waiting.get()
            if isinstance(item, threading.Event):
                item.set()
            elif not self._put(item):
                self._drop(1)
            else:
                self._confess()

    def _put(self, line: str) -> bool:
        """Write to the descriptor itself: a thread that hangs in `sys.stderr` would keep the process from ending."""
        data = line.encode("utf-8", "replace")
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            return False
        return True

    def _drop(self, lines: int) -> None:
        with self._lock:
            self._dropped += lines

    def _confess(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            line = {"event": "log lines were dropped", "count": dropped, "level": "warning", "timestamp": _now()}
            if not self._put(json.dumps(line) + "\n"):
                self._drop(dropped)


#: Where all lines go. Without a stderr its descriptor may be anybody's, even a database's: nothing is written then.
stderr: Final = Sink(_STDERR if sys.__stderr__ is not None else -1)


class Rare:
    """An event that peers can cause at will: a line at most once a minute, with how often it happened since the last.

    `clock` gives seconds.
    """

    def __init__(self, event: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._event = event
        self._clock = clock
        self._count = 0
        self._next = float("-inf")

    def note(self, **fields: Any) -> None:
        """Count one, and write the line if it is time; `fields` are of this one."""
        self._count += 1
        now = self._clock()
        if now >= self._next:
            log.info(self._event, count=self._count, **fields)
            self._count, self._next = 0, now + _RARELY


def _now() -> str:
    return datetime.now(UTC).isoformat()


def configure(level: Level) -> None:
    """Send the log to stderr from `level` up, and what libraries log from warnings up."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=stderr),  # type: ignore[arg-type] # all of a file that it uses
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_LibraryHandler()], force=True)


class _LibraryHandler(logging.Handler):
    """Libraries put what they please into their texts: only who logged, and the type of the error, is kept."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[0] if record.exc_info else None
        line = {
            "event": "a library reported",
            "library": record.name,
            "error": error.__name__ if error else None,
            "level": record.levelname.lower(),
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
        }
        stderr.write(json.dumps(line) + "\n")
