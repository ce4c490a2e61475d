"""Servers are measured from outside, and ended with all that they started."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import servers
from benchmarks.servers import Server, is_in_memory, process, python_server
from benchmarks.wire import BenchError
from tests.benchmarks.loops import run

#: Says when it runs, and goes on when it is told to end.
STUBBORN = ["sh", "-c", "trap : TERM; echo up; while :; do sleep 0.01; done"]


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_process_that_does_not_end_is_ended_even_while_the_bench_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_STOP_SECONDS", 0.1)
    sent: list[int] = []
    killpg, told = os.killpg, asyncio.Event()

    def note(pid: int, number: int) -> None:
        sent.append(number)
        told.set()
        killpg(pid, number)

    monkeypatch.setattr(os, "killpg", note)
    started: list[asyncio.subprocess.Process] = []

    async def work() -> None:
        async with process(STUBBORN, tmp_path, {}, asyncio.subprocess.PIPE) as stubborn:
            started.append(stubborn)
            assert stubborn.stdout is not None
            assert await stubborn.stdout.readline() == b"up\n"

    async def interrupt() -> None:
        task = asyncio.ensure_future(work())
        await told.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sent == [signal.SIGTERM, signal.SIGKILL]
        (stubborn,) = started
        assert not is_running(stubborn.pid)

    run(interrupt())


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    async def work() -> None:
        with pytest.raises(BenchError, match="did not start: no port left"):
            async with python_server("import sys; sys.exit('no port left')", folder=tmp_path):
                pass

    run(work())


def test_what_a_process_uses_and_writes_is_seen(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; data = bytearray(os.urandom(2**25))\n"
        "with open(sys.argv[1], 'wb') as file: file.write(data); os.fsync(file.fileno())\n"
        "while time.process_time() < 0.2: pass\n"
        "print('done', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "file"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"done\n"
        server = Server(worker.pid, "")
        assert server.processor_seconds >= 0.15
        assert server.resident_bytes > 2**25
        if not is_in_memory(str(tmp_path)):
            assert server.written_bytes >= 2**25


def test_folders_in_memory_are_told_from_folders_on_a_disk(tmp_path: Path) -> None:
    if os.access("/dev/shm", os.W_OK):  # noqa: S108 - it is the example
        assert is_in_memory("/dev/shm")  # noqa: S108
    assert not is_in_memory("/proc")
