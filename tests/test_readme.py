"""The README's program is run as it is printed, against a real server."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import running_server

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
README = (ROOT / "README.md").read_text("utf-8")
PRINTED_ADDRESS = "http://127.0.0.1:8480"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server of our own, on a free port."""
    with running_server(tmp_path / "server") as running:
        yield running.url


def program() -> str:
    """The one block of Python that opens a client."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (block,) = [block for block in blocks if "open_client" in block]
    return block


def sottovoce(server: str, store: Path, *arguments: str) -> str:
    return subprocess.run(
        [BIN / "sottovoce", "--server", server, "--store", store, *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout


def test_the_program_has_at_most_ten_lines() -> None:
    assert len([line for line in program().splitlines() if line]) <= 10


def test_the_program_greets_prints_what_it_hears_and_answers(server: str, tmp_path: Path) -> None:
    """Only the address is changed. Bob is there before, says something, and hears the greeting and the answer."""
    assert program().count(PRINTED_ADDRESS) == 1
    bob = tmp_path / "bob.db"
    sottovoce(server, bob, "register", "bob")
    with subprocess.Popen(
        [sys.executable, "-c", program().replace(PRINTED_ADDRESS, server)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as alice:
        try:
            assert alice.stdout is not None
            greeting = json.loads(sottovoce(server, bob, "listen", "--json", "--count", "1"))
            sottovoce(server, bob, "send", "alice", "hello yourself")
            printed = alice.stdout.readline().strip()
            answer = json.loads(sottovoce(server, bob, "listen", "--json", "--count", "1"))
        finally:
            alice.terminate()
            alice.wait(timeout=30)
    assert (greeting["text"], answer["text"]) == ("hello", "heard you")
    assert greeting["sender"] == answer["sender"]
    assert printed == "bob hello yourself"
