"""The README's program is run as it is printed, against a real server, and its page on hosting is followed."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sottovoce_hosting.testing import server_process
from tests.servers import running_server

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
README = (ROOT / "README.md").read_text("utf-8")
PRINTED_ADDRESS = "http://127.0.0.1:8480"
DATABASES = ("relay", "keyserver")


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


def hosting(language: str) -> list[str]:
    """The blocks in this language of the section on hosting."""
    section = README.partition("## Host it")[2].partition("\n## ")[0]
    return [text for name, text in re.findall(r"```(\w*)\n(.*?)```", section, re.DOTALL) if name == language]


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
            greeting = json.loads(sottovoce(server, bob, "listen", "--accept-everyone", "--json", "--count", "1"))
            sottovoce(server, bob, "send", "alice", "hello yourself")
            printed = alice.stdout.readline().strip()
            answer = json.loads(sottovoce(server, bob, "listen", "--accept-everyone", "--json", "--count", "1"))
        finally:
            alice.terminate()
            alice.wait(timeout=30)
    assert (greeting["text"], answer["text"]) == ("hello", "heard you")
    assert greeting["sender"] == answer["sender"]
    assert printed == "bob hello yourself"


def test_the_page_on_hosting_is_followed_with_its_own_file(tmp_path: Path) -> None:
    """Every line as it stands there; only the ports are others, and variables say so."""
    (tmp_path / "sottovoce.toml").write_text(hosting("toml")[0])
    (commands,) = [block for block in hosting("") if "config check" in block]
    *before, serve = commands.splitlines()
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    for line in before:
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=tmp_path,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == "", line
    free = {"SOTTOVOCE_SERVER_PORT": "0", "SOTTOVOCE_SERVER_METRICS_PORT": "0"}
    with server_process(["sh", "-c", f"cd '{tmp_path}' && exec {serve}"], PATH=path, **free) as started:
        assert started.ready.endswith(" for clients at https://chat.example")
        assert started.process.stdout is not None
        assert "metrics at http://127.0.0.1:" in started.process.stdout.readline()
        assert {path.name for path in (tmp_path / "sottovoce-data").glob("*.db")} == {"relay.db", "keyserver.db"}
        started.process.send_signal(signal.SIGTERM)
        assert started.wait() == (0, "")


def test_a_backup_is_made_and_put_back_as_the_page_says(tmp_path: Path) -> None:
    """What copying is like beside a running server, the tests of the hosting package show."""
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    copying, putting_back = [block for block in hosting("") if " db " in block]
    followed = subprocess.run(
        ["sh", "-e", "-c", "sottovoce-server db upgrade\n" + copying + putting_back],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert followed[-4:-2] == [f"backup/{name}.db is a copy of sottovoce-data/{name}.db" for name in DATABASES]
    assert [line.split(":")[0] for line in followed[-2:]] == [
        f"sottovoce-data/{name}.db is ready" for name in DATABASES
    ]
    assert {"backup", "sottovoce-data", "sottovoce-data-before"} == {each.name for each in tmp_path.iterdir()}


def test_the_two_servers_apart_start_as_the_page_says(tmp_path: Path) -> None:
    (commands,) = [block for block in hosting("") if "sottovoce-relay" in block]
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    for line in commands.splitlines():
        assert "--port 848" in line
        anywhere = re.sub("--port [0-9]+", "--port 0", line)
        with server_process(["sh", "-c", f"cd '{tmp_path}' && exec {anywhere}"], PATH=path) as started:
            assert " ready at http://127.0.0.1:" in started.ready
    assert {path.name for path in tmp_path.iterdir()} == {"relay-data", "keyserver-data"}
