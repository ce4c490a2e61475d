"""What can be done with a store that no client has open: another passphrase, a check, and reading what is left of it.

Plain blocking functions on a path. Nothing here knows a network, and nothing changes what a store holds.
"""

from collections.abc import Generator
from contextlib import closing
from os import PathLike
from pathlib import Path

from . import errors
from .store import check, keyfile
from .store.check import Progress, StoredMessage, StoreReport, TableReport
from .store.database import locked, refuse_other
from .store.unlock import unlock_by

__all__ = [
    "Progress",
    "StoreReport",
    "StoredMessage",
    "TableReport",
    "change_passphrase",
    "check_store",
    "read_intact",
]


def change_passphrase(
    path: str | PathLike[str],
    old: str | None,
    new: str | None,
    *,
    from_keyring: bool = False,
    to_keyring: bool = False,
) -> None:
    """Unlock the store at `path` with `new` from now on. None is no passphrase: the key then lies bare in the key file,
    or in the operating system's keyring where `from_keyring` or `to_keyring` says so.

    A kill or a power cut at any point leaves a store that opens the old way or the new one. The database is not
    encrypted again: whoever has a copy of the key file from before still opens it the old way, later states too.
    Raises StoreInUse, WrongPassphrase, PassphraseNeeded, KeyringNeeded, KeyringUnavailable, StoreUnreadable,
    StoreFailed or InvalidInput.
    """
    before, after = unlock_by(old, keyring=from_keyring), unlock_by(new, keyring=to_keyring)
    store = Path(path)
    refuse_other(store)
    key_file = keyfile.key_path(store)
    if not key_file.is_file():
        raise errors.StoreUnreadable(f"there is no {key_file.name} beside the store", hint="check the path")
    with locked(store) as held, closing(held):
        try:
            keyfile.change_key_file(key_file, before, after)
        except OSError as error:
            raise errors.StoreFailed(f"cannot write {key_file.name}: {error.strerror}") from None


def check_store(
    path: str | PathLike[str],
    *,
    passphrase: str | None = None,
    keyring: bool = False,
    progress: Progress | None = None,
) -> StoreReport:
    """Read the whole store at `path` and say what is damaged. It is only read; beside it there must be room for a copy.

    `progress` is called with the tables that were checked and how many there are. Raises StoreUnreadable if nothing can
    be read, StoreInUse, WrongPassphrase, PassphraseNeeded, KeyringNeeded, KeyringUnavailable, StoreFailed or
    InvalidInput.
    """
    return check.check(Path(path), unlock_by(passphrase, keyring=keyring), progress)


def read_intact(
    path: str | PathLike[str],
    *,
    passphrase: str | None = None,
    keyring: bool = False,
    progress: Progress | None = None,
) -> Generator[StoredMessage, None, None]:
    """The received messages that can still be read from a store, damaged or not, in the order of arrival.

    The store is only read, and locked until the iterator is used up or closed; beside it there must be room for a copy.
    `progress` is called with the place of a message and that of the last. Raises, at the first step, what `check_store`
    raises.
    """
    return check.read_messages(Path(path), unlock_by(passphrase, keyring=keyring), progress)
