"""The table of labels: what keeps a signature, hash or derived key from being taken for another.

`L(x)` is one length byte and the ASCII label `Sottovoce v1 x`. The length byte comes first, so no
label is a prefix of another. Each label has one use; protocol-spec/labels.md lists them, and a test
compares the two.
"""

from typing import Final


def label(name: str) -> bytes:
    """`L(name)`: 1 + 13 + len(name) bytes."""
    text = b"Sottovoce v1 " + name.encode("ascii")
    return bytes([len(text)]) + text


# Identifiers: the hash of what they name.
ACCOUNT_ID: Final = label("account id")
DEVICE_ID: Final = label("device id")
QUEUE_ID: Final = label("queue id")
SEND_KEY_HASH: Final = label("send key hash")
DEVICE_LIST_HASH: Final = label("device list hash")

# Statements signed by an account's root key.
DEVICE_LIST: Final = label("device list")
USERNAME_CLAIM: Final = label("username claim")

# Statements signed by a device's signing key.
DEVICE_CONSENT: Final = label("device consent")
PREKEY_RECORD: Final = label("prekey record")
CONTACT_RECORD: Final = label("contact record")
DIRECTORY_REQUEST: Final = label("directory request")

# Signed by a queue's owner key.
QUEUE_OWNER: Final = label("queue owner")

# Derived keys.
ROOT_KEY: Final = label("root key")
SESSION_ID: Final = label("session id")
SESSION: Final = label("session")
RATCHET_ROOT: Final = label("root")
PQ_EPOCH: Final = label("pq epoch")
SEALED: Final = label("sealed")
PREKEY_RECORD_HASH: Final = label("prekey record hash")
HANDSHAKE_HASH: Final = label("handshake hash")
ATTACHMENT: Final = label("attachment")
SAFETY_NUMBER: Final = label("safety number")

# Groups.
GROUP_CHAIN: Final = label("group chain")
GROUP_ROUTE: Final = label("group route")
GROUP_MESSAGE: Final = label("group message")
MEMBERS: Final = label("members")

# The local store.
STORE_KEY: Final = label("store key")
ROOT_WRAP: Final = label("root wrap")
WRAPPED_ROOT: Final = label("wrapped root")
