"""The command line: options, help, and how a command ends. What the commands do stands in `commands`."""

import enum
import inspect
import os
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from getpass import getpass
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Final, NoReturn, TypeAlias

import cyclopts
import trio
from cyclopts import Parameter

from .. import errors
from . import commands, people
from .commands import DEFAULT_SERVER, Place

_HELP: Final = """Private messages from the command line.

Everything is encrypted on this machine; the server sees ciphertext. Messages that arrive wait until you `listen`, those
you `send` wait in the store until the server has taken them, also when the command is interrupted.
"""

_EPILOGUE: Final = """Exit codes: 0 done; 1 an error, told in one line; 2 the command line is wrong; 3 not sent yet, the
messages wait in the store and go out with the next command; 130 interrupted.

A store is one account on one device, for one command at a time; it knows its server. Its key lies beside it in
FILE.key, readable by you alone, unless SOTTOVOCE_PASSPHRASE was set when the store was made: then it is needed every
time (or asked for).
"""


@enum.unique
class ExitCode(enum.IntEnum):
    """How the command ends."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    NOT_SENT = 3
    INTERRUPTED = 130


def _refuse(error: cyclopts.CycloptsError) -> NoReturn:
    """One line for a command line that is wrong, and the end: the library would print a panel."""
    said = str(error)
    if isinstance(error, cyclopts.UnusedCliTokensError) and error.unused_tokens:
        said = f"{error.unused_tokens[0]!r} is one word too many: a text with spaces goes in quotes."
    sys.exit(_fail(f"{' '.join(said.split())} Try --help.", ExitCode.USAGE))


app: Final = cyclopts.App(
    name="sottovoce",
    help=_HELP,
    help_epilogue=_EPILOGUE,
    help_format="markdown",
    version=lambda: version("sottovoce"),
    result_action="return_value",
    error_formatter=_refuse,
)

app.meta.end_of_options_delimiter = ""  # a `--` is for the command that follows

Where: TypeAlias = Annotated[Place, Parameter(parse=False)]
To: TypeAlias = Annotated[str, Parameter(help="A name, an account id or an invite link.")]
Who: TypeAlias = To
Wait: TypeAlias = Annotated[
    float, Parameter(help="Give up after this many seconds in which the server accepted nothing; the rest waits.")
]
AsJson: TypeAlias = Annotated[
    bool,
    Parameter(
        negative="",
        help="One JSON object a line: id, sender (account id), name (or null), text, sent_at, received_at.",
    ),
]


@app.command
def register(
    name: Annotated[str, Parameter(help="2 to 32 of a-z, 0-9, dot, underscore and hyphen, a letter first.")],
    /,
    *,
    place: Where,
) -> ExitCode:
    """Make an account and claim NAME for it. Saying it again changes nothing.

    For example: `sottovoce --server https://chat.example register alice`
    """
    return _run(place, lambda at: commands.register(at, name))


@app.command
def send(
    to: To,
    text: Annotated[
        str, Parameter(help="The message; `-` reads the standard input; `-- TEXT` if it begins with a hyphen.")
    ] = "-",
    /,
    *,
    wait: Wait = 30.0,
    place: Where,
) -> ExitCode:
    """Send TEXT, or each line of the standard input, blank ones too, as a message of its own. Ends when all are
    accepted.

    For example: `sottovoce send bob 'shall we have lunch?'`
    """
    return _run(place, lambda at: commands.send(at, to, text, wait))


@app.command
def listen(
    *,
    json: AsJson = False,
    count: Annotated[int | None, Parameter(help="End after this many messages.")] = None,
    accept_everyone: Annotated[
        bool,
        Parameter(negative="", help="Whoever writes is a contact at once; otherwise strangers wait in `requests`."),
    ] = False,
    place: Where,
) -> ExitCode:
    """Print messages of contacts as they arrive, until interrupted.

    For example: `sottovoce listen --json --count 1`
    """
    return _run(place, lambda at: commands.listen(at, json, count, accept_everyone))


@app.command
def chat(to: To, /, *, json: AsJson = False, wait: Wait = 30.0, place: Where) -> ExitCode:
    """Talk: lines of the standard input that are not blank go to TO, messages that arrive are printed. Ends with the
    input: Ctrl-D on a terminal.

    For example: `sottovoce chat bob`
    """
    return _run(place, lambda at: commands.chat(at, to, json, wait))


@app.command
def requests(*, place: Where) -> ExitCode:
    """Print what people have written whom you have not accepted. Nobody of them was answered in any way.

    For example: `sottovoce requests`
    """
    return _run(place, people.requests)


@app.command
def accept(who: Who, /, *, place: Where) -> ExitCode:
    """Make WHO, who has written to you, a contact. Whoever you write to is one, too.

    For example: `sottovoce accept bob`
    """
    return _run(place, lambda at: people.answer(at, who, "accept"))


@app.command
def decline(who: Who, /, *, place: Where) -> ExitCode:
    """Delete what WHO has written. They may ask again.

    For example: `sottovoce decline bob`
    """
    return _run(place, lambda at: people.answer(at, who, "decline"))


@app.command
def block(who: Who, /, *, place: Where) -> ExitCode:
    """Show nothing of WHO from now on. They are not told.

    For example: `sottovoce block bob`
    """
    return _run(place, lambda at: people.answer(at, who, "block"))


@app.command
def unblock(who: Who, /, *, place: Where) -> ExitCode:
    """WHO may ask again.

    For example: `sottovoce unblock bob`
    """
    return _run(place, lambda at: people.answer(at, who, "unblock"))


@app.command
def contacts(*, place: Where) -> ExitCode:
    """Print everybody you have written to, accepted or blocked: account id, name, what is noted.

    For example: `sottovoce contacts`
    """
    return _run(place, people.contacts)


@app.command
def link(*, place: Where) -> ExitCode:
    """Print a link to your account. Who writes to the link needs to trust no directory.

    For example: `sottovoce link`
    """
    return _run(place, people.link)


@app.command
def verify(
    who: Who,
    /,
    *,
    confirmed: Annotated[bool, Parameter(negative="", help="You have compared it: note that.")] = False,
    place: Where,
) -> ExitCode:
    """Print the safety number with WHO. If both of you see the same digits, no server stands between you.

    For example: `sottovoce verify bob`, and when you have compared it, `sottovoce verify bob --confirmed`
    """
    return _run(place, lambda at: people.verify(at, who, confirmed))


@app.command
def whoami(*, place: Where) -> ExitCode:
    """Print the name, account id, server and store.

    For example: `sottovoce --store work.db whoami`
    """
    return _run(place, commands.whoami)


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    server: Annotated[
        str | None,
        Parameter(
            env_var="SOTTOVOCE_SERVER",
            help="The server's address; plain http on this machine only. By default the one that the store's account is"
            f" at; for a new account {DEFAULT_SERVER}.",
        ),
    ] = None,
    store: Annotated[
        Path | None, Parameter(env_var="SOTTOVOCE_STORE", help="The store's file, ~/.sottovoce/store.db by default.")
    ] = None,
    invite_code: Annotated[
        str,
        Parameter(
            env_var="SOTTOVOCE_INVITE_CODE",
            show_default=False,
            help="What a server that is not open to everybody asks newcomers for.",
        ),
    ] = "",
) -> ExitCode:
    path = store or Path.home() / ".sottovoce" / "store.db"
    # A lone hyphen is what `send` does anyway; the parser would take it for an option without a name.
    command, bound, _ = app.parse_args([word for word in tokens if word != "-"])
    if "place" in inspect.signature(command).parameters:
        passphrase = os.environ.get("SOTTOVOCE_PASSPHRASE")
        bound.arguments["place"] = Place(server, path, passphrase, invite_code, _spelled(store))
    code = command(*bound.args, **bound.kwargs)
    return code if isinstance(code, ExitCode) else ExitCode.DONE


def _spelled(store: Path | None) -> str:
    """The command as the person has to type it for the same store."""
    if store is None or str(store) == os.environ.get("SOTTOVOCE_STORE"):
        return "sottovoce"
    return shlex.join(["sottovoce", "--store", str(store)])


def run() -> None:
    """Parse the command line, run it, exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows few characters still shows the rest
    try:
        code = app.meta()
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    sys.exit(int(code or 0))


