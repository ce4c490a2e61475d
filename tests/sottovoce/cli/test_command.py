"""The `sottovoce` command as a process: what it prints, how it ends, and that every error is one line."""

import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from sottovoce import errors, events
from sottovoce.cli import commands, people
from sottovoce.cli.app import app
from sottovoce.cli.commands import Place, printable
from sottovoce.store.database import open_store
from sottovoce.testing import world
from tests.servers import ServerProcess

PATIENCE = 60.0


class Command:
    """The command on one store. What reads no standard input and no variables runs in this process, where it is the
    same, if `shown` is given: to start one takes half a second."""

    def __init__(self, url: str, store: Path, shown: pytest.CaptureFixture[str] | None = None) -> None:
        self.url = url
        self._shown = shown
        self.options = ["--server", url, "--store", str(store)]
        self.environment: dict[str, str] = {}
        # Given to the process: a shell that runs a job in its background lets it ignore SIGINT.
        self.on_interrupt: signal.Handlers = signal.SIG_DFL
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, passphrase: str | None = None) -> subprocess.Popen[bytes]:
        """Start it, with pipes on all three ends."""
        outer = {name: value for name, value in os.environ.items() if not name.startswith("SOTTOVOCE_")}
        environment = outer | self.environment
        if passphrase is not None:
            environment["SOTTOVOCE_PASSPHRASE"] = passphrase
        process = subprocess.Popen(
            [sys.executable, "-m", "sottovoce.cli", *self.options, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            preexec_fn=partial(signal.signal, signal.SIGINT, self.on_interrupt),
        )
        self._started.append(process)
        return process

    def run(self, *arguments: str, given: bytes = b"", passphrase: str | None = None) -> tuple[int, str, str]:
        """Run it to its end: exit code, standard output, standard error."""
        if self._shown is not None and not given and passphrase is None and not self.environment:
            self._shown.readouterr()
            return self._run_here(arguments), *self._shown.readouterr()
        process = self.start(*arguments, passphrase=passphrase)
        out, err = process.communicate(given, timeout=60)
        return process.returncode, out.decode(), err.decode()

    def _run_here(self, arguments: tuple[str, ...]) -> int:
        try:
            return int(app.meta([*self.options, *arguments]))
        except SystemExit as ended:
            return int(ended.code or 0)

    def close(self) -> None:
        """Whatever happened, leave nothing running."""
        for process in self._started:
            process.kill()
            process.communicate()

    def ok(self, *arguments: str, given: bytes = b"") -> str:
        """Run it; it must succeed and say nothing on standard error."""
        code, out, err = self.run(*arguments, given=given)
        assert (code, err) == (0, "")
        return out

    def error(self, code: int, *arguments: str, passphrase: str | None = None, given: bytes = b"") -> str:
        """Run it; it must fail with this code and one line, which is returned."""
        ended, out, err = self.run(*arguments, passphrase=passphrase, given=given)
        assert (ended, out) == (code, ""), err
        assert err.startswith("sottovoce: ")
        assert err.count("\n") == 1
        return err


def place(store: Path, server: str | None = None) -> Place:
    return Place(server, store, None, "", f"sottovoce --store {store.name}")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may use the command, too."""
    for name in ("SERVER", "STORE", "INVITE_CODE", "PASSPHRASE"):
        monkeypatch.delenv(f"SOTTOVOCE_{name}", raising=False)


@pytest.fixture
def anna(shared_server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    with closing(Command(shared_server.url, tmp_path / "anna.db", capsys)) as command:
        yield command


@pytest.fixture
def ben(shared_server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    with closing(Command(shared_server.url, tmp_path / "ben.db", capsys)) as command:
        yield command


def test_lines_sent_to_somebody_away_are_listened_to_later(anna: Command, ben: Command) -> None:
    registered = ben.ok("register", "ben")
    assert registered.startswith("registered as ben\naccount id ")
    assert ben.ok("register", "ben") == registered
    anna.ok("register", "anna")
    anna.ok("send", "ben", "first")
    anna.ok("send", "ben", "-", given="second\n\nпривет 🌍\nno newline at the end".encode())
    anna.ok("send", "ben", "--", "-starts-with-a-hyphen")
    shown = [json.loads(line) for line in ben.ok("listen", "--accept-everyone", "--json", "--count", "6").splitlines()]
    texts = ["first", "second", "", "привет 🌍", "no newline at the end", "-starts-with-a-hyphen"]
    assert [message["text"] for message in shown] == texts
    anna_id = anna.ok("whoami").splitlines()[1].split()[-1]
    assert {message["sender"] for message in shown} == {anna_id}
    assert {message["name"] for message in shown} == {None}
    assert ben.ok("send", anna_id, "thanks") == ""
    assert anna.ok("listen", "--count", "1") == "ben: thanks\n"


def test_two_people_chat_while_both_are_online(anna: Command, ben: Command) -> None:
    anna.ok("register", "chatty-anna")
    ben.ok("register", "chatty-ben")
    first, second = anna.start("chat", "chatty-ben", "--json"), ben.start("chat", "chatty-anna", "--json")
    for speaker, hearer, text in [(first, second, "one"), (second, first, "two"), (first, second, "three")]:
        assert speaker.stdin is not None
        assert hearer.stdout is not None
        speaker.stdin.write(b" \n" + text.encode() + b"\n")  # a blank line is not a message
        speaker.stdin.flush()
        assert json.loads(hearer.stdout.readline())["text"] == text
    for process in (first, second):
        assert process.communicate(timeout=60) == (b"", b"")
        assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("register", "No Name"), "a username has"),
        (("send", "nobody", "x"), "register a name first"),
        (("listen",), "register a name first"),
        (("whoami",), "there is no store at"),
        (("chat", "nobody"), "register a name first"),
    ],
)
def test_what_cannot_be_done_is_one_line(anna: Command, arguments: tuple[str, ...], said: str) -> None:
    assert said in anna.error(1, *arguments)


def test_an_unknown_recipient_and_a_taken_name_are_one_line(anna: Command, ben: Command) -> None:
    anna.ok("register", "taken")
    assert "check the spelling" in anna.error(1, "send", "nobody-here", "x")
    assert "choose another name" in ben.error(1, "register", "taken")


def test_a_line_that_is_not_text_is_named_and_the_lines_before_it_are_sent(anna: Command, ben: Command) -> None:
    anna.ok("register", "binary-anna")
    ben.ok("register", "binary-ben")
    assert "line 2 is not UTF-8" in anna.error(1, "send", "binary-ben", given=b"good\n\xff\n")
    assert ben.ok("listen", "--accept-everyone", "--count", "1").endswith(": good\n")


def test_a_server_that_is_away_keeps_the_message_for_the_next_time(
    server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anna, ben = (Command(server.url, tmp_path / name, capsys) for name in ("a.db", "b.db"))
    anna.ok("register", "anna")
    ben.ok("register", "ben")
    anna.ok("send", "ben", "hello")
    server.kill()
    code, _, said = anna.run("send", "ben", "kept", "--wait", "1")
    assert code == 3
    assert "go out next time" in said.splitlines()[-1]
    server.start()
    anna.ok("send", "ben", "after")
    shown = ben.ok("listen", "--accept-everyone", "--count", "3")
    assert [line.partition(": ")[2] for line in shown.splitlines()] == ["hello", "kept", "after"]


def test_a_server_that_was_never_there_is_one_line(tmp_path: Path) -> None:
    nowhere = Command("http://127.0.0.1:1", tmp_path / "a.db")
    assert "check that the server is running" in nowhere.error(1, "register", "lonely")
    assert "plain http" in Command("http://chat.example", tmp_path / "a.db").error(1, "whoami")


def test_an_invite_code_is_given_as_an_option_or_in_the_environment(tmp_path: Path) -> None:
    """Told by one that no server would take: it is refused before any is asked."""
    anywhere = Command("http://127.0.0.1:1", tmp_path / "a.db")
    assert "an invite code has at most" in anywhere.error(1, "register", "lonely", "--invite-code", "x" * 129)
    assert "the server is running" in anywhere.error(1, "register", "lonely", "--invite-code", "x" * 128)
    anywhere.environment["SOTTOVOCE_INVITE_CODE"] = "x" * 129
    assert "an invite code has at most" in anywhere.error(1, "register", "lonely")


def test_what_opens_a_store_or_a_server_is_not_shown() -> None:
    assert "secret" not in repr(Place("http://127.0.0.1:1", Path("a.db"), "secret words", "secret code"))


def test_a_store_with_a_passphrase_needs_it_every_time(shared_server: ServerProcess, tmp_path: Path) -> None:
    locked = Command(shared_server.url, tmp_path / "a.db")
    assert locked.run("register", "locked", passphrase="correct horse")[0] == 0
    assert "passphrase is wrong" in locked.error(1, "whoami", passphrase="battery staple")
    assert "has a passphrase" in locked.error(1, "whoami")
    assert locked.run("whoami", passphrase="correct horse")[0] == 0


def test_a_store_that_another_program_has_open_is_one_line(anna: Command, tmp_path: Path) -> None:
    anna.ok("register", "doubled")
    store = open_store(tmp_path / "anna.db")
    assert "another program is using anna.db" in anna.error(1, "whoami")
    store.close()
    anna.ok("whoami")


@pytest.mark.parametrize(
    ("number", "on_interrupt"),
    [
        (signal.SIGINT, signal.SIG_DFL),
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGTERM, signal.SIG_IGN),
    ],
)
def test_an_interrupted_command_ends_quietly_with_130(
    anna: Command, ben: Command, number: signal.Signals, on_interrupt: signal.Handlers
) -> None:
    name = f"{number.name.lower()}-{on_interrupt.name.lower()}"
    anna.ok("register", name)
    ben.ok("register", f"by-{name}")
    anna.on_interrupt = on_interrupt
    listening = anna.start("listen", "--accept-everyone")
    ben.ok("send", name, "now it listens")
    assert listening.stdout is not None
    assert listening.stdout.readline().endswith(b": now it listens\n")
    listening.send_signal(number)
    out, err = listening.communicate(timeout=30)
    assert (listening.returncode, out, err) == (130, b"", b"")
    anna.ok("whoami")


@pytest.mark.parametrize("words", [("snd", "ben", "hello"), ("send", "ben", "--nonsense")])
def test_a_process_with_a_wrong_command_line_ends_with_2_and_one_line(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert "Try --help." in Command("http://127.0.0.1:1", tmp_path / "a.db").error(2, *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("snd", "ben", "hello"), 'Unknown command "snd". Did you mean "send"?'),
        (("send",), "parameter TO requires an argument. Try --help."),
        (("send", "ben", "two", "words"), "'words' is one word too many: a text with spaces goes in quotes."),
        (("listen", "--count", "many"), 'unable to convert "many" into int.'),
        (("listen", "--cuont", "1"), "Did you mean --count?"),
        (("--nonsense",), '"--nonsense"'),
    ],
)
def test_what_is_mistyped_is_said_in_one_line(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        app.meta(words)
    shown = capsys.readouterr()
    assert (ended.value.code, shown.out, shown.err.count("\n")) == (2, "", 1)
    assert said in shown.err


COMMANDS = [name for name in app if not name.startswith("-")]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help_with_options_and_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    app.meta([*command.split(), "--help"])
    shown = capsys.readouterr().out
    assert "--server" in shown
    assert "Exit codes" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_commands_help_has_an_example_that_it_understands(command: str) -> None:
    function = app[command].default_command
    examples = re.findall("`(sottovoce [^`]+)`", inspect.getdoc(function) or "")
    assert examples
    for example in examples:
        _, outer, _ = app.meta.parse_args(shlex.split(example)[1:])
        assert app.parse_args(outer.arguments["tokens"])[0] is function


def test_a_message_cannot_steer_the_readers_terminal() -> None:
    assert printable("a\x1b[2Jb\rc\x9bd\u202ee\tf\n👩‍🚀") == "a\\x1b[2Jb\\rc\\x9bd\\u202ee\tf\n👩‍🚀"


def test_options_after_the_recipient_are_never_the_text(anna: Command, ben: Command, tmp_path: Path) -> None:
    anna.ok("register", "option-anna")
    ben.ok("register", "option-ben")
    anna.options = []
    anna.ok("send", "option-ben", f"--store={tmp_path / 'anna.db'}", "--server", anna.url, given=b"piped\n")
    anna.ok("send", "option-ben", "given", "--store", str(tmp_path / "anna.db"), f"--server={anna.url}")
    assert anna.run("send", "option-ben", "--nonsense")[0] == 2
    shown = [
        json.loads(line)["text"]
        for line in ben.ok("listen", "--accept-everyone", "--json", "--count", "2").splitlines()
    ]
    assert shown == ["piped", "given"]


def test_looking_makes_no_store(anna: Command, tmp_path: Path) -> None:
    for arguments in (("whoami",), ("listen",), ("send", "nobody", "x"), ("chat", "nobody")):
        anna.error(1, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [("send", "x", "y", "--wait", "-1"), ("send", "x", "y", "--wait", "nan"), ("listen", "--count", "0")]
)
def test_numbers_that_make_no_sense_are_one_line(anna: Command, arguments: tuple[str, ...]) -> None:
    anna.ok("register", f"numbers-{arguments[0]}-{len(arguments[-1])}")
    assert "--wait is" in (line := anna.error(1, *arguments)) or "--count is" in line


def test_an_empty_passphrase_is_refused(anna: Command) -> None:
    assert "empty passphrase" in anna.error(1, "register", "unprotected", passphrase="")


def test_chat_ends_at_once_when_it_is_interrupted_while_it_waits_for_input(anna: Command, ben: Command) -> None:
    anna.ok("register", "waiting-anna")
    ben.ok("register", "waiting-ben")
    chatting = anna.start("chat", "waiting-ben")
    ben.ok("send", "waiting-anna", "are you there?")
    assert chatting.stdout is not None
    assert chatting.stdout.readline().endswith(b"are you there?\n")
    chatting.send_signal(signal.SIGINT)
    assert chatting.wait(timeout=30) == 130
    assert chatting.stderr is not None
    assert chatting.stderr.read() == b""


def test_a_strangers_message_waits_until_it_is_accepted(anna: Command, ben: Command) -> None:
    anna.ok("register", "shy-anna")
    ben.ok("register", "new-ben")
    ben.ok("send", "shy-anna", "may I\nwrite to you")
    ben_id = ben.ok("whoami").splitlines()[1].split()[-1]
    assert anna.ok("contacts") == ""
    answer = f"answer with: sottovoce --store {anna.options[-1]} accept {ben_id} (or decline, or block; by name, too)"
    assert anna.ok("requests").splitlines() == [f"{ben_id} writes", "  may I", "    write to you", answer]
    assert anna.ok("accept", ben_id).endswith(f"sottovoce --store {anna.options[-1]} listen\n")
    assert anna.ok("requests") == "nobody waits to be accepted\n"
    assert anna.ok("listen", "--count", "1").startswith(f"{ben_id}: may I\n")
    assert anna.ok("contacts") == f"{ben_id}  -\n"


def test_the_blocked_are_not_heard_and_not_written_to_until_they_are_unblocked(anna: Command, ben: Command) -> None:
    anna.ok("register", "strict-anna")
    ben.ok("register", "loud-ben")
    ben.ok("send", "strict-anna", "one")
    ben_id = ben.ok("whoami").splitlines()[1].split()[-1]
    anna.ok("requests")
    anna.ok("block", ben_id)
    ben.ok("send", "strict-anna", "two")
    assert anna.ok("requests") == "nobody waits to be accepted\n"
    assert anna.ok("contacts") == f"{ben_id}  -  blocked\n"
    code, _, err = anna.run("send", ben_id, "no")
    assert (code, err) == (1, "sottovoce: this account is blocked: unblock it first\n")
    anna.ok("unblock", ben_id)
    ben.ok("send", "strict-anna", "three")
    assert anna.ok("requests").splitlines()[1] == "  three"


def test_both_sides_print_one_safety_number_and_a_link_needs_no_directory(anna: Command, ben: Command) -> None:
    anna.ok("register", "safe-anna")
    ben.ok("register", "safe-ben")
    link = anna.ok("link").strip()
    assert link.startswith("sottovoce+http://127.0.0.1:")
    ben.ok("send", link, "hello")
    ben_id = ben.ok("whoami").splitlines()[1].split()[-1]
    anna.ok("requests")
    digits = ben.ok("verify", link)
    assert anna.ok("verify", ben_id) == digits
    assert [len(line) for line in digits.splitlines()] == [23, 23, 23]
    assert anna.ok("verify", ben_id, "--confirmed") == "noted as compared\n"
    assert anna.ok("contacts") == ""
    anna.ok("accept", ben_id)
    assert anna.ok("contacts") == f"{ben_id}  -  compared\n"


# --- Without a process --------------------------------------------------------------------------------------


async def test_a_store_knows_its_server_and_another_one_is_named_beside_it(
    shared_server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "a.db"
    await commands.register(place(store, shared_server.url), "at-home")
    registered = capsys.readouterr().out
    await commands.whoami(place(store))
    assert capsys.readouterr().out == registered.replace("registered as", "name      ")
    assert f"server     {shared_server.url}\nstore      {store}\n" in registered
    await commands.register(place(store), "at-home")
    with pytest.raises(errors.WrongServer, match=f"{shared_server.url}, not to http://127.0.0.1:1\n"):
        await commands.whoami(place(store, "http://127.0.0.1:1"))


async def test_a_new_account_is_made_at_the_server_of_this_machine_if_none_is_named(
    shared_server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "DEFAULT_SERVER", shared_server.url)
    await commands.register(place(tmp_path / "a.db"), "by-default")
    await commands.whoami(place(tmp_path / "a.db", shared_server.url))


async def test_who_is_accepted_by_name_before_anything_was_fetched_is_heard(
    shared_server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = place(tmp_path / "a.db"), place(tmp_path / "b.db")
    for at, name in ((first, "early-anna"), (second, "early-ben")):
        await commands.register(replace(at, server=shared_server.url), name)
    with pytest.raises(errors.UnknownRecipient, match="early-ben has written nothing"):
        await people.answer(first, "early-ben", "accept")
    await commands.send(second, "early-anna", "hello", PATIENCE)
    capsys.readouterr()
    await people.answer(first, "early-ben", "accept")
    assert capsys.readouterr().out == "accepted; to read what they write: sottovoce --store a.db listen\n"
    await commands.listen(first, json=False, count=1, accept_everyone=False)
    assert capsys.readouterr().out == "early-ben: hello\n"


async def test_requests_that_could_not_be_fetched_are_not_called_none(
    shared_server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await commands.register(place(tmp_path / "a.db", shared_server.url), "cut-off")
    monkeypatch.setattr(people, "PATIENCE", 0.0)
    capsys.readouterr()
    with pytest.raises(errors.ServerUnreachable, match="what waits at the server is not fetched"):
        await people.requests(place(tmp_path / "a.db"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("variable", "options", "typed"),
    [("a.db", [], "sottovoce"), ("other.db", ["--store", "my own.db"], "sottovoce --store 'my own.db'")],
)
def test_what_to_type_next_names_the_store_that_was_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    options: list[str],
    typed: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOTTOVOCE_STORE", variable)
    nobody = Command("http://127.0.0.1:1", tmp_path / variable, capsys)
    nobody.options = options
    assert nobody.error(1, "whoami").endswith(f": {typed} register NAME\n")


@pytest.mark.parametrize("text", ["", " \n\t"])
async def test_an_empty_message_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(errors.InvalidInput, match="the message is empty"):
        await commands.send(place(tmp_path / "a.db"), "ben", text, PATIENCE)


async def test_where_there_is_no_store_the_command_that_makes_one_is_named(tmp_path: Path) -> None:
    missing = place(tmp_path / "folder" / "a.db")
    for command in (commands.whoami, people.requests, people.contacts, people.link):
        with pytest.raises(errors.NotRegistered) as refused:
            await command(missing)
        assert refused.value.diagnostics().endswith("register a name first: sottovoce --store a.db register NAME")
    assert list(tmp_path.iterdir()) == []


async def test_what_an_interrupted_command_has_not_sent_is_said_to_be_kept(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    async with world() as inner:
        alice, _bob = await inner.person("alice"), await inner.person("bob")
        outgoing = commands._Outgoing(alice, "bob", PATIENCE)
        await outgoing.send("sent")
        await outgoing.finish()
        with trio.CancelScope() as interrupted:
            async with outgoing.interruptible():
                interrupted.cancel()
                await trio.lowlevel.checkpoint()
        assert capsys.readouterr().err == ""
        with inner.faults.offline("alice"), trio.CancelScope() as interrupted:
            async with outgoing.interruptible():
                await outgoing.send("kept")
                interrupted.cancel()
                await outgoing.finish()
    assert capsys.readouterr().err == "sottovoce: 1 not sent yet; kept in the store, they go out next time\n"


async def test_a_failed_message_is_told_by_the_name_it_was_sent_to_and_what_to_do(autojump_clock: MockClock) -> None:
    async with world() as inner:
        alice, bob = await inner.person("alice"), await inner.person("bob")
        await alice.look_up("bob")
        await alice.send("bob", "hello")
        assert bob.account_id is not None
        for reason, said in (("refused", "send the message again"), ("expired", "send it again"), ("queer", "queer")):
            line = await commands._failed(alice, events.MessageFailed(datetime.now(UTC), bob.account_id, "", reason))
            assert line.startswith("a message to bob does not reach every device: ")
            assert line.endswith(said)
