"""What the demonstration shows of a server's databases is what stands in them."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from scripts.curious_host import one_envelope, row_counts


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "relay.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE queues (id BLOB)")
        connection.execute("CREATE TABLE envelopes (seq INTEGER, body BLOB)")
        connection.executemany("INSERT INTO envelopes VALUES (?, ?)", [(n, bytes([n]) * 256) for n in range(5)])
        connection.commit()
    return path


def test_each_table_is_counted(database: Path) -> None:
    assert row_counts(database) == {"envelopes": 5, "queues": 0}


def test_an_envelope_from_the_middle_is_shown(database: Path) -> None:
    assert one_envelope(database) == b"\x02" * 256


def test_an_empty_queue_has_no_envelope_to_show(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DELETE FROM envelopes")
        connection.commit()
    assert one_envelope(database) is None


def test_the_look_changes_nothing(database: Path) -> None:
    before = database.read_bytes()
    row_counts(database)
    one_envelope(database)
    assert database.read_bytes() == before
    assert list(database.parent.iterdir()) == [database]