def _run(place: Place, command: Callable[[Place], Awaitable[None]]) -> ExitCode:
    """Run one command in trio; whatever goes wrong is one line and an exit code."""
    try:
        try:
            trio.run(_until_terminated, command, place)
        except errors.PassphraseNeeded:
            if not sys.stdin.isatty():
                raise
            trio.run(_until_terminated, command, replace(place, passphrase=getpass("Passphrase: ")))
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:
        return _end(error)
    return ExitCode.DONE


async def _until_terminated(command: Callable[[Place], Awaitable[None]], place: Place) -> None:
    """Run the command; SIGTERM ends it as Ctrl-C does, also where Ctrl-C is ignored, as in a script's background."""
    await commands.beside(_watch_sigterm, partial(command, place))


async def _watch_sigterm() -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            raise KeyboardInterrupt


def _end(error: BaseException) -> ExitCode:
    """The line and the exit code that an error ends the command with. Of a group, its first error."""
    match error:
        case BaseExceptionGroup():
            return _end(error.exceptions[0])
        case KeyboardInterrupt():
            return ExitCode.INTERRUPTED
        case commands.NotSent():
            return _fail(str(error), ExitCode.NOT_SENT)
        case errors.SottovoceError():
            return _fail(error.diagnostics(), ExitCode.ERROR)
        case BrokenPipeError():  # whoever read our output has left
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the interpreter's last flush
            return ExitCode.ERROR
    return _fail(f"internal error ({type(error).__name__}); please report it to the project", ExitCode.ERROR)


def _fail(text: str, code: ExitCode) -> ExitCode:
    print(f"sottovoce: {commands.printable(text)}", file=sys.stderr)
    return code
