"""A world whose clock the test moves: the server's process reads it from a file, the clients in the test's own run are
told.

Waiting is as ever: only what time it is changes.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from sottovoce_hosting.testing import server_process
from tests.relay_clients import UNLIMITED

#: `sottovoce-server`, with a clock that is ahead by the seconds in the file that comes first.
_SERVER: Final = """
import sys, time
from pathlib import Path
file, genuine = Path(sys.argv.pop(1)), time.time
time.time = lambda: genuine() + int(file.read_text())
from sottovoce_server import main
main()
"""


@dataclass
class World:
    """A server, and how many seconds it and the clients in this process are ahead."""

    url: str
    ahead: int
    _file: Path

    def set(self, ahead: int) -> None:
        """Move the clock, never back."""
        assert ahead >= self.ahead
        new = self._file.with_suffix(".new")
        new.write_text(str(ahead))
        new.replace(self._file)
        self.ahead = ahead


@contextmanager
def timed_world(folder: Path) -> Iterator[World]:
    """A server and clients whose clock can be moved while the block runs."""
    file, genuine = folder / "ahead", time.time_ns
    file.write_text("0")
    command = [sys.executable, "-c", _SERVER, str(file), "--data", str(folder / "server"), "--port", "0"]
    with server_process(command, **{**UNLIMITED, "SOTTOVOCE_SERVER_LOG_LEVEL": "warning"}) as server:
        world = World(server.url, 0, file)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(time, "time_ns", lambda: genuine() + world.ahead * 10**9)
            yield world
