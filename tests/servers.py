"""The project's server as a process of its own, for tests that need the real thing: started, killed, started again."""

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


class ServerProcess:
    """`sottovoce-server` on loopback, with its data in `folder`. The port stays the same over restarts.

    A socket that does not listen keeps the port meanwhile: nobody else is given it while the server is away.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self._port = socket.socket()
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port.bind(("127.0.0.1", 0))
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and return when it answers."""
        port = str(self._port.getsockname()[1])
        log = (self.folder.parent / f"{self.folder.name}.log").open("a")
        with log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sottovoce_server", "--data", str(self.folder), "--port", port],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert " ready at " in line, line + self.log()
        self.url = line.split()[-1]

    def log(self) -> str:
        """Everything it has written to stderr."""
        return (self.folder.parent / f"{self.folder.name}.log").read_text()

    def freeze(self) -> None:
        """SIGSTOP: it answers nothing any more, and keeps its connections."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

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
        self._port.close()


@contextlib.contextmanager
def running_server(folder: Path) -> Iterator[ServerProcess]:
    """A server that answers, ended with the block."""
    server = ServerProcess(folder)
    try:
        server.start()
        yield server
    finally:
        server.close()
