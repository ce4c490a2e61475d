"""The tables of the migrations are the tables that the statements mean."""

from pathlib import Path

from sqlalchemy import Connection, create_engine, text

import sottovoce_keyserver.storage
from sottovoce_hosting.database import open_database
from sottovoce_keyserver.storage import metadata

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
