"""The project's server as a process of its own, for tests that need the real thing: started, killed, started again."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


class ServerProcess:
    """`sottovoce-server` on loopback, with its data in `folder`. The port stays the same over restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self._port = 0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and return when it answers."""
        log = (self.folder.parent / f"{self.folder.name}.log").open("a")
        with log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sottovoce_server", "--data", str(self.folder), "--port", str(self._port)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert " ready at " in line, line + self.log()
        self.url = line.split()[-1]
        self._port = int(self.url.rpartition(":")[2])

    def log(self) -> str:
        """Everything it has written to stderr."""
        return (self.folder.parent / f"{self.folder.name}.log").read_text()

    def kill(self) -> None:
        """SIGKILL: no chance to finish anything."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(timeout=30)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
        return code

    def close(self) -> None:
        """Whatever happened, leave nothing running."""
        if self._process is not None:
            self.kill()


@contextlib.contextmanager
def running_server(folder: Path) -> Iterator[ServerProcess]:
    """A server that answers, ended with the block."""
    server = ServerProcess(folder)
    try:
        server.start()
        yield server
    finally:
        server.close()
