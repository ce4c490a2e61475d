"""What no relay on this machine and this stack can do better: bare commits with fsync, a bare backlog, a bare echo.

Measured in the same run as the relay, so that a missed goal says what stops it. Nothing of the relay is used here.
"""

import asyncio
import os
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from statistics import median, quantiles
from threading import Thread
from typing import Final

from .client import BODY
from .outcome import Outcome
from .servers import Server, Spent, python_server
from .wire import Wire, dial, framed

#: What the echo says to each message: as much as a result of a Send.
ANSWER: Final = bytes(20)
#: Rows of 1 KiB in one commit.
COMMITS: Final = (1, 64, 256)
#: A backlog: rows of 1 KiB in twenty queues, read by pages and deleted by transactions as the relay does.
_QUEUES: Final = 20
_PAGE: Final = 256
_DELETED: Final = 2048
_BACKLOG: Final = """
    PRAGMA page_size=8192; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA secure_delete=ON;
    PRAGMA wal_autocheckpoint=2048;
    CREATE TABLE envelopes (seq INTEGER PRIMARY KEY, queue INTEGER, name BLOB, expires_at INTEGER, body BLOB);
    CREATE INDEX by_queue ON envelopes (queue, seq);
    CREATE UNIQUE INDEX by_name ON envelopes (queue, name);
    CREATE INDEX by_time ON envelopes (expires_at);
"""
_SERVE: Final = "from benchmarks.echo import main; main()"
_CONNECTIONS: Final = 8
_WINDOW: Final = 100
_ENVELOPE: Final = 1_150  # a Send with one envelope of 1 KiB


class _Echo:
    """One connection to the echo."""

    def __init__(self) -> None:
        self.link: Wire
        self._left = 0
        self._unsent = 0
        self._answered: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._message = framed(os.urandom(_ENVELOPE))

    @classmethod
    async def connect(cls, origin: str) -> "_Echo":
        echo = cls()
        echo.link = await dial(origin, echo._hear)
        return echo

    async def exchange(self, count: int, window: int) -> float:
        """Send so many, at most `window` unanswered. Returns when the last answer came (perf_counter)."""
        self._answered = asyncio.get_running_loop().create_future()
        self._left, self._unsent = count, count
        for _ in range(min(window, count)):
            self._say()
        self.link.flush()
        return await self.link.wait(self._answered)

    def _say(self) -> None:
        self._unsent -= 1
        self.link.say(self._message)

    def _hear(self, data: bytes) -> None:
        answers = len(data) // len(ANSWER)
        self._left -= answers
        for _ in range(min(answers, self._unsent)):
            self._say()
        if self._left == 0:
            self._answered.set_result(time.perf_counter())


async def measure(echoes: int, turns: int, connections: int, commits: int) -> Outcome:
    """So many echoes pipelined and in turn, idle connections, and commits of each size."""
    figures = {f"commit_{rows}_ms": _commit(rows, commits) * 1000 for rows in COMMITS}
    figures["commit_rows_s"] = COMMITS[-1] / figures[f"commit_{COMMITS[-1]}_ms"] * 1000
    figures["backlog_rows_s"] = _backlog(echoes)
    with tempfile.TemporaryDirectory(prefix="sottovoce-bench-") as name:
        async with python_server(_SERVE, folder=Path(name)) as server:
            spent = await _pipelined(server, echoes, figures)
            await _in_turn(server, turns, figures)
            await _idle(server, connections, figures)
    return Outcome(figures, {"bare echo": spent})


def _commit(rows: int, count: int) -> float:
    """Seconds of a commit of so many rows: the median."""
    with (
        tempfile.TemporaryDirectory(prefix="sottovoce-bench-") as folder,
        closing(sqlite3.connect(Path(folder) / "floor.db", isolation_level=None)) as database,
    ):
        database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE envelopes (body BLOB)")
        return median(_timed_commit(database, rows) for _ in range(count))


def _timed_commit(database: sqlite3.Connection, rows: int) -> float:
    bodies = [(os.urandom(BODY),) for _ in range(rows)]
    began = time.perf_counter()
    database.execute("BEGIN IMMEDIATE")
    database.executemany("INSERT INTO envelopes VALUES (?)", bodies)
    database.execute("COMMIT")
    return time.perf_counter() - began


def _backlog(rows: int) -> float:
    """Rows a second, when one thread reads them by pages and another deletes what was read."""
    pages: SimpleQueue[list[int]] = SimpleQueue()
    with (
        tempfile.TemporaryDirectory(prefix="sottovoce-bench-") as folder,
        closing(sqlite3.connect(Path(folder) / "floor.db", isolation_level=None)) as database,
    ):
        database.executescript(_BACKLOG)
        envelopes = ((seq, seq % _QUEUES, os.urandom(16), 2**31, os.urandom(BODY)) for seq in range(rows))
        database.execute("BEGIN")
        database.executemany("INSERT INTO envelopes VALUES (?, ?, ?, ?, ?)", envelopes)
        database.execute("COMMIT")
        began = time.perf_counter()
        reader = Thread(target=_read_backlog, args=(Path(folder) / "floor.db", rows, pages))
        reader.start()
        _delete_backlog(database, rows, pages)
        reader.join()
        return rows / (time.perf_counter() - began)


def _read_backlog(path: Path, rows: int, pages: SimpleQueue[list[int]]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for first in range(0, rows, _QUEUES * _PAGE):
            for queue in range(_QUEUES):
                page = database.execute(
                    "SELECT * FROM envelopes WHERE queue = ? AND seq >= ? AND seq < ? ORDER BY seq",
                    (queue, first, first + _QUEUES * _PAGE),
                )
                pages.put([row[0] for row in page.fetchall()])


def _delete_backlog(database: sqlite3.Connection, rows: int, pages: SimpleQueue[list[int]]) -> None:
    while rows:
        numbers: list[int] = []
        while len(numbers) < min(rows, _DELETED):
            numbers += pages.get()
        rows -= len(numbers)
        database.execute("BEGIN IMMEDIATE")
        database.execute(f"DELETE FROM envelopes WHERE seq IN ({', '.join('?' * len(numbers))})", numbers)  # noqa: S608
        database.execute("COMMIT")


async def _pipelined(server: Server, count: int, figures: dict[str, float]) -> Spent:
    connections = [await _Echo.connect(server.url) for _ in range(_CONNECTIONS)]
    with server.measured() as spent:
        await asyncio.gather(*(echo.exchange(count // _CONNECTIONS, _WINDOW) for echo in connections))
    figures["echo_s"] = count // _CONNECTIONS * _CONNECTIONS / spent.elapsed
    _close(connections)
    return spent


async def _in_turn(server: Server, count: int, figures: dict[str, float]) -> None:
    echo = await _Echo.connect(server.url)
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        taken.append((await echo.exchange(1, 1) - began) * 1000)
    figures["echo_p50_ms"] = median(taken)
    figures["echo_p99_ms"] = quantiles(taken, n=100)[98]
    _close([echo])


async def _idle(server: Server, count: int, figures: dict[str, float]) -> None:
    before = server.resident_bytes
    connections = [await _Echo.connect(server.url) for _ in range(count)]
    for echo in connections:
        await echo.exchange(1, 1)
    figures["echo_idle_kib"] = (server.resident_bytes - before) / count / 1024
    _close(connections)


def _close(connections: Sequence[_Echo]) -> None:
    for echo in connections:
        echo.link.close()
