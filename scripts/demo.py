"""Two people, one server, and a look at what the server knows: `scripts/demo [FILE]`.

Every program of the story is a process of its own and uses only the installed commands; this file starts them, compares
what arrived with what was sent, and searches everything the server wrote. It ends all it started, however it ends.
"""

import json
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Final

import trio

from sottovoce.protocol.content import MAX_TEXT

from . import curious_host
from .leaks import Search, files_in, forms
from .processes import end_session, run_to_the_end

ROOT: Final = Path(__file__).parents[1]
BIN: Final = Path(sys.executable).parent
#: What a stranger may leave in somebody's queue; the rest would be refused until the owner has fetched some.
MAX_LINES: Final = 2_000
#: Of the text itself: with all that a first message carries, this stays below the 16 MiB that strangers may leave.
MAX_BYTES: Final = 4 * 2**20
_DEFAULT_LINES: Final = 1_500
_STEP_SECONDS: Final = 180.0

GREETINGS: Final = (
    "Good morning, and a quiet day to you.",
    "Καλημέρα, καλή σου μέρα.",
    "Доброе утро, хорошего дня.",
    "صباح الخير، أتمنى لك يوما هادئا.",
    "בוקר טוב ויום שקט לך.",
    "नमस्ते, आपका दिन शुभ हो।",
    "早上好,祝你今天平安。",
    "おはようございます。静かな一日を。",
    "좋은 아침입니다, 편안한 하루 되세요.",
    "สวัสดีตอนเช้า ขอให้เป็นวันที่ดี",
    "🌅 ☕ 🤫 👩‍💻 🔐 – emoji, one of them of several code points",
)
TALK: Final = (
    "Are you back? I have sent you everything.",
    "I am, and it is all here, in order. 🙌",
    "Did anybody else read it on the way?",
    "Only sizes, times and addresses. Ask whoever runs the server.",
    "So they know that somebody had a lot to say.",
    "And from which addresses: one host runs both. But not what. Τέλεια.",
    "Then let us go on like this, sottovoce.",
    "Sottovoce, then. Until tomorrow! 👋",
)


class DemoError(Exception):
    """The demonstration showed what it must not, or could not be shown. The text is for the person."""


@dataclass(frozen=True)
class Text:
    """What is sent: one message for each line."""

    name: str
    content: bytes
    lines: list[str]


def read_text(path: Path) -> Text:
    """The file, if it can be sent. Raises DemoError that says why not."""
    try:
        content = path.read_bytes()
        lines = content.decode().split("\n")
    except OSError as error:
        raise DemoError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DemoError(f"{path} is not a text in UTF-8") from None
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise DemoError(f"{path} is empty: there is nothing to send")
    if len(lines) > MAX_LINES:
        raise DemoError(
            f"{path} has {len(lines):,} lines, but a stranger may leave at most {MAX_LINES:,} messages with somebody"
            " who is away; choose a shorter file"
        )
    if len(content) > MAX_BYTES:
        raise DemoError(f"{path} has more than {MAX_BYTES // 2**20} MiB; choose a shorter file")
    if any(len(line.encode()) > MAX_TEXT for line in lines):
        raise DemoError(f"{path} has a line of more than {MAX_TEXT // 1024} KiB, which is more than a message holds")
    return Text(path.name, content, lines)


def own_text() -> Text:
    """The greetings, then the project's documents and sources."""
    paths = [ROOT / "README.md", *sorted(ROOT.glob("protocol-spec/*.md")), *sorted(ROOT.glob("sdk/**/*.py"))]
    written = (line for path in paths for line in path.read_text("utf-8").split("\n"))
    lines = [*GREETINGS, *islice(written, _DEFAULT_LINES - len(GREETINGS))]
    return Text("the project's own documents and sources", "\n".join(lines).encode() + b"\n", lines)


# --- The programs -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """Where the story plays: the folder of everything it writes, and the nursery of its processes."""

    folder: Path
    nursery: trio.Nursery

    @property
    def host(self) -> Path:
        """All that the server writes, its output included."""
        return self.folder / "server"

    async def start(self, *command: str | Path, errors: Path, **options: Any) -> trio.Process:
        """Start a process that ends with the story; its standard error goes to a file."""
        with errors.open("ab") as stderr:
            run = partial(
                trio.run_process,
                [str(part) for part in command],
                stderr=stderr,
                check=False,
                start_new_session=True,
                deliver_cancel=end_session,
                **options,
            )
            process: trio.Process = await self.nursery.start(run)
        return process


