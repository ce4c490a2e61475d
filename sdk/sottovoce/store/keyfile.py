"""The key file beside a store: the key of its database and the one of the account's root key, bare (mode 0600) or
wrapped under a passphrase or a secret of the operating system's keyring.

Layout: magic ‖ kind (1) ‖ fields. Kind 0: both keys (64). Kind 1: salt (16) ‖ Argon2id passes (4) ‖ memory in bytes (8)
‖ both, wrapped (120). Kind 2: entry (16) ‖ both, wrapped (120). The keys are random, so a new passphrase leaves the
store as it is. Spec: store.
"""

import os
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sottovoce_wire import labels, limits

from .. import errors
from ..crypto import primitives
from ..crypto.errors import CryptoRefusal
from . import os_keyring
from .unlock import KeyFile, Keyring, Passphrase, Unlock

MAGIC: Final = b"Sottovoce store key 1\n"
KEY_LENGTH: Final = 32
_PLAIN: Final = 0
_PASSPHRASE: Final = 1
_KEYRING: Final = 2
#: RFC 9106, second recommended choice: 3 passes over 64 MiB.
_PASSES: Final = 3
_MEMORY: Final = 64 * limits.MIB
#: A hostile key file may not ask for more than this.
_MAX_PASSES: Final = 32
_MAX_MEMORY: Final = 1024 * limits.MIB
_BARE: Final = struct.Struct(">32s32s")
_FIELDS: Final = struct.Struct(">16sIQ120s")
_ENTRY: Final = struct.Struct(">16s120s")
_LENGTHS: Final = {_PLAIN: _BARE.size, _PASSPHRASE: _FIELDS.size, _KEYRING: _ENTRY.size}
#: The length of one key that is wrapped.
_WRAPPED: Final = 60


@dataclass(frozen=True, slots=True)
class Keys:
    """What a key file keeps, 32 random bytes each: the key of the `database`, and the one that the account's `root` key
    in it is wrapped under."""

    database: bytes = field(repr=False)
    root: bytes = field(repr=False)


def key_path(store: Path) -> Path:
    """The key file of the store at `store`."""
    return store.with_name(store.name + ".key")


def create_keys(path: Path, unlock: Unlock) -> Keys:
    """Make new keys, write their file durably, and return them. Raises KeyringUnavailable."""
    keys = Keys(primitives.random_bytes(KEY_LENGTH), primitives.random_bytes(KEY_LENGTH))
    _write_durably(path, _content(keys, unlock))
    return keys


def read_keys(path: Path, unlock: Unlock) -> Keys:
    """The keys. Raises WrongPassphrase, PassphraseNeeded, KeyringNeeded, KeyringUnavailable or StoreUnreadable."""
    kind, fields = _read(path)
    match unlock:
        case KeyFile():
            return Keys(*_BARE.unpack(_bare(path, kind, fields)))
        case Passphrase():
            return _unwrap_by_passphrase(_expect(kind, _PASSPHRASE, fields), unlock.text)
        case Keyring():
            return _unwrap_by_keyring(_expect(kind, _KEYRING, fields))


def change_key_file(path: Path, old: Unlock, new: Unlock) -> None:
    """Keep the same keys in another way. Raises what `read_keys` raises, and OSError.

    A kill or a power cut at any point leaves the old way or the new one: the file is replaced whole, a keyring's entry
    is made before that and the one before is removed after."""
    keys, (kind, fields) = read_keys(path, old), _read(path)
    _write_durably(path, _content(keys, new))
    if kind == _KEYRING:
        with suppress(errors.KeyringUnavailable):  # it opens nothing any more
            os_keyring.forget(_entry_name(fields))


def _content(keys: Keys, unlock: Unlock) -> bytes:
    match unlock:
        case KeyFile():
            return MAGIC + bytes([_PLAIN]) + _BARE.pack(keys.database, keys.root)
        case Passphrase():
            return MAGIC + bytes([_PASSPHRASE]) + _wrap_by_passphrase(keys, unlock.text)
        case Keyring():
            return MAGIC + bytes([_KEYRING]) + _wrap_by_keyring(keys)


