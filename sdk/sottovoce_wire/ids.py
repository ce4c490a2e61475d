"""Identifiers: fixed-length byte strings, each its own type, and their text forms.

Account, device and queue ids are hashes of the public keys that they name, so an id pins its key and
nobody can claim another's. The only hash used is SHA-256 from the standard library.
"""

import base64
import binascii
import hashlib
import re
from typing import Final, NewType

from . import labels, limits
from .errors import Code, WireError

AccountId = NewType("AccountId", bytes)  # 32 bytes
DeviceId = NewType("DeviceId", bytes)  # 16 bytes
QueueId = NewType("QueueId", bytes)  # 16 bytes
EnvelopeId = NewType("EnvelopeId", bytes)  # 16 bytes, random per target and ciphertext
GroupId = NewType("GroupId", bytes)  # 32 bytes, random, inside the ciphertext
MessageId = NewType("MessageId", bytes)  # 16 bytes, random, inside the ciphertext
SendKey = NewType("SendKey", bytes)  # 32 bytes, secret between an owner and a sender
SendKeyHash = NewType("SendKeyHash", bytes)  # 32 bytes, what the relay stores of it

_USERNAME: Final = re.compile(r"[a-z][a-z0-9._-]*", re.ASCII)


def _sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def account_id_of(root_public_key: bytes) -> AccountId:
    """SHA-256(L(account id) ‖ root public key): 32 bytes (spec: identity)."""
    return AccountId(_sha256(labels.ACCOUNT_ID, root_public_key))


def device_id_of(signing_key: bytes, identity_key: bytes) -> DeviceId:
    """SHA-256(L(device id) ‖ signing key ‖ identity key)[:16] (spec: identity)."""
    return DeviceId(_sha256(labels.DEVICE_ID, signing_key, identity_key)[:16])


def queue_id_of(owner_key: bytes) -> QueueId:
    """SHA-256(L(queue id) ‖ first owner public key)[:16] (spec: relay)."""
    return QueueId(_sha256(labels.QUEUE_ID, owner_key)[:16])


def send_key_hash(key: SendKey) -> SendKeyHash:
    """SHA-256(L(send key hash) ‖ send key): all that a relay keeps of a send key."""
    return SendKeyHash(_sha256(labels.SEND_KEY_HASH, key))


def account_id_text(account_id: AccountId) -> str:
    """The 52 characters a person copies: lower-case base32 without padding."""
    return base64.b32encode(account_id).decode("ascii").rstrip("=").lower()


def parse_account_id(text: str) -> AccountId:
    """The inverse of `account_id_text`. Raises WireError for anything that is not its exact output."""
    try:
        account_id = AccountId(base64.b32decode(text.upper() + "====", casefold=False))
    except (binascii.Error, ValueError):
        raise WireError(Code.BAD_REQUEST, "an account id has 52 base32 characters") from None
    if account_id_text(account_id) != text:
        raise WireError(Code.BAD_REQUEST, "an account id has 52 base32 characters")
    return account_id


def check_username(name: str) -> str:
    """`name`, if it is one. Raises WireError that says the rule."""
    if limits.MIN_USERNAME <= len(name) <= limits.MAX_USERNAME and _USERNAME.fullmatch(name):
        return name
    raise WireError(
        Code.BAD_REQUEST,
        f"a username has {limits.MIN_USERNAME} to {limits.MAX_USERNAME} of a-z, 0-9, dot, underscore and hyphen,"
        " a letter first",
    )
