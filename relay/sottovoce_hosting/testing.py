"""Real servers for tests: on a real loopback socket in the test's own trio run, or as a process of its own.

No server imports this.
"""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from .binding import Address
from .guard import Deadlines
from .service import Origins
from .serving import OpenServices, serve
from .settings import HostingSettings

#: How long a test waits for bytes: far longer than any passing test needs.
PATIENCE: Final = 30.0


@dataclass(frozen=True)
class ServedForTest:
    """A server that answers. `stop` ends it in order; `stopped` is set once it has returned."""

    address: Address
    stop: trio.Event
    stopped: trio.Event

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port`."""
        return self.address.url

    @property
    def origins(self) -> Origins:
        """What signatures for this server may name."""
        return self.address.origins

    async def connect(self) -> trio.SocketStream:
        """A raw connection."""
        return await trio.open_tcp_stream("127.0.0.1", int(self.url.rpartition(":")[2]))

    async def exchange(self, data: bytes) -> bytes:
        """Say this on a connection of its own; returns all that comes back until the server closes it.

        Raises trio.TooSlowError if it stays open for PATIENCE seconds.
        """
        stream = await self.connect()
        with suppress(trio.BrokenResourceError):  # it may be closed already; what was answered is still read
            await stream.send_all(data)
        return await read_until_closed(stream)

    async def is_alive(self) -> bool:
        """Whether a new connection is answered."""
        return (await self.exchange(b"GET /livez HTTP/1.0\r\n\r\n")).endswith(b"live\n")


async def read_until_closed(stream: trio.SocketStream) -> bytes:
    """Everything that comes until the peer closes or resets. Raises trio.TooSlowError after PATIENCE seconds."""
    data = bytearray()
    with trio.fail_after(PATIENCE):
        async with stream:
            try:
                async for piece in stream:
                    data += piece
            except trio.BrokenResourceError:
                pass
    return bytes(data)


async def start_server(
    nursery: trio.Nursery,
    open_services: OpenServices,
    settings: HostingSettings | None = None,
    deadlines: Deadlines | None = None,
) -> ServedForTest:
    """Serve in `nursery` on a free loopback port; returns when connections are answered."""
    stop, stopped = trio.Event(), trio.Event()
    chosen = settings or HostingSettings(port=0)

    async def run(task_status: trio.TaskStatus[Address]) -> None:
        await serve(open_services, chosen, stop=stop, deadlines=deadlines or Deadlines(), task_status=task_status)
        stopped.set()

    return ServedForTest(await nursery.start(run), stop, stopped)


@dataclass(frozen=True)
class ServerProcess:
    """A server in a process of its own that has said it is ready. `ready` is that line."""

    process: subprocess.Popen[str]
    ready: str

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port`."""
        return self.ready.rpartition(" ")[2]

    def wait(self) -> tuple[int, str]:
        """Its exit code, negative for a signal, and what it logged. Raises subprocess.TimeoutExpired."""
        _, logged = self.process.communicate(timeout=2 * PATIENCE)
        return self.process.returncode, logged


def server_command(command: Sequence[str | Path], **environment: str) -> subprocess.Popen[str]:
    """Start a server with these variables besides our own."""
    return subprocess.Popen(  # noqa: S603 - a test's own command
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _first_line(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline() if process.stdout else ""


@contextmanager
def server_process(command: Sequence[str | Path], **environment: str) -> Iterator[ServerProcess]:
    """Start a server and wait until it is ready; killed at the end if it still runs."""
    process = server_command(command, **environment)
    with process:
        try:
            yield ServerProcess(process, _first_line(process).rstrip())
        finally:
            process.kill()
