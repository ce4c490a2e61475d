"""The command's answers to a person who got something wrong."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--port", "0", "--host", "0.0.0.0"], "public URL"),  # noqa: S104 - that it is refused is the point
        (["--public-url", "chat.example"], "public_url"),
        (["--port", "99999"], "port"),
        (["--config", "missing.toml"], "cannot read missing.toml"),
    ],
)
def test_a_relay_that_cannot_start_says_why_in_one_line(tmp_path: Path, arguments: list[str], word: str) -> None:
    command = [sys.executable, "-c", "from sottovoce_relay.cli import main; main()", "serve"]
    done = subprocess.run(
        [*command, "--data", str(tmp_path), *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("sottovoce-relay: ")
    assert word in done.stderr
