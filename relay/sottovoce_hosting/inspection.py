"""A look at a server's database from outside, also while the server runs: nothing of it is ever changed here.

What the tables mean stands in the services.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, Connection, NullPool, create_engine, exc

from .database import DatabaseError


@contextmanager
def inspecting(path: Path) -> Iterator[Connection]:
    """A connection that reads one committed state of the SQLite file. Raises DatabaseError: there is none, or SQLite
    cannot read it or what is asked of it."""
    if not path.is_file():
        raise DatabaseError(f"there is no database at {path}")
    url = URL.create("sqlite", database=f"file:{quote(str(path))}", query={"mode": "ro", "uri": "true"})
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            yield connection
    except exc.DBAPIError as error:
        raise DatabaseError(f"cannot read {path}: {error.orig}") from None
    finally:
        engine.dispose()


def copy_database(path: Path, copy: Path) -> None:
    """Write one committed state of the SQLite file to `copy`, a new file that its owner alone may read.

    Raises DatabaseError: there is such a file, it cannot be written, or what `inspecting` raises. Then no half is left.
    """
    with inspecting(path) as connection:
        source = connection.connection.driver_connection
        assert isinstance(source, sqlite3.Connection)  # noqa: S101 - the URL says so
        try:
            os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError as error:
            raise DatabaseError(f"cannot make {copy}: {error.strerror}; choose another folder") from None
        try:
            with closing(sqlite3.connect(copy)) as target:
                source.backup(target)
                target.execute("PRAGMA journal_mode = DELETE")  # one file, that needs no other beside it
        except BaseException as error:
            copy.unlink(missing_ok=True)
            if isinstance(error, sqlite3.Error):
                raise DatabaseError(f"cannot copy {path} to {copy}: {error}") from None
            raise


def damage(connection: Connection) -> str | None:
    """What SQLite's integrity check finds first, or None. Names no data. Reads the whole file."""
    found = str(connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one())
    return None if found == "ok" else " ".join(found.split())


def file_statistics(connection: Connection) -> dict[str, int]:
    """How large the file is, and how many of its pages are free."""
    pages, size, free = (
        int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
        for name in ("page_count", "page_size", "freelist_count")
    )
    return {"file_bytes": pages * size, "free_pages": free}