@dataclass(frozen=True)
class Person:
    """Somebody with a store of their own, who uses the `sottovoce` command."""

    name: str
    stage: Stage
    server: str
    passphrase: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    async def start(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> trio.Process:
        """The command, running; its output can be read."""
        home = self.stage.folder / self.name
        home.mkdir(exist_ok=True)
        own = {"SOTTOVOCE_SERVER": self.server, "SOTTOVOCE_STORE": str(home / "store.db")}
        return await self.stage.start(
            BIN / "sottovoce",
            *arguments,
            errors=home / "errors",
            env=environment(**own, SOTTOVOCE_PASSPHRASE=self.passphrase),
            stdin=stdin,
            stdout=subprocess.PIPE,
        )

    async def run(self, *arguments: str, said: bytes = b"") -> None:
        """The command from start to end, with `said` as its standard input. Raises DemoError unless it exits with 0."""
        process = await self.start(*arguments, stdin=subprocess.PIPE)
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drain, process)
            try:
                async with process.stdin as stdin:
                    await stdin.send_all(said)
            except trio.BrokenResourceError:
                pass  # it ended before it had read all; its exit code says why
            await self.finish(process, arguments[0])

    async def finish(self, process: trio.Process, what: str) -> None:
        """Wait for the end. Raises DemoError unless it exits with 0."""
        if await process.wait() != 0:
            errors = (self.stage.folder / self.name / "errors").read_text(errors="replace").strip()
            raise DemoError(f"{self.name}: `sottovoce {what}` failed: {errors[-2000:] or 'it says nothing'}")


async def _drain(process: trio.Process) -> None:
    output = Lines(process)
    while await output.read() is not None:
        pass


class Lines:
    """What a process prints, line by line."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        self._stream = process.stdout
        self._rest = bytearray()

    async def read(self) -> str | None:
        """The next line without its end, or None when the process prints no more."""
        while b"\n" not in self._rest:
            chunk = await self._stream.receive_some()
            if not chunk:
                return None
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


def environment(**own: str) -> dict[str, str]:
    """This process's environment without settings for other Sottovoce programs, and with `own`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SOTTOVOCE_")} | own


async def start_server(stage: Stage) -> tuple[trio.Process, str]:
    """The relay and the keyserver as one process; and its address."""
    stage.host.mkdir()
    log = stage.host / "log"
    arguments = ("--data", stage.host / "data", "--port", "0")
    process = await stage.start(
        BIN / "sottovoce-server", *arguments, errors=log, env=environment(), stdout=subprocess.PIPE
    )
    output = Lines(process)
    line = await output.read()
    if line is None or " ready at " not in line:
        raise DemoError(f"the server did not start: {log.read_text(errors='replace').strip()[-2000:]}")
    stage.nursery.start_soon(_keep, output, log)
    return process, line.rpartition(" ")[2]


async def _keep(output: Lines, log: Path) -> None:
    """What the server prints later belongs to its log."""
    while (line := await output.read()) is not None:
        with log.open("a") as file:
            file.write(line + "\n")


# --- The story ----------------------------------------------------------------------------------------------


def say(who: str, what: str) -> None:
    """One line of the story."""
    print(f"{who:>8}  {what}", flush=True)


def per_second(count: int, seconds: float) -> str:
    """How fast that was."""
    return f"{seconds:.1f} s, {count / seconds:,.0f} a second"


@asynccontextmanager
async def step(what: str) -> AsyncIterator[None]:
    """A part of the story that must end. Raises DemoError if it does not."""
    with trio.move_on_after(_STEP_SECONDS) as scope:
        yield
    if scope.cancelled_caught:
        raise DemoError(f"{what}: not done within {_STEP_SECONDS:.0f} s")


async def let_in(bob: Person, count: int) -> None:
    """Bob has never heard of whoever has written. Raises DemoError if nobody has."""
    began = trio.current_time()
    process = await bob.start("requests")
    output = Lines(process)
    asking = await output.read() or ""
    while await output.read() is not None:
        pass
    await bob.finish(process, "requests")
    who, _, writes = asking.partition(" ")
    if writes != "writes":
        raise DemoError(f"nobody has written to bob: {asking!r}")
    took = trio.current_time() - began
    say("bob", f"comes back, fetches and decrypts all of it: {per_second(count, took)}.")
    say("", f"a stranger has written, {who[:7]}…; who is not accepted waits, and learns nothing. He accepts")
    await bob.run("accept", who)


