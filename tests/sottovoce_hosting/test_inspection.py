"""Looking at a database from outside: beside the server that has it open, and without changing a byte."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from sottovoce_hosting.database import DatabaseError, open_database
from sottovoce_hosting.inspection import copy_database, damage, file_statistics, inspecting
from tests.sottovoce_hosting.test_database import add, count, migrations

__all__ = ["migrations"]  # a fixture


def damaged(path: Path) -> None:
    """A database with an index that has lost an entry."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript("CREATE TABLE numbers(number); INSERT INTO numbers VALUES (1), (2), (3);")
        database.executescript("CREATE INDEX i ON numbers(number); PRAGMA writable_schema = ON;")
        database.executescript(
            "UPDATE sqlite_schema SET sql = 'CREATE INDEX i ON numbers(number + 1)' WHERE name = 'i';"
        )


async def test_an_open_database_is_read_as_it_was_committed(tmp_path: Path, migrations: Path) -> None:
    path = tmp_path / "a.db"
    async with open_database(path, migrations) as database:
        await database.write(lambda c: add(c, 1))
        with inspecting(path) as connection:
            assert count(connection) == 1
            await database.write(lambda c: add(c, 2))
            assert count(connection) == 1, "one state"
            assert damage(connection) is None
        with inspecting(path) as connection:
            assert count(connection) == 2


async def test_nothing_can_be_written(tmp_path: Path, migrations: Path) -> None:
    path = tmp_path / "a.db"
    async with open_database(path, migrations):
        pass
    before = path.read_bytes()
    with pytest.raises(DatabaseError, match="readonly"), inspecting(path) as connection:
        add(connection, 1)
    assert path.read_bytes() == before


def test_where_no_database_is_none_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with pytest.raises(DatabaseError, match="there is no database at"), inspecting(path):
        pass
    assert not path.exists()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a?b#c%20.db"
    path.write_bytes(b"x" * 4096)
    with pytest.raises(DatabaseError) as caught, inspecting(path) as connection:
        damage(connection)
    assert str(caught.value) == f"cannot read {path}: file is not a database"


def test_damage_is_found(tmp_path: Path) -> None:
    damaged(tmp_path / "a.db")
    with inspecting(tmp_path / "a.db") as connection:
        found = damage(connection)
    assert found is not None
    assert "index i" in found


def test_the_files_size_and_its_free_pages_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript("CREATE TABLE t(b); INSERT INTO t VALUES (zeroblob(100000)); DELETE FROM t;")
    with inspecting(path) as connection:
        counted = file_statistics(connection)
        assert connection.execute(text("SELECT count(*) FROM t")).scalar_one() == 0
    assert counted["file_bytes"] == path.stat().st_size
    assert counted["free_pages"] >= 20


async def test_a_copy_made_beside_the_server_is_one_whole_file_for_its_owner_alone(
    tmp_path: Path, migrations: Path
) -> None:
    path, copy = tmp_path / "a.db", tmp_path / "copies" / "a.db"
    copy.parent.mkdir()
    async with open_database(path, migrations) as database:
        await database.write(lambda c: add(c, 1))
        copy_database(path, copy)
        await database.write(lambda c: add(c, 2))
    assert copy.stat().st_mode & 0o077 == 0
    with inspecting(copy) as connection:
        assert (count(connection), damage(connection)) == (1, None)
    assert list(copy.parent.iterdir()) == [copy]


def test_no_copy_is_written_over(tmp_path: Path) -> None:
    damaged(tmp_path / "a.db")
    copy = tmp_path / "b.db"
    copy.write_bytes(b"the only copy of something")
    with pytest.raises(DatabaseError, match=r"b\.db: File exists; choose another folder"):
        copy_database(tmp_path / "a.db", copy)
    assert copy.read_bytes() == b"the only copy of something"


def test_of_what_cannot_be_copied_no_half_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"x" * 4096)
    with pytest.raises(DatabaseError, match=r"cannot copy .*a\.db to .*b\.db: file is not a database"):
        copy_database(path, tmp_path / "b.db")
    assert list(tmp_path.iterdir()) == [path]
