"""What no SDK on this machine can do better: a bare fsync, bare commits to an encrypted store, a bare round trip.

Measured in the same run, so that a missed goal says what stops it. Nothing of ours is used here.
"""

import os
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Final

import apsw

#: Bytes of an envelope with a usual text, and so of a row.
ROW: Final = 600
#: Rows of a full commit: a page that was received, or the works that share one.
PAGE: Final = 64


def measure(rounds: int) -> dict[str, float]:
    """Milliseconds: the medians of so many rounds."""
    with tempfile.TemporaryDirectory(prefix="sottovoce-bench-") as folder:
        return {
            "fsync_ms": _fsync(Path(folder) / "bare", rounds),
            "commit_ms": _commit(Path(folder) / "one.db", 1, rounds),
            f"commit_{PAGE}_ms": _commit(Path(folder) / "page.db", PAGE, rounds),
            "loopback_ms": _loopback(rounds),
        }


def _timed(work: Callable[[], object], rounds: int) -> float:
    """Milliseconds of one call: the median."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        taken.append((time.perf_counter() - began) * 1000)
    return median(taken)


def _fsync(path: Path, rounds: int) -> float:
    page = os.urandom(4096)
    with path.open("wb", buffering=0) as file:

        def write() -> None:
            file.write(page)
            os.fsync(file.fileno())

        return _timed(write, rounds)


def _commit(path: Path, rows: int, rounds: int) -> float:
    database = apsw.Connection(str(path))
    try:
        database.pragma("cipher", "chacha20")
        database.pragma("hexkey", os.urandom(32).hex())
        for name, value in (("locking_mode", "exclusive"), ("journal_mode", "wal"), ("synchronous", "full")):
            database.pragma(name, value)
        database.execute("CREATE TABLE envelopes (position INTEGER PRIMARY KEY, body BLOB)")
        bodies = [(os.urandom(ROW),) for _ in range(rows)]

        def commit() -> None:
            database.execute("BEGIN IMMEDIATE")
            database.executemany("INSERT INTO envelopes (body) VALUES (?)", bodies)
            database.execute("COMMIT")

        return _timed(commit, rounds)
    finally:
        database.close()


def _loopback(rounds: int) -> float:
    """An envelope to another thread over a socket, and back."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        echo = Thread(target=_echo, args=(listener,))
        echo.start()
        with socket.create_connection(listener.getsockname()) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def exchange() -> None:
                client.sendall(bytes(ROW))
                left = ROW
                while left:
                    left -= len(client.recv(left))

            taken = _timed(exchange, rounds)
        echo.join()
    return taken


def _echo(listener: socket.socket) -> None:
    client, _ = listener.accept()
    with client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := client.recv(ROW):
            client.sendall(data)
