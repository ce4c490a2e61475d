"""The commands of every server, from one definition: serve, config check and show, db upgrade, health and so on.

What a server is stands in its own package, as data (`Program`). Nothing here knows a queue or an account.
"""

import inspect
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final, Generic, NoReturn, TypeAlias, TypeVar

import cyclopts
import trio
from pydantic.fields import FieldInfo
from sqlalchemy import Connection

from .binding import bind
from .configuration import FILE_VARIABLE, Configuration, is_secret, read_configuration, shown
from .database import DatabaseError, open_database
from .errors import StartError
from .inspection import copy_database, damage, file_statistics, inspecting
from .lockfile import LockHeld
from .metrics import listen_for_metrics
from .process import reason, run, say
from .service import Origins, Service
from .settings import ENVIRONMENT_PREFIX, HostingSettings

S = TypeVar("S", bound=HostingSettings)

#: Columns of the help's own lines: what any terminal has.
_WIDTH: Final = 79
_INDENT: Final = 4 * " "
#: The exit code where the command line is wrong.
_USAGE: Final = 2


@dataclass(frozen=True)
class Part(Generic[S]):
    """One server of a program. `database` is a file name in the data folder, `migrations` a folder of its revisions.

    `statistics` counts what the database holds, and names nobody. `restored` forgets what an old copy of it must not be
    believed, and returns how many rows.
    """

    name: str
    settings: type[S]
    open: Callable[[S, Origins], AbstractAsyncContextManager[Service]]
    database: str
    migrations: Path
    statistics: Callable[[Connection], Mapping[str, int]]
    restored: Callable[[Connection], int] | None = None


@dataclass(frozen=True)
class Program:
    """A server's command. `options` are the settings that may be given on the command line as well."""

    name: str
    help: str
    parts: tuple[Part[Any], ...]
    options: tuple[str, ...] = ("data", "host", "port", "public_url")
    serves_without_command: bool = False

    @property
    def kinds(self) -> list[type[HostingSettings]]:
        """The settings of its parts."""
        return [part.settings for part in self.parts]

    @property
    def fields(self) -> dict[str, FieldInfo]:
        """All settings."""
        return {name: field for kind in self.kinds for name, field in kind.model_fields.items()}

    def databases(self, configuration: Configuration) -> list[tuple[Part[Any], Path]]:
        """Each part with its database."""
        return [(part, configuration.of(part.settings).data / part.database) for part in self.parts]


#: What a command does with what is in force, and with the folder that some are given. It returns the exit code.
Work: TypeAlias = Callable[..., int]


def make_commands(program: Program) -> cyclopts.App:
    """The program's command line."""
    app = cyclopts.App(
        name=program.name,
        version=lambda: version("sottovoce"),
        help=program.help,
        help_format="plaintext",
        help_epilogue=_describe_settings(program),
        error_formatter=partial(_refuse, program.name),
    )
    groups = {
        name: cyclopts.App(name=name, help=text, help_epilogue=_where_settings_stand(program))
        for name, text in (("config", "See what is configured."), ("db", "Look after the database."))
    }
    for words, text, work, options, folder in _COMMANDS:
        *group, name = words.split()
        command = _with_options(program, work, options or program.options, folder)
        (groups[group[0]] if group else app).command(
            command, name=name, help=text, help_epilogue=None if name == "serve" else _where_settings_stand(program)
        )
    for group_app in groups.values():
        app.command(group_app)
    if program.serves_without_command:
        app.default(_with_options(program, _serve, program.options))
    return app


def _refuse(name: str, error: cyclopts.CycloptsError) -> NoReturn:
    """One line for a command line that is wrong, and the end: the library would print a panel."""
    said = str(error)
    if isinstance(error, cyclopts.UnusedCliTokensError) and error.unused_tokens:
        said = f"{error.unused_tokens[0]!r} is one word too many."
        if not error.command_chain:  # a server that serves without a command takes its mistyped name for such a word
            said = str(cyclopts.UnknownCommandError(unused_tokens=error.unused_tokens, app=error.app, verbose=False))
    say(name, f"{' '.join(said.split())} Try --help.")
    sys.exit(_USAGE)


def _with_options(program: Program, work: Work, names: Sequence[str], folder: str = "") -> Callable[..., int]:
    """A function with these settings as its parameters, as cyclopts reads them from a signature; before them a folder,
    if it is described."""

    def command(*folders: Path, **options: Any) -> int:
        try:
            configuration = read_configuration(program.kinds, **options)
            for warning in configuration.warnings:
                say(program.name, warning)
            code = work(program, configuration, *folders)
            sys.stdout.flush()
            return code
        except BrokenPipeError:  # whoever read our output has left
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the interpreter's last flush
            return 1
        except Exception as error:  # whatever it is, the person gets one line
            say(program.name, reason(error))
            return 1

    fields = program.fields
    parameters = [_folder(folder)] if folder else []
    parameters += [_parameter("config", Path, f"A TOML file of settings. [else: {FILE_VARIABLE}]")]
    parameters += [_parameter(name, fields[name].annotation, _meaning(fields[name])) for name in names]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # what inspect looks for
    return command


