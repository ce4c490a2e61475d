"""How a store is unlocked: types. What lies in the key file for each is keyfile's; nothing is read or written here."""

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from .. import errors


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The key lies bare in the key file, which its owner alone may read."""


@dataclass(frozen=True, slots=True)
class Passphrase:
    """The key is wrapped under this text. Raises InvalidInput if it is empty."""

    text: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.text:
            raise errors.InvalidInput("an empty passphrase protects nothing; give none, or a real one")


@dataclass(frozen=True, slots=True)
class Keyring:
    """The key is wrapped under a secret that the operating system's keyring keeps."""


Unlock: TypeAlias = KeyFile | Passphrase | Keyring
KEY_FILE: Final = KeyFile()


def unlock_by(passphrase: str | None, *, keyring: bool = False) -> Unlock:
    """What the two arguments of the public calls mean together. Raises InvalidInput."""
    if keyring and passphrase is not None:
        raise errors.InvalidInput("a store is unlocked by a passphrase or by the keyring, not by both")
    if keyring:
        return Keyring()
    return KEY_FILE if passphrase is None else Passphrase(passphrase)
