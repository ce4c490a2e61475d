"""Starts an example as a person would, in a folder of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 60.0


def run(name: str, *arguments: str, folder: Path, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run one to its end, with this on standard input."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(
        command, cwd=folder, input=text, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@contextmanager
def running(name: str, *arguments: str, folder: Path, ready: str) -> Iterator[subprocess.Popen[str]]:
    """One that runs until the block ends, and is killed then. `ready` is the first line it prints."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{ready}\n"
            yield process
        finally:
            process.kill()
