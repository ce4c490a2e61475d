"""A running process is found by what its command line names, and one that ends meanwhile is no error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import processes_of


def test_a_process_is_found_while_it_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "input(print('here', flush=True) or '')", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # before it speaks, the system may not know its command line yet
        assert [line.count(str(tmp_path)) for line in processes_of(tmp_path)] == [1]
        process.communicate(b"\n")
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize("ended", [FileNotFoundError, ProcessLookupError])
def test_a_process_that_ends_while_it_is_looked_at_is_not_running(
    monkeypatch: pytest.MonkeyPatch, ended: type[OSError]
) -> None:
    own = Path(f"/proc/{os.getpid()}/cmdline")
    program = Path(own.read_bytes().split(b"\0")[0].decode())
    assert processes_of(program) != []

    def read_bytes(path: Path) -> bytes:
        if path == own:
            raise ended
        return b""

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", read_bytes)
        assert processes_of(program) == []
