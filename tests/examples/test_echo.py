"""The echo bot, killed with a message in hand and started again."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from sottovoce import open_client
from tests.servers import running_server

BOT = Path(__file__).parents[2] / "examples" / "echo.py"


@contextmanager
def running_bot(folder: Path, server: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, BOT, "echo", server], cwd=folder, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "echo echoes\n"
            yield process
        finally:
            process.kill()


async def test_the_bot_answers_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    with running_server(tmp_path / "server") as server:
        async with open_client(tmp_path / "person.db", server=server.url) as person:
            await person.register("person")
            with running_bot(tmp_path, server.url):
                await person.send("echo", "one")
                answers = person.messages()
                with trio.fail_after(60):
                    assert (await anext(answers)).text == "one"
            await person.send("echo", "two")
            with running_bot(tmp_path, server.url), trio.fail_after(60):
                heard = [await anext(answers)]
                while heard[-1].text != "two":  # "one" once more, if the kill came before it counted as handled
                    heard.append(await anext(answers))
            assert {message.text for message in heard[:-1]} <= {"one"}