def _parameter(name: str, annotation: Any, text: str) -> inspect.Parameter:
    kind: Any = Annotated[annotation | None, cyclopts.Parameter(help=text)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def _folder(text: str) -> inspect.Parameter:
    kind: Any = Annotated[Path, cyclopts.Parameter(help=text)]
    return inspect.Parameter("folder", inspect.Parameter.POSITIONAL_ONLY, annotation=kind)


# --- Help ---------------------------------------------------------------------------------------------------


def _where_settings_stand(program: Program) -> str:
    return f"What can be set: {program.name} --help\n"


def _describe_settings(program: Program) -> str:
    """Every setting, by its variable, from the settings' own descriptions."""
    first = (
        f"Every setting is an environment variable, or a key of the file that --config or {FILE_VARIABLE} names:"
        f" what is {ENVIRONMENT_PREFIX}PORT=8480 here is port = 8480 there. Options come before variables, these before"
        " the file, and that before defaults."
    )
    lines = [*textwrap.wrap(first, _WIDTH), ""]
    for name, field in program.fields.items():
        also = f" Or in a file: {ENVIRONMENT_PREFIX}{name.upper()}_FILE." if is_secret(field.annotation) else ""
        lines.append(f"{ENVIRONMENT_PREFIX}{name.upper()}")
        lines += textwrap.wrap(
            f"{_meaning(field)}{also}",
            _WIDTH,
            initial_indent=_INDENT,
            subsequent_indent=_INDENT,
            break_on_hyphens=False,
        )
    return "\n".join(lines) + "\n"


def _meaning(field: FieldInfo) -> str:
    default = "" if field.default in (None, ()) else f" [default: {field.default}]"
    return f"{field.description}{default}"


# --- What the commands do -----------------------------------------------------------------------------------


def _serve(program: Program, configuration: Configuration) -> int:
    def open_services(origins: Origins) -> Sequence[AbstractAsyncContextManager[Service]]:
        return [part.open(configuration.of(part.settings), origins) for part in program.parts]

    return run(program.name, open_services, configuration.settings[0])


def _check(program: Program, configuration: Configuration) -> int:
    """Good if a server could listen there: tried on free ports, since one may be running."""
    settings = configuration.settings[0]
    trio.run(_try_listening, settings.model_copy(update={"port": 0}))
    _print(f"{program.name}: the configuration is good")
    return 0


async def _try_listening(settings: HostingSettings) -> None:
    listeners, _ = await bind(settings)
    if settings.metrics_port is not None:
        listeners += await listen_for_metrics(settings.model_copy(update={"metrics_port": 0}))
    for listener in listeners:
        await listener.aclose()


def _show(_program: Program, configuration: Configuration) -> int:
    sys.stdout.write(shown(configuration))
    return 0


def _upgrade(program: Program, configuration: Configuration) -> int:
    for part, path in program.databases(configuration):
        trio.run(_bring_up_to_date, path, part.migrations)
        _print(f"{path} is up to date")
    return 0


async def _bring_up_to_date(path: Path, migrations: Path) -> None:
    async with open_database(path, migrations):
        pass  # opening it does


def _restored(program: Program, configuration: Configuration) -> int:
    databases = program.databases(configuration)
    for _part, path in databases:
        with inspecting(path):
            pass  # it must be there, and a database
    try:
        forgotten = trio.run(_forget, databases)
    except* LockHeld:
        raise StartError("a server is running on this data: stop it first") from None
    for (_part, path), count in zip(databases, forgotten, strict=True):
        _print(f"{path} is ready: {count} rows of it were out of date and are gone")
    return 0


async def _forget(databases: Sequence[tuple[Part[Any], Path]]) -> list[int]:
    """Of each, how many rows. A server may have only one of them open: all are locked before any is changed."""
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(open_database(path, part.migrations)) for part, path in databases]
        return [
            await database.write(part.restored) if part.restored else 0
            for (part, _path), database in zip(databases, opened, strict=True)
        ]


def _copy(program: Program, configuration: Configuration, folder: Path) -> int:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for part, path in program.databases(configuration):
        copy_database(path, folder / part.database)
        _print(f"{folder / part.database} is a copy of {path}")
    return 0


def _health(program: Program, configuration: Configuration) -> int:
    for _part, path in program.databases(configuration):
        with inspecting(path) as connection:
            found = damage(connection)
        if found is not None:
            raise DatabaseError(f"{path} is damaged: {found}: restore it from a backup")
        _print(f"{path} is intact")
    return 0


def _stats(program: Program, configuration: Configuration) -> int:
    """As TOML: a table for each part."""
    for part, path in program.databases(configuration):
        with inspecting(path) as connection:
            counts = {**part.statistics(connection), **file_statistics(connection)}
        _print("\n".join([f"[{part.name}]", *(f"{name} = {count}" for name, count in counts.items()), ""]))
    return 0


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


#: Each command: its words, what its help says, what it does, the settings it takes as options (none: all), and what
#: its help says of the folder that it is given, if it is.
_COMMANDS: Final[tuple[tuple[str, str, Work, tuple[str, ...], str], ...]] = (
    ("serve", "Serve until SIGTERM or SIGINT.", _serve, (), ""),
    ("config check", "Say what is wrong with the configuration, if anything: exit code 1.", _check, (), ""),
    ("config show", "Print what is in force as TOML, and where each value comes from. Secrets as ***.", _show, (), ""),
    ("db upgrade", "Bring the tables up to date, as serve does at its start. Not while a server runs.", _upgrade,
     ("data",), ""),
    ("db health", "Check that the database is intact; exit code 1 if not. Also while a server runs.", _health,
     ("data",), ""),
    ("db copy", "Copy the database, as a backup. Also while a server runs.", _copy,
     ("data",), "Where the copy goes; made if it is missing. No copy is written over."),
    ("db restored", "Make a copy that was put back fit for use. Before a server runs on it.", _restored,
     ("data",), ""),
    ("db stats", "Print how much the database holds. Also while a server runs.", _stats, ("data",), ""),
)  # fmt: skip
