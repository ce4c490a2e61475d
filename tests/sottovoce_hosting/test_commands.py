"""The commands that every server has, of a program made for these tests."""

import os
import sqlite3
import sys
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import TypeAlias

import pytest
from pydantic import Field, SecretStr
from sqlalchemy import Connection

from sottovoce_hosting.commands import Part, Program, make_commands
from sottovoce_hosting.lockfile import hold_lock
from sottovoce_hosting.service import Origins, Service
from sottovoce_hosting.settings import HostingSettings
from tests.sottovoce_hosting.test_database import REVISION, count


class BakerySettings(HostingSettings):
    """Of a bakery."""

    recipe: SecretStr | None = Field(default=None, description="What nobody may see.")


class MillSettings(HostingSettings):
    """Of a mill."""

    stones: int = Field(default=2, ge=1, description="How many there are.")


@asynccontextmanager
async def never_opened(_settings: HostingSettings, _origins: Origins) -> AsyncIterator[Service]:
    """Nothing is served here."""
    raise AssertionError
    yield


def statistics(connection: Connection) -> dict[str, int]:
    return {"numbers": count(connection)}


def forget(connection: Connection) -> int:
    return connection.exec_driver_sql("DELETE FROM numbers").rowcount


#: Runs a command: its exit code, what it printed, and what it said on stderr.
Run: TypeAlias = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Commands of a bakery with a mill, run in an empty folder."""
    migrations = tmp_path / "migrations"
    migrations.mkdir()
    (migrations / "0001.py").write_text(REVISION.format(name="0001", before=None, table="numbers"))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    parts = (
        Part("bakery", BakerySettings, never_opened, "bakery.db", migrations, statistics, forget),
        Part("mill", MillSettings, never_opened, "mill.db", migrations, statistics),
    )
    commands = make_commands(
        Program("sottovoce-bakery", "Bread.", parts, ("data", "host", "port", "public_url", "stones"), True)
    )

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            commands(words)
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capfd.readouterr()

    return run


def write(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement)


# --- config -------------------------------------------------------------------------------------------------


def test_a_good_configuration_is_called_good(run: Run) -> None:
    assert run("config", "check") == (0, "sottovoce-bakery: the configuration is good\n", "")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--stones", "0"), "stones: Input should be greater than or equal to 1"),
        (("--config", "missing.toml"), "cannot read missing.toml: No such file or directory"),
        (("--host", "0.0.0.0"), "0.0.0.0 is not a loopback address: set the public URL"),  # noqa: S104 - it is refused
        (("--host", "192.0.2.1", "--public-url", "https://bakery.example"), "cannot listen on 192.0.2.1"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run: Run, words: tuple[str, ...], said: str) -> None:
    code, printed, errors = run("config", "check", *words)
    assert (code, printed, errors.count("\n")) == (1, "", 1)
    assert errors.startswith(f"sottovoce-bakery: {said}")


def test_a_certificate_that_cannot_be_used_is_found_before_it_is_needed(run: Run) -> None:
    Path("bakery.toml").write_text("tls_cert = 'x'\ntls_key = 'x'\npublic_url = 'https://bakery.example'")
    code, _, errors = run("config", "check", "--config", "bakery.toml")
    assert (code, errors) == (
        1,
        "sottovoce-bakery: cannot read x: No such file or directory\n",
    )


def test_what_is_in_force_is_shown_without_secrets(run: Run) -> None:
    Path("bakery.toml").write_text("recipe = 'flour and salt'\nstones = 3\nport = 4")
    Path("bakery.toml").chmod(0o600)
    code, printed, errors = run("config", "show", "--config", "bakery.toml", "--port", "5")
    assert (code, errors) == (0, "")
    shown = tomllib.loads(printed)
    assert (shown["recipe"], shown["stones"], shown["port"], shown["host"]) == ("***", 3, 5, "127.0.0.1")
    assert "port = 5  # option\n" in printed
    assert "flour" not in printed


def test_a_warning_is_said_and_stops_nothing(run: Run) -> None:
    Path("bakery.toml").write_text("recipe = 'flour and salt'")
    Path("bakery.toml").chmod(0o644)
    code, printed, errors = run("config", "check", "--config", "bakery.toml")
    assert (code, printed) == (0, "sottovoce-bakery: the configuration is good\n")
    assert errors.startswith("sottovoce-bakery: warning: bakery.toml holds a secret")
    assert errors.count("\n") == 1


# --- db -----------------------------------------------------------------------------------------------------


def test_the_tables_are_brought_up_to_date_again_and_again(run: Run) -> None:
    done = (0, "bread/bakery.db is up to date\nbread/mill.db is up to date\n", "")
    assert run("db", "upgrade", "--data", "bread") == done
    write(Path("bread/bakery.db"), "INSERT INTO numbers VALUES (7)")
    assert run("db", "upgrade", "--data", "bread") == done
    with closing(sqlite3.connect("bread/bakery.db")) as database:
        assert database.execute("SELECT number FROM numbers").fetchall() == [(7,)]


def test_tables_that_a_server_has_open_are_left_alone(run: Run) -> None:
    run("db", "upgrade")
    with hold_lock(Path("sottovoce-data/bakery.db.lock")):
        code, printed, errors = run("db", "upgrade")
    assert (code, printed) == (1, "")
    assert errors.startswith("sottovoce-bakery: another process is using sottovoce-data/bakery.db;")
    assert errors.count("\n") == 1


def test_intact_databases_are_called_so_also_while_a_server_has_them_open(run: Run) -> None:
    run("db", "upgrade")
    with hold_lock(Path("sottovoce-data/bakery.db.lock")):
        said = "sottovoce-data/bakery.db is intact\nsottovoce-data/mill.db is intact\n"
        assert run("db", "health") == (0, said, "")


def test_a_damaged_database_is_said_in_one_line(run: Run) -> None:
    run("db", "upgrade")
    write(Path("sottovoce-data/bakery.db"), "INSERT INTO numbers VALUES (7)")
    write(Path("sottovoce-data/bakery.db"), "CREATE INDEX i ON numbers(number)")
    with closing(sqlite3.connect("sottovoce-data/bakery.db")) as database, database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute("UPDATE sqlite_schema SET sql = 'CREATE INDEX i ON numbers(-number)' WHERE name = 'i'")
    code, printed, errors = run("db", "health")
    assert (code, printed, errors.count("\n")) == (1, "", 1)
    assert errors.startswith("sottovoce-bakery: sottovoce-data/bakery.db is damaged: ")
    assert errors.endswith("restore it from a backup\n")


def test_what_databases_hold_is_counted_as_toml(run: Run) -> None:
    run("db", "upgrade")
    write(Path("sottovoce-data/mill.db"), "INSERT INTO numbers VALUES (7), (8)")
    code, printed, errors = run("db", "stats")
    assert (code, errors) == (0, "")
    counted = tomllib.loads(printed)
    assert (counted["bakery"]["numbers"], counted["mill"]["numbers"]) == (0, 2)
    assert counted["mill"]["file_bytes"] == Path("sottovoce-data/mill.db").stat().st_size
    assert counted["mill"]["free_pages"] == 0


@pytest.mark.parametrize("name", ["health", "stats"])
def test_where_no_database_is_none_is_made(run: Run, name: str) -> None:
    said = "sottovoce-bakery: there is no database at elsewhere/bakery.db\n"
    assert run("db", name, "--data", "elsewhere") == (1, "", said)
    assert list(Path().iterdir()) == []


def test_copies_of_all_databases_are_made_in_a_folder_of_their_own(run: Run) -> None:
    run("db", "upgrade")
    write(Path("sottovoce-data/mill.db"), "INSERT INTO numbers VALUES (7)")
    code, printed, errors = run("db", "copy", "backups/today")
    assert (code, errors) == (0, "")
    assert printed == "".join(
        f"backups/today/{name}.db is a copy of sottovoce-data/{name}.db\n" for name in ("bakery", "mill")
    )
    assert "numbers = 1" in run("db", "stats", "--data", "backups/today")[1]
    code, printed, errors = run("db", "copy", "backups/today")
    assert (code, printed, errors.count("\n")) == (1, "", 1)


# --- What is mistyped ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("srve",), 'Unknown command "srve". Did you mean "serve"?'),
        (("db", "copi", "x"), 'Unknown command "copi". Did you mean "copy"?'),
        (("serve", "now"), "'now' is one word too many."),
        (("--prot", "1"), "Unknown option: --prot. Did you mean --port?"),
        (("--port", "any"), "Invalid value for --port"),
        (("db", "copy"), 'Command "db copy" parameter FOLDER requires an argument.'),
    ],
)
def test_what_is_mistyped_is_said_in_one_line(run: Run, words: tuple[str, ...], said: str) -> None:
    code, printed, errors = run(*words)
    assert (code, printed, errors.count("\n")) == (2, "", 1)
    assert errors.startswith(f"sottovoce-bakery: {said}")
    assert errors.endswith(" Try --help.\n")


# --- Help ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    ["config", "config check", "config show", "db", "db upgrade", "db health", "db stats", "db copy", "db restored"],
)
def test_the_help_of_other_commands_says_where_the_settings_stand(run: Run, words: str) -> None:
    _, printed, _ = run(*words.split(), "--help")
    assert "What can be set: sottovoce-bakery --help" in printed
    assert "SOTTOVOCE_SERVER_PORT" not in printed


@pytest.mark.parametrize("words", ["", "serve"])
def test_the_help_lists_every_variable_and_what_it_means(run: Run, words: str) -> None:
    code, printed, errors = run(*words.split(), "--help")
    assert (code, errors) == (0, "")
    text = " ".join(printed.split())
    for kind in (BakerySettings, MillSettings):
        for name, field in kind.model_fields.items():
            assert f"SOTTOVOCE_SERVER_{name.upper()} {field.description}" in text
    assert "SOTTOVOCE_SERVER_CONFIG" in text
    assert "SOTTOVOCE_SERVER_RECIPE_FILE" in text
    assert "How many there are. [default: 2]" in text


def test_the_help_names_the_options(run: Run) -> None:
    _, printed, _ = run("serve", "--help")
    for option in ("--config", "--data", "--host", "--port", "--public-url", "--stones"):
        assert f"{option} " in printed
    assert "--recipe" not in printed, "a secret on a command line is seen by all"


def test_a_copy_that_was_put_back_forgets_what_is_out_of_date_and_says_how_much(run: Run) -> None:
    assert run("db", "upgrade")[0] == 0
    write(Path("sottovoce-data/bakery.db"), "INSERT INTO numbers VALUES (1), (2)")
    code, printed, _ = run("db", "restored")
    assert code == 0
    assert "bakery.db is ready: 2 rows" in printed
    assert "mill.db is ready: 0 rows" in printed
    assert "numbers = 0" in run("db", "stats")[1]


def test_a_copy_beside_a_running_server_is_left_as_it_is(run: Run) -> None:
    """Also where the server has only the last of the databases open."""
    assert run("db", "upgrade")[0] == 0
    write(Path("sottovoce-data/bakery.db"), "INSERT INTO numbers VALUES (1), (2)")
    with hold_lock(Path("sottovoce-data/mill.db.lock")):
        said = "sottovoce-bakery: a server is running on this data: stop it first\n"
        assert run("db", "restored") == (1, "", said)
    assert "numbers = 2" in run("db", "stats")[1]


def test_a_reader_that_leaves_is_no_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        code, _, errors = run("config", "show")
        sys.stdout.close()  # what the command has put in its place
        monkeypatch.undo()
        with suppress(BrokenPipeError):
            pipe.close()
    assert (code, errors) == (1, "")


def test_where_no_copy_was_put_back_none_is_made(run: Run) -> None:
    code, _, said = run("db", "restored")
    assert code == 1
    assert "no database" in said
    assert not Path("sottovoce-data").exists()
