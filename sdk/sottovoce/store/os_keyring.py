"""The operating system's keyring: one secret for each store, and every failure of it as one error of ours.

The package `keyring` is optional, and imported only when a store asks for it. No secret stands in an error.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from .. import errors

#: The name under which a keyring's own program shows the entries.
SERVICE: Final = "sottovoce"
SECRET_LENGTH: Final = 32


def keep(entry: str, secret: bytes) -> None:
    """Keep a secret of 32 bytes under the name `entry`. Raises KeyringUnavailable, also if it is not kept."""
    with _translated():
        import keyring

        keyring.set_password(SERVICE, entry, secret.hex())
    if find(entry) != secret:
        raise errors.KeyringUnavailable("the keyring does not keep what it is given")


def find(entry: str) -> bytes:
    """The secret under `entry` (32 bytes). Raises KeyringUnavailable, also if there is none."""
    with _translated():
        import keyring

        text = keyring.get_password(SERVICE, entry)
    if text is None:
        raise errors.KeyringUnavailable(
            "the keyring has no key for this store", hint="it may have been made by another user or on another machine"
        )
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) != SECRET_LENGTH:
        raise errors.KeyringUnavailable("the keyring's entry for this store is damaged")
    return secret


def forget(entry: str) -> None:
    """Remove what is under `entry`. Raises KeyringUnavailable."""
    with _translated():
        import keyring

        keyring.delete_password(SERVICE, entry)


@contextmanager
def _translated() -> Iterator[None]:
    """A backend is foreign code that talks to foreign programs: whatever it raises, its text is not passed on."""
    try:
        yield
    except ImportError:
        raise errors.KeyringUnavailable(
            "the package keyring is not installed", hint="in a clone, pip install '.[keyring]'"
        ) from None
    except Exception as error:
        raise errors.KeyringUnavailable(f"the keyring does not answer ({type(error).__name__})") from None
