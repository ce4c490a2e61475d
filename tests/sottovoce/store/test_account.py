"""The account's row: its root key cannot be read with the database's key alone, and only while it may have to sign."""

import re
from pathlib import Path

import apsw
import pytest

from sottovoce import errors
from sottovoce.crypto.errors import CryptoRefusal
from sottovoce.crypto.identity import DeviceKeys, RootKey
from sottovoce.store.account import RootLock
from sottovoce.store.database import Store, open_memory_store, open_store, set_key
from sottovoce.store.keyfile import key_path, read_keys
from sottovoce.store.unlock import KEY_FILE, Keyring
from sottovoce.stores import change_passphrase
from tests.sottovoce.people import Person, make_person
from tests.sottovoce.store.keyrings import InMemory, using


def root_of(store: Store) -> RootKey | None:
    with store.transaction() as tables:
        return tables.account.root()


def registered(store: Store) -> None:
    with store.transaction() as tables:
        tables.account.set_registered("alice")


def rows_by_the_database_key(path: Path) -> bytes:
    """All that the database holds, read with nothing but its key, as by who copied that out of a running program."""
    connection = apsw.Connection(str(path))
    set_key(connection, read_keys(key_path(path), KEY_FILE).database)
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    rows = [row for name in names for row in connection.execute(f"SELECT * FROM {name}")]  # noqa: S608 - from the schema
    connection.close()
    return b"".join(value for row in rows for value in row if isinstance(value, bytes))


def test_who_has_the_database_and_its_key_does_not_have_the_root_key(tmp_path: Path) -> None:
    alice = make_person(tmp_path / "alice.db")
    root = root_of(alice.store)
    assert root is not None
    alice.store.close()
    found = rows_by_the_database_key(tmp_path / "alice.db")
    assert alice.own.device.pack() in found, "it must be seen if it is there"
    assert root.public in found
    assert root.entropy not in found
    keys = read_keys(key_path(tmp_path / "alice.db"), KEY_FILE)
    assert keys.root not in found
    (place,) = re.finditer(re.escape(root.public), found)
    wrapped = found[place.end() : place.end() + 60]
    opened = RootLock(keys.root).unwrap(wrapped, root.public)
    assert opened is not None
    assert opened.entropy == root.entropy
    with pytest.raises(CryptoRefusal):
        RootLock(keys.database).unwrap(wrapped, root.public)


def test_the_root_key_can_be_had_until_the_account_is_registered_and_not_after(tmp_path: Path) -> None:
    person = make_person(tmp_path / "alice.db")
    person.store.close()
    store = open_store(tmp_path / "alice.db")
    root = root_of(store)
    assert root is not None
    assert root.public == person.own.root_public
    with store.transaction() as tables:
        tables.account.lock_root()
    assert root_of(store) is not None, "there was no registration yet"
    registered(store)
    with store.transaction() as tables:
        tables.account.lock_root()
    assert root_of(store) is None
    store.close()
    store = open_store(tmp_path / "alice.db")
    assert root_of(store) is None
    store.close()


def test_another_way_to_unlock_the_store_leaves_the_root_key_as_it_is(tmp_path: Path) -> None:
    person = make_person(tmp_path / "alice.db")
    person.store.close()
    with using(InMemory()):
        change_passphrase(tmp_path / "alice.db", None, None, to_keyring=True)
        store = open_store(tmp_path / "alice.db", Keyring())
        root = root_of(store)
        store.close()
    assert root is not None
    assert root.account_id == person.own.account_id


@pytest.mark.parametrize("column", ["wrapped_root", "root_public"])
def test_a_root_key_that_is_not_this_account_s_is_refused(alice: Person, column: str) -> None:
    with alice.store.transaction() as tables:
        value = tables.account._execute(f"SELECT {column} FROM account").get  # noqa: S608 - two names
        altered = value[:-1] + bytes([value[-1] ^ 1])
        tables.account._execute(f"UPDATE account SET {column} = ?", (altered,))  # noqa: S608
        with pytest.raises(errors.StoreUnreadable):
            tables.account.root()


def test_a_store_in_memory_keeps_it_open_since_nothing_else_does() -> None:
    store = open_memory_store()
    root = RootKey.generate()
    with store.transaction() as tables:
        tables.account.create("http://127.0.0.1:1", root, DeviceKeys.generate(), b"")
    registered(store)
    with store.transaction() as tables:
        tables.account.lock_root()
        found = tables.account.root()
    store.close()
    assert found is not None
    assert found.public == root.public
