"""What a keyserver's database holds, in numbers that name nobody: for whoever runs the keyserver."""

from sqlalchemy import Connection, func, select

from . import storage


def statistics(connection: Connection) -> dict[str, int]:
    """Counts of accounts, usernames, devices and one-time prekeys."""
    tables = (storage.accounts, storage.usernames, storage.devices, storage.one_time_prekeys)
    return {table.name: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables}