def _read(path: Path) -> tuple[int, bytes]:
    """The kind and the fields, of the length that the kind has. Raises StoreUnreadable."""
    with path.open("rb") as file:
        content = file.read(4096)
    if not content.startswith(MAGIC) or len(content) == len(MAGIC):
        raise errors.StoreUnreadable(f"{path.name} is not a store's key file")
    kind, fields = content[len(MAGIC)], content[len(MAGIC) + 1 :]
    if _LENGTHS.get(kind) != len(fields):
        raise errors.StoreUnreadable(f"{path.name} is damaged")
    return kind, fields


def _bare(path: Path, kind: int, fields: bytes) -> bytes:
    if kind == _PASSPHRASE:
        raise errors.PassphraseNeeded("this store has a passphrase")
    if kind == _KEYRING:
        raise errors.KeyringNeeded("this store's key is in the operating system's keyring")
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise errors.StoreUnreadable(f"others may read {path.name}", hint=f"chmod 600 {path}")
    return fields


def _expect(kind: int, expected: int, fields: bytes) -> bytes:
    """The fields of a key file of the kind that the caller believes it to have."""
    if kind == expected:
        return fields
    if kind == _PASSPHRASE:
        raise errors.PassphraseNeeded("this store has a passphrase, and its key is not in the keyring")
    if kind == _KEYRING:
        raise errors.KeyringNeeded("this store has no passphrase, its key is in the operating system's keyring")
    raise errors.WrongPassphrase("this store has no passphrase, its key lies beside it", hint="open it without one")


def _wrap(wrapping: bytes, keys: Keys) -> bytes:
    return primitives.wrap_key(wrapping, keys.database, labels.STORE_KEY) + primitives.wrap_key(
        wrapping, keys.root, labels.ROOT_WRAP
    )


def _unwrap(wrapping: bytes, wrapped: bytes) -> Keys:
    """Raises CryptoRefusal (NOT_AUTHENTIC) for the wrong key, StoreUnreadable if it opens the first half alone."""
    database = primitives.unwrap_key(wrapping, wrapped[:_WRAPPED], labels.STORE_KEY)
    try:
        return Keys(database, primitives.unwrap_key(wrapping, wrapped[_WRAPPED:], labels.ROOT_WRAP))
    except CryptoRefusal:
        raise errors.StoreUnreadable("the key file is damaged") from None


def _wrap_by_passphrase(keys: Keys, passphrase: str) -> bytes:
    salt = primitives.random_bytes(16)
    wrapping = _stretch(passphrase, salt, _PASSES, _MEMORY)
    return _FIELDS.pack(salt, _PASSES, _MEMORY, _wrap(wrapping, keys))


def _unwrap_by_passphrase(fields: bytes, passphrase: str) -> Keys:
    salt, passes, memory, wrapped = _FIELDS.unpack(fields)
    if not (1 <= passes <= _MAX_PASSES and limits.MIB <= memory <= _MAX_MEMORY):
        raise errors.StoreUnreadable("the key file is damaged")
    try:
        return _unwrap(_stretch(passphrase, salt, passes, memory), wrapped)
    except CryptoRefusal:
        raise errors.WrongPassphrase("the passphrase is wrong") from None


def _wrap_by_keyring(keys: Keys) -> bytes:
    entry, secret = primitives.random_bytes(16), primitives.random_bytes(os_keyring.SECRET_LENGTH)
    os_keyring.keep(entry.hex(), secret)
    return _ENTRY.pack(entry, _wrap(secret, keys))


def _unwrap_by_keyring(fields: bytes) -> Keys:
    secret = os_keyring.find(_entry_name(fields))
    try:
        return _unwrap(secret, _ENTRY.unpack(fields)[1])
    except CryptoRefusal:
        raise errors.StoreUnreadable("the key file is damaged, or the keyring's entry belongs to another") from None


def _entry_name(fields: bytes) -> str:
    entry: bytes = _ENTRY.unpack(fields)[0]
    return entry.hex()


def _stretch(passphrase: str, salt: bytes, passes: int, memory: int) -> bytes:
    return primitives.derive_key_from_passphrase(
        passphrase.encode("utf-8", "surrogatepass"), salt, opslimit=passes, memlimit=memory
    )


def _write_durably(path: Path, content: bytes) -> None:
    """All or nothing, also across a power cut: a store whose key file is half written could never be opened again."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make what a folder lists durable, where the system offers that."""
    if os.name == "posix":
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