async def receive_all(bob: Person, text: Text) -> None:
    """Everything must be there, in order, byte for byte. Raises DemoError if not."""
    began = trio.current_time()
    process = await bob.start("listen", "--json", "--count", str(len(text.lines)))
    first = last = 0.0
    arrived: list[dict[str, Any]] = []
    output = Lines(process)
    while (line := await output.read()) is not None:
        last = trio.current_time() - began
        first = first or last
        arrived.append(json.loads(line))
    await bob.finish(process, "listen")
    ending = "\n" if text.content.endswith(b"\n") else ""
    content = ("\n".join(message["text"] for message in arrived) + ending).encode()
    if content != text.content:
        raise DemoError(f"what arrived is not what was sent: {first_difference(arrived, text)}")
    say("bob", f"reads: the first message is there after {first:.2f} s,")
    say("", f"all {len(arrived):,} after {per_second(len(arrived), last)}; in order and byte for byte the same")
    for message in arrived[: len(GREETINGS)]:
        say(message["name"] or f"{message['sender'][:7]}…", message["text"][:100])
    if len(arrived) > len(GREETINGS):
        say("", f"… and {len(arrived) - len(GREETINGS):,} more")


def first_difference(arrived: Sequence[dict[str, Any]], text: Text) -> str:
    """Where the two part."""
    for number, (message, line) in enumerate(zip(arrived, text.lines, strict=False), 1):
        if message["text"] != line:
            return f"message {number} differs from line {number}"
    return f"{len(arrived):,} messages for {len(text.lines):,} lines"


async def talk(alice: Person, bob: Person) -> None:
    """Both are online, and answer each other in turns. Raises DemoError if a word goes astray."""
    chats = [await alice.start("chat", "bob", "--json", stdin=subprocess.PIPE)]
    chats.append(await bob.start("chat", "alice", "--json", stdin=subprocess.PIPE))
    heard = [Lines(chat) for chat in chats]
    times = []
    for number, words in enumerate(TALK):
        speaker, listener = number % 2, 1 - number % 2
        stdin = chats[speaker].stdin
        assert stdin is not None  # noqa: S101 - a pipe was asked for
        began = trio.current_time()
        await stdin.send_all(words.encode() + b"\n")
        line = await heard[listener].read()
        if line is None or json.loads(line)["text"] != words:
            raise DemoError(f"both online: what was said as number {number + 1} did not arrive")
        times.append(trio.current_time() - began)
        say((alice, bob)[speaker].name, words)
    for chat, person in zip(chats, (alice, bob), strict=True):
        assert chat.stdin is not None  # noqa: S101 - a pipe was asked for
        await chat.stdin.aclose()
        await person.finish(chat, "chat")
    say("", f"from one program's input to the other's output: half within {1000 * median(times[1:]):.0f} ms")


# --- The host -----------------------------------------------------------------------------------------------


def show_databases(host: Path) -> None:
    """The tables of every database, and one envelope if one waits."""
    for database in sorted(host.glob("data/*.db")):
        counts = curious_host.row_counts(database).items()
        say("host", f"{database.name}: " + ", ".join(f"{name} {count:,}" for name, count in counts))
    envelope = curious_host.one_envelope(host / "data" / "relay.db")
    if envelope is not None:
        say("host", f"one envelope, {len(envelope)} bytes, the first 96 of them:")
        for start in range(0, 96, 32):
            say("", envelope[start : start + 32].hex(" ", 4))


def search_host(search: Search, host: Path) -> None:
    """Nothing that was said may be found in anything the server wrote. Raises DemoError if it is."""
    paths = files_in(host)
    found = search.in_files(paths)
    if found:
        shown = sorted(f"line {trace.line} {trace.form} in {trace.place}" for trace in found)
        raise DemoError(f"THE SERVER HOLDS PLAIN TEXT: {len(found)} traces: {'; '.join(shown[:10])}")
    size = sum(path.stat().st_size for path in paths)
    say("", f"looked for {search.size:,} lines in {len(paths)} files ({size / 2**20:.1f} MiB): none is there")


