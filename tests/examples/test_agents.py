"""The two agents: a draft goes to and fro until it is released, although one of them is killed meanwhile."""

from pathlib import Path

from sottovoce import sync
from tests.examples.programs import PATIENCE, run, running
from tests.servers import ServerProcess


def test_the_writer_prints_what_the_critic_released(server: ServerProcess, tmp_path: Path) -> None:
    with running("agents.py", "critic", "--server", server.url, folder=tmp_path, ready="the critic reads"):
        done = run("agents.py", "writer", "critic", "hello  world", "--server", server.url, folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "Hello world.\n")


def test_a_critic_outlives_nonsense_and_a_kill(server: ServerProcess, tmp_path: Path) -> None:
    start = ("agents.py", "critic", "--server", server.url)
    with running(*start, folder=tmp_path, ready="the critic reads"):
        pass
    with sync.open_client(tmp_path / "person.db", server=server.url) as person:
        person.register("person")
        for text in ("nonsense", '{"review": 1}', "[" * 40_000, '{"review": "Fine."}'):
            person.send("critic", text)
        with running(*start, folder=tmp_path, ready="the critic reads"):
            assert next(person.messages(timeout=PATIENCE)).text == '{"release": "Fine."}'
