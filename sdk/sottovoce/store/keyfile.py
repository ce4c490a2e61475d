"""The key file beside a store: the 32-byte database key, bare (mode 0600) or wrapped under a passphrase.

Layout: magic ‖ kind (1) ‖ fields. Kind 0: key (32). Kind 1: salt (16) ‖ Argon2id passes (4) ‖ memory in bytes (8) ‖
AES-256-GCM nonce and wrapped key (60). The database key is random, so a new passphrase leaves the store as it is.
Spec: store.
"""

import os
import struct
from pathlib import Path
from typing import Final

from sottovoce_wire import labels, limits

from .. import errors
from ..crypto import primitives
from ..crypto.errors import CryptoRefusal

MAGIC: Final = b"Sottovoce store key 1\n"
KEY_LENGTH: Final = 32
_PLAIN: Final = 0
_PASSPHRASE: Final = 1
#: RFC 9106, second recommended choice: 3 passes over 64 MiB.
_PASSES: Final = 3
_MEMORY: Final = 64 * limits.MIB
#: A hostile key file may not ask for more than this.
_MAX_PASSES: Final = 32
_MAX_MEMORY: Final = 1024 * limits.MIB
_FIELDS: Final = struct.Struct(">16sIQ60s")


def key_path(store: Path) -> Path:
    """The key file of the store at `store`."""
    return store.with_name(store.name + ".key")


def create_key(path: Path, passphrase: str | None) -> bytes:
    """Make a new database key, write its file durably, and return the key (32 bytes)."""
    key = primitives.random_bytes(KEY_LENGTH)
    content = MAGIC + (bytes([_PLAIN]) + key if passphrase is None else bytes([_PASSPHRASE]) + _wrap(key, passphrase))
    _write_durably(path, content)
    return key


def read_key(path: Path, passphrase: str | None) -> bytes:
    """The database key (32 bytes). Raises WrongPassphrase, PassphraseNeeded or StoreUnreadable."""
    with path.open("rb") as file:
        content = file.read(4096)
        open_to_others = os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077
    if not content.startswith(MAGIC) or len(content) == len(MAGIC):
        raise errors.StoreUnreadable(f"{path.name} is not a store's key file")
    kind, fields = content[len(MAGIC)], content[len(MAGIC) + 1 :]
    if kind == _PASSPHRASE and len(fields) == _FIELDS.size:
        return _unwrap(fields, passphrase)
    if kind != _PLAIN or len(fields) != KEY_LENGTH:
        raise errors.StoreUnreadable(f"{path.name} is damaged")
    if passphrase is not None:
        raise errors.WrongPassphrase("this store has no passphrase", hint="open it without one")
    if open_to_others:
        raise errors.StoreUnreadable(f"others may read {path.name}", hint=f"chmod 600 {path}")
    return fields


def _wrap(key: bytes, passphrase: str) -> bytes:
    salt = primitives.random_bytes(16)
    wrapping = _stretch(passphrase, salt, _PASSES, _MEMORY)
    return _FIELDS.pack(salt, _PASSES, _MEMORY, primitives.wrap_key(wrapping, key, labels.STORE_KEY))


def _unwrap(fields: bytes, passphrase: str | None) -> bytes:
    if passphrase is None:
        raise errors.PassphraseNeeded("this store has a passphrase")
    salt, passes, memory, wrapped = _FIELDS.unpack(fields)
    if not (1 <= passes <= _MAX_PASSES and limits.MIB <= memory <= _MAX_MEMORY):
        raise errors.StoreUnreadable("the key file is damaged")
    try:
        return primitives.unwrap_key(_stretch(passphrase, salt, passes, memory), wrapped, labels.STORE_KEY)
    except CryptoRefusal:
        raise errors.WrongPassphrase("the passphrase is wrong") from None


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
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