def check_search(search: Search, line: str, host: Path) -> None:
    """The search must find one line planted in a copy of the host's files, in each form. Raises DemoError if not."""
    copy = host.with_name("control")
    shutil.copytree(host, copy)
    with closing(sqlite3.connect(copy / "data" / "relay.db")) as connection:
        connection.execute("CREATE TABLE control (line TEXT)")
        connection.execute("INSERT INTO control VALUES (?)", (line,))
        connection.commit()
        expected = {("as it is", "relay.db-wal")}
        for number, (form, pattern) in enumerate(forms(line)):
            (copy / f"log-{number}").write_bytes((copy / "log").read_bytes() + b"=" + pattern + b"=")
            expected.add((form, f"log-{number}"))
        found = {(trace.form, trace.place) for trace in search.in_files(files_in(copy))}
    shutil.rmtree(copy)
    if not expected <= found:
        raise DemoError("the search is blind: it does not find a line that was planted in a copy of the files")
    say("", f"a line planted in a copy of these files is found in all of {len(expected)} forms: the search can see")


def evidence(text: Text, host: Path) -> Search:
    """What to look for: all that will be said, but for lines that the server's files hold before anybody spoke."""
    spoken = list(enumerate([*text.lines, *TALK], 1))
    before = {trace.line for trace in Search(spoken).in_files(files_in(host))}
    if before:
        say("", f"{len(before)} lines are the server's own words, in its files before anything was sent: left out")
    return Search((number, line) for number, line in spoken if number not in before)


async def play(text: Text, stage: Stage) -> None:
    """The whole story. Raises DemoError where it does not go as it must."""
    async with step("the server's start"):
        server, address = await start_server(stage)
    say("server", f"ready at {address}, as a process of its own")
    alice, bob = Person("alice", stage, address), Person("bob", stage, address)
    async with step("registration"):
        await bob.run("register", "bob")
        say("bob", "registers, and goes away")
        await alice.run("register", "alice")
    search = evidence(text, stage.host)
    async with step("sending"):
        began = trio.current_time()
        await alice.run("send", "bob", "-", said=text.content)
    took = trio.current_time() - began
    say("alice", f"sends him {text.name}: {len(text.lines):,} lines, {len(text.content) / 1024:,.0f} KiB,")
    say("", f"each a message of its own, accepted by the relay: {per_second(len(text.lines), took)}")

    print("\nWhile they wait, a curious host looks:")
    show_databases(stage.host)
    search_host(search, stage.host)
    check_search(search, next(line for line in (*text.lines, *TALK) if line in search), stage.host)

    print("\nBob is back:")
    async with step("receiving"):
        await let_in(bob, len(text.lines))
        await receive_all(bob, text)

    print("\nBoth are online:")
    async with step("talking"):
        await talk(alice, bob)

    print("\nWhen all is said, the host looks again:")
    server.send_signal(signal.SIGTERM)
    async with step("the server's end"):
        if await server.wait() != 0:
            raise DemoError(f"the server ended with {server.returncode}")
    show_databases(stage.host)
    search_host(search, stage.host)


async def demonstrate(path: Path | None) -> int:
    """Play the story in a temporary folder; 0 if all went as it must, else 1 and the reason on standard error."""
    problem = None
    try:
        text = own_text() if path is None else read_text(path)
        with tempfile.TemporaryDirectory(prefix="sottovoce-demo-") as folder:
            await _on_stage(partial(play, text), Path(folder))
    except* DemoError as group:
        problem = _first(group)
    if problem is not None:
        print(f"\ndemo: {problem}", file=sys.stderr)
        return 1
    print("\nAll of it arrived, and nothing of it is in what the server wrote. What a server does learn: README.md")
    return 0


async def _on_stage(story: Callable[[Stage], Any], folder: Path) -> None:
    async with trio.open_nursery() as nursery:
        await story(Stage(folder, nursery))
        nursery.cancel_scope.cancel()


def _first(group: BaseExceptionGroup[DemoError]) -> DemoError:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def main() -> int:
    """The command."""
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        print("scripts/demo [FILE]: two people talk through a server of their own; every line of FILE is a message")
        return 0 if len(sys.argv) == 2 else 2
    return run_to_the_end(partial(demonstrate, Path(sys.argv[1]) if sys.argv[1:] else None))


if __name__ == "__main__":
    sys.exit(main())
