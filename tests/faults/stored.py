"""What must hold of a relay's database whenever it is looked at from outside, whatever ended the relay."""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

#: Statements that find what must not be there, by what that is.
_FAULTS: Final = {
    "a send key without a queue": "SELECT count(*) FROM send_keys WHERE queue NOT IN (SELECT number FROM queues)",
    "an envelope without a queue": "SELECT count(*) FROM envelopes WHERE queue NOT IN (SELECT number FROM queues)",
    "an envelope without its body": """
        SELECT count(*) FROM envelopes e LEFT JOIN bodies b ON b.id = e.shared
        WHERE (e.body IS NULL) = (b.body IS NULL) OR (e.shared IS NULL) = (e.body IS NULL)
    """,
    "an envelope of another size": """
        SELECT count(*) FROM envelopes e LEFT JOIN bodies b ON b.id = e.shared
        WHERE e.size != length(coalesce(e.body, b.body))
    """,
    "a body that nothing points to": "SELECT count(*) FROM bodies WHERE id NOT IN (SELECT shared FROM envelopes"
    " WHERE shared IS NOT NULL)",
}


@contextmanager
def copy_of(folder: Path) -> Iterator[sqlite3.Connection]:
    """The database in `folder`, in a copy: looking at it would do the relay's own recovery."""
    with tempfile.TemporaryDirectory() as copy:
        for file in folder.glob("relay.db*"):
            shutil.copy(file, copy)
        with closing(sqlite3.connect(Path(copy, "relay.db"))) as connection:
            yield connection


def faults_in(folder: Path) -> list[str]:
    """What is wrong with the database in `folder`."""
    with copy_of(folder) as connection:
        integrity = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        found = [] if integrity == ["ok"] else integrity
        found += [f"foreign key of {row[0]}" for row in connection.execute("PRAGMA foreign_key_check")]
        return found + [name for name, statement in _FAULTS.items() if connection.execute(statement).fetchone()[0]]


def envelopes_in(folder: Path) -> int:
    """How many envelopes it holds."""
    with copy_of(folder) as connection:
        count: int = connection.execute("SELECT count(*) FROM envelopes").fetchone()[0]
        return count
