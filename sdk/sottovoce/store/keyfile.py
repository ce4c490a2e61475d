"""The key file beside a store: the 32-byte database key, bare (mode 0600) or wrapped under a passphrase or a secret of
the operating system's keyring.

Layout: magic ‖ kind (1) ‖ fields. Kind 0: key (32). Kind 1: salt (16) ‖ Argon2id passes (4) ‖ memory in bytes (8) ‖
AES-256-GCM nonce and wrapped key (60). Kind 2: entry (16) ‖ nonce and wrapped key (60). The database key is random,
so a new passphrase leaves the store as it is. Spec: store.
"""

import os
import struct
from contextlib import suppress
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
_FIELDS: Final = struct.Struct(">16sIQ60s")
_ENTRY: Final = struct.Struct(">16s60s")
_LENGTHS: Final = {_PLAIN: KEY_LENGTH, _PASSPHRASE: _FIELDS.size, _KEYRING: _ENTRY.size}


def key_path(store: Path) -> Path:
    """The key file of the store at `store`."""
    return store.with_name(store.name + ".key")


def create_key(path: Path, unlock: Unlock) -> bytes:
    """Make a new database key, write its file durably, and return the key (32 bytes). Raises KeyringUnavailable."""
    key = primitives.random_bytes(KEY_LENGTH)
    _write_durably(path, _content(key, unlock))
    return key


def read_key(path: Path, unlock: Unlock) -> bytes:
    """The database key (32 bytes). Raises WrongPassphrase, PassphraseNeeded, KeyringNeeded, KeyringUnavailable or
    StoreUnreadable."""
    kind, fields = _read(path)
    match unlock:
        case KeyFile():
            return _bare(path, kind, fields)
        case Passphrase():
            return _unwrap(_expect(kind, _PASSPHRASE, fields), unlock.text)
        case Keyring():
            return _unwrap_by_keyring(_expect(kind, _KEYRING, fields))


def change_key_file(path: Path, old: Unlock, new: Unlock) -> None:
    """Keep the same key in another way. Raises what `read_key` raises, and OSError.

    A kill or a power cut at any point leaves the old way or the new one: the file is replaced whole, a keyring's entry
    is made before that and the one before is removed after."""
    key, (kind, fields) = read_key(path, old), _read(path)
    _write_durably(path, _content(key, new))
    if kind == _KEYRING:
        with suppress(errors.KeyringUnavailable):  # it opens nothing any more
            os_keyring.forget(_entry_name(fields))


def _content(key: bytes, unlock: Unlock) -> bytes:
    match unlock:
        case KeyFile():
            return MAGIC + bytes([_PLAIN]) + key
        case Passphrase():
            return MAGIC + bytes([_PASSPHRASE]) + _wrap(key, unlock.text)
        case Keyring():
            return MAGIC + bytes([_KEYRING]) + _wrap_by_keyring(key)


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


def _wrap(key: bytes, passphrase: str) -> bytes:
    salt = primitives.random_bytes(16)
    wrapping = _stretch(passphrase, salt, _PASSES, _MEMORY)
    return _FIELDS.pack(salt, _PASSES, _MEMORY, primitives.wrap_key(wrapping, key, labels.STORE_KEY))


def _unwrap(fields: bytes, passphrase: str) -> bytes:
    salt, passes, memory, wrapped = _FIELDS.unpack(fields)
    if not (1 <= passes <= _MAX_PASSES and limits.MIB <= memory <= _MAX_MEMORY):
        raise errors.StoreUnreadable("the key file is damaged")
    try:
        return primitives.unwrap_key(_stretch(passphrase, salt, passes, memory), wrapped, labels.STORE_KEY)
    except CryptoRefusal:
        raise errors.WrongPassphrase("the passphrase is wrong") from None


def _wrap_by_keyring(key: bytes) -> bytes:
    entry, secret = primitives.random_bytes(16), primitives.random_bytes(os_keyring.SECRET_LENGTH)
    os_keyring.keep(entry.hex(), secret)
    return _ENTRY.pack(entry, primitives.wrap_key(secret, key, labels.STORE_KEY))


def _unwrap_by_keyring(fields: bytes) -> bytes:
    secret = os_keyring.find(_entry_name(fields))
    try:
        return primitives.unwrap_key(secret, _ENTRY.unpack(fields)[1], labels.STORE_KEY)
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
