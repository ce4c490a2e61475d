"""The tables of the migrations are the tables that the statements mean."""

from pathlib import Path

from sqlalchemy import Connection, create_engine, insert, select, text

import sottovoce_keyserver.storage
from sottovoce_hosting.database import open_database
from sottovoce_keyserver.storage import forget_one_time_prekeys, metadata, one_time_prekeys

MIGRATIONS = Path(sottovoce_keyserver.storage.__file__).with_name("migrations")


def tables(connection: Connection) -> set[tuple[str, str, str]]:
    rows = connection.execute(text("SELECT type, name, sql FROM sqlite_master WHERE tbl_name != 'alembic_version'"))
    return {(kind, name, " ".join((sql or "").split())) for kind, name, sql in rows}


async def test_the_migrations_make_the_tables_of_the_statements(tmp_path: Path) -> None:
    plain = create_engine("sqlite://")
    with plain.begin() as connection:
        metadata.create_all(connection)
        meant = tables(connection)
    plain.dispose()
    async with open_database(tmp_path / "keyserver.db", MIGRATIONS) as database:
        assert await database.read(tables) == meant


def test_a_copy_that_was_put_back_has_no_one_time_prekeys_left() -> None:
    prekeys = [{"account_id": b"a" * 32, "device_id": b"d" * 16, "id": number, "key": b"k" * 32} for number in (1, 2)]
    plain = create_engine("sqlite://")
    with plain.begin() as connection:
        metadata.create_all(connection)
        connection.execute(insert(one_time_prekeys), prekeys)
        assert forget_one_time_prekeys(connection) == 2
        assert connection.execute(select(one_time_prekeys)).all() == []
    plain.dispose()
