"""Servers as processes of their own: started in a folder, looked at from outside (/proc), ended whatever happens.

Nothing here knows what a server does.
"""

import asyncio
import gc
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .wire import BenchError

ROOT: Final = Path(__file__).parents[1]
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0


@dataclass
class Spent:
    """What a piece of work took, in seconds: on the clock, of the server's processors, and of the generator's."""

    elapsed: float = 0.0
    server: float = 0.0
    generator: float = 0.0


@dataclass(frozen=True)
class Server:
    """A running server. `url` is where it answers."""

    pid: int
    url: str

    @property
    def processor_seconds(self) -> float:
        """What its process and its threads have used, in user and kernel mode."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    @property
    def resident_bytes(self) -> int:
        """Its resident memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * resource.getpagesize()

    @property
    def written_bytes(self) -> int:
        """What it has given to the disk, in whole pages."""
        return int(_field(Path(f"/proc/{self.pid}/io").read_text(), "write_bytes"))

    @contextmanager
    def measured(self) -> Iterator[Spent]:
        """Fills in what the block took. Meanwhile the generator collects no garbage: its pauses would be measured."""
        spent = Spent()
        gc.collect()
        gc.disable()
        try:
            server, generator, began = self.processor_seconds, time.process_time(), time.perf_counter()
            yield spent
            spent.elapsed = time.perf_counter() - began
            spent.generator = time.process_time() - generator
            spent.server = self.processor_seconds - server
        finally:
            gc.enable()


def _field(text: str, name: str) -> str:
    return next(line.partition(":")[2] for line in text.splitlines() if line.startswith(f"{name}:"))


def is_in_memory(folder: str) -> bool:
    """Whether the folder's files are kept in memory, where a commit costs nothing and no figure means anything."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    inside = [(point, kind) for point, kind in mounts if Path(folder).resolve().is_relative_to(point)]
    return max(inside, key=lambda mount: len(mount[0]))[1] in ("tmpfs", "ramfs")


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@asynccontextmanager
async def python_server(code: str, *arguments: str, folder: Path, **environment: str) -> AsyncIterator[Server]:
    """A server of this project, that says `ready at URL`: `code` runs it. Raises BenchError if it does not start."""
    command = [sys.executable, "-c", code, *arguments]
    async with process(command, folder, environment, asyncio.subprocess.PIPE, ROOT) as started:
        if started.stdout is None:
            raise BenchError("no output")
        async with asyncio.timeout(_START_SECONDS):
            line = (await started.stdout.readline()).decode()
        if " ready at " not in line:
            raise BenchError(f"the server did not start: {(folder / 'log').read_text().strip()[-500:]}")
        yield Server(started.pid, line.split()[-1])


@asynccontextmanager
async def process(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    stdout: int = asyncio.subprocess.DEVNULL,
    cwd: Path | None = None,
    stdin: int = asyncio.subprocess.DEVNULL,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command in `folder`, its errors in `folder/log`, in a session of its own that is ended with the block."""
    with (folder / "log").open("ab") as log:
        started = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd or folder,
            env={**os.environ, **environment},
            stdin=stdin,
            stdout=stdout,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        await _whatever_happens(_end(started))


async def until_it_listens(started: asyncio.subprocess.Process, port: int) -> None:
    """Wait for a server that does not say when it is ready. Raises BenchError if it ends instead."""
    async with asyncio.timeout(_START_SECONDS):
        while started.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
    raise BenchError(f"it ended with {started.returncode}")


async def _whatever_happens(work: Coroutine[Any, Any, None]) -> None:
    """Await it to its end, also if this task is cancelled meanwhile: what follows relies on it."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


async def _end(started: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await started.wait()
    except TimeoutError:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        await started.wait()
