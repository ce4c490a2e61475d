"""The points at which a client process can be killed: every boundary of a transaction, every write to the world.

They are counted from outside, by wrapping; the client has no hooks. For use in a process that may die.
"""

import os
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import apsw

from sottovoce import _http, links
from sottovoce_wire.frames import decode_client_message

#: The end of a transaction that has only read.
NO_COMMIT: Final = "COMMIT of nothing"


class Points:
    """Names the points that are passed, such as `before COMMIT 3`, and ends the process with SIGKILL at the one that is
    `fatal`. By name, since tasks and threads take turns differently each time."""

    def __init__(self, fatal: str, last_words: Callable[[str], None]) -> None:
        self._fatal = fatal
        self._last_words = last_words
        self._times: Counter[str] = Counter()
        self.passed: list[str] = []

    def __call__(self, what: str) -> None:
        self._times[what] += 1
        point = f"{what} {self._times[what]}"
        self.passed.append(point)
        if point == self._fatal:
            self._last_words(point)
            os.kill(os.getpid(), signal.SIGKILL)


def install(points: Points) -> None:
    """Count, from now on, in all of this process."""
    _count_transactions(points)
    _count_frames(points)
    _count_requests(points)


def _count_transactions(points: Points) -> None:
    class Connection(apsw.Connection):
        _changed = 0

        def execute(self, statements: str, *args: Any, **options: Any) -> apsw.Cursor:
            if not statements.startswith(("BEGIN", "COMMIT")):
                return super().execute(statements, *args, **options)
            what = statements.split()[0]
            if what == "COMMIT" and self.total_changes() == self._changed:
                what = NO_COMMIT
            self._changed = self.total_changes()
            points(f"before {what}")
            done = super().execute(statements, *args, **options)
            points(f"after {what}")
            return done

    apsw.Connection = Connection  # type: ignore[misc] # for every store of this process


def _count_frames(points: Points) -> None:
    genuine = links.Link.send

    async def send(self: links.Link, message: bytes) -> None:
        what = type(decode_client_message(message)[0]).__name__
        points(f"before {what}")
        await genuine(self, message)
        points(f"after {what}")

    links.Link.send = send  # type: ignore[method-assign]


def _count_requests(points: Points) -> None:
    genuine = _http.Http.request

    async def request(
        self: _http.Http, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        points(f"before {method} {path}")
        answer = await genuine(self, method, path, body, headers)
        points(f"after {method} {path}")
        return answer

    _http.Http.request = request  # type: ignore[method-assign]
