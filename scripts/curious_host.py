"""What somebody who runs the server can see: its database files, opened with nothing but sqlite3.

Reads only, and knows of the servers' insides no more than the name of the table that holds envelopes.
"""

import sqlite3
from contextlib import closing
from pathlib import Path


def row_counts(database: Path) -> dict[str, int]:
    """Each table of the file and how many rows it has."""
    with closing(_open(database)) as connection:
        named = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        return {
            name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]  # noqa: S608 - the file's own name
            for (name,) in named
        }


def one_envelope(database: Path) -> bytes | None:
    """The body of an envelope from the middle of the queue, or None if none waits."""
    with closing(_open(database)) as connection:
        row = connection.execute(
            "SELECT body FROM envelopes ORDER BY seq LIMIT 1 OFFSET (SELECT count(*) / 2 FROM envelopes)"
        ).fetchone()
    return None if row is None else bytes(row[0])


def _open(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)
