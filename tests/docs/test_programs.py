"""The pages' programs and commands, as they are printed, against a real server: only its address is another."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points, metadata
from pathlib import Path

import pytest
import trio

from sottovoce import Client, open_client
from tests.docs.pages import blocks, pages, programs, text_of
from tests.sottovoce.proxy_servers import proxy_server

BIN = Path(sys.executable).parent
PRINTED_ADDRESS = "http://127.0.0.1:8480"
PATIENCE = 60.0

PROGRAMS = {name: text for page in pages() if page != "testing" for name, text in programs(page).items()}


def environment(server: str) -> dict[str, str]:
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    return os.environ | {"PATH": path, "SOTTOVOCE_SERVER": server, "PYTHONWARNINGS": "error"}


@contextmanager
def started(
    name: str, folder: Path, server: str, *arguments: str, printed: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A program of the pages, running in `folder`, with real addresses in the place of printed ones."""
    text = PROGRAMS[name]
    for old, new in (printed or {PRINTED_ADDRESS: server}).items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    (folder / name).write_text(text)
    command = [sys.executable, "-u", name, *arguments]
    with subprocess.Popen(
        command, cwd=folder, env=environment(server), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it has printed when it ends well."""
    printed = await trio.to_thread.run_sync(lambda: process.communicate(timeout=PATIENCE))
    assert process.returncode == 0, printed
    return printed


async def heard(person: Client) -> tuple[str, str]:
    """Who says what next."""
    with trio.fail_after(PATIENCE):
        message = await anext(person.messages())
        return message.sender, message.text


def shell(block: str, folder: Path, server: str) -> str:
    """What the block prints, stopping at the first command that fails."""
    done = subprocess.run(
        ["sh", "-e", "-c", block],
        cwd=folder,
        env=environment(server),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- The quick start ---------------------------------------------------------------------------------------------


def commands(word: str) -> str:
    """The block of the quick start's commands in which this occurs."""
    (found,) = [block.text for block in blocks("quickstart") if not block.language and word in block.text]
    return found


def printed() -> list[str]:
    """What the quick start says that two of them print."""
    return [block.text for block in blocks("quickstart", "text")]


def test_what_is_installed_for_the_quick_start_exists() -> None:
    (extras,) = re.findall(r"pip install '\.\[(.+)\]'", commands("pip install"))
    assert set(extras.split(",")) <= set(metadata("sottovoce").get_all("Provides-Extra") or [])
    assert {"sottovoce", "sottovoce-server"} <= {each.name for each in entry_points(group="console_scripts")}


def test_whoever_follows_the_quick_start_sees_what_it_says(server: str, tmp_path: Path) -> None:
    """Every command in its order; the bot is ended and started again, as the page has the reader do."""
    assert commands("python bot.py") == "python bot.py\n"
    with started("bot.py", tmp_path, server) as bot:
        assert bot.stdout is not None
        assert bot.stdout.readline() == "echo listens\n"
        assert (tmp_path / "bot.db.key").stat().st_mode & 0o077 == 0
        assert shell(commands("register alice"), tmp_path, server).endswith("\n" + printed()[0])
    shell("sottovoce --store alice.db send echo again", tmp_path, server)
    with started("bot.py", tmp_path, server):
        answer = shell("sottovoce --store alice.db listen --count 1", tmp_path, server)
        if answer == "echo: hello\n":  # once more: the end came before it counted as handled
            answer = shell("sottovoce --store alice.db listen --count 1", tmp_path, server)
        assert answer == "echo: again\n"
    told = shell(commands("register bob"), tmp_path, server)
    assert told.endswith("\n" + printed()[1])
    assert "shall we have lunch?" in told.removesuffix(printed()[1]), "the request was not shown"
    shell("sottovoce --store bob.db send alice yes", tmp_path, server)
    assert shell("sottovoce --store alice.db listen --count 1", tmp_path, server).endswith(": yes\n")


def test_the_quick_start_is_short() -> None:
    lines = [line for block in blocks("quickstart") if not block.language for line in block.text.splitlines()]
    assert len(lines) <= 14
    assert len([line for line in PROGRAMS["bot.py"].splitlines() if line]) <= 11


def test_the_first_page_s_program_is_the_readme_s() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    assert PROGRAMS["ten_lines.py"].removeprefix("# ten_lines.py\n") in readme


# --- The faces, and a proxy -----------------------------------------------------------------------------------------


async def test_the_blocking_programs_send_and_answer(server: str, tmp_path: Path) -> None:
    async with open_client(tmp_path / "operator.db", server=server, accept_everyone=True) as operator:
        await operator.register("operator")
        with started("alert.py", tmp_path, server, "disk", "full") as alert:
            assert await ended(alert) == ("", "")
        assert (await heard(operator))[1] == "disk full"


@pytest.mark.parametrize(
    ("program", "name", "greeting", "answer", "farewell"),
    [
        ("desk.py", "desk", "the desk is open", "We have read: hello", "the desk is closed"),
        ("agent.py", "agent", "the agent listens", "HELLO", "the agent leaves"),
        ("watch.py", "watch", "the watch begins", "seen", "the watch ends"),
    ],
)
async def test_the_programs_of_the_faces_answer_until_ctrl_c(
    program: str, name: str, greeting: str, answer: str, farewell: str, server: str, tmp_path: Path
) -> None:
    async with open_client(tmp_path / "person.db", server=server) as person:
        await person.register(f"person.of.{name}")
        with started(program, tmp_path, server) as process:
            assert process.stdout is not None
            assert await trio.to_thread.run_sync(process.stdout.readline) == f"{greeting}\n"
            for _ in range(2):
                await person.send(name, "hello")
                assert await heard(person) == (name, answer)
            process.send_signal(signal.SIGINT)
            assert await ended(process) == (f"{farewell}\n", "")
        async with open_client(tmp_path / f"{name}.db", server=server) as reopened:
            assert reopened.username == name


async def test_the_program_behind_a_proxy_reaches_its_server_through_it_alone(server: str, tmp_path: Path) -> None:
    """The page's other kind of proxy: this server is known by an address, and Tor's would be asked for names."""
    async with open_client(tmp_path / "paper.db", server=server, accept_everyone=True) as paper:
        await paper.register("paper")
        async with proxy_server("http") as (address, asked):
            printed = {"https://chat.example": server, "socks5h://127.0.0.1:9050": address}
            with started("whistle.py", tmp_path, server, printed=printed) as whistle:
                assert await ended(whistle) == ("", "")
        assert (await heard(paper))[1] == "I have something for you"
    assert len(asked) >= 3, "requests, the owner's connection, the sender's"
    assert set(asked) == {("127.0.0.1", int(server.rpartition(":")[2]))}


def test_without_its_proxy_the_program_goes_no_other_way(server: str, tmp_path: Path) -> None:
    [said] = re.findall("ends with `([^`]+)`", " ".join(text_of("proxies").split()))
    printed = {"https://chat.example": server, "socks5h://127.0.0.1:9050": "http://127.0.0.1:1"}
    with started("whistle.py", tmp_path, server, printed=printed) as whistle:
        _, traced = whistle.communicate(timeout=PATIENCE)
    assert whistle.returncode == 1
    assert said in traced


def test_every_program_is_run_here() -> None:
    here = Path(__file__).read_text("utf-8")
    assert [name for name in PROGRAMS if f'"{name}"' not in here] == []
