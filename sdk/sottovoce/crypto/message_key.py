"""The message key: one AES-256-GCM key that encrypts one message body.

Here stands what a message key does. Where it comes from is in `chain_key`. Spec: ratchet.
"""

from typing import Final

from . import primitives


class MessageKey:
    """32 bytes from a chain, used for one message.

    The message's 12 random bytes are the nonce all the same: a store restored from an old copy may use a number
    twice, and then two messages share a key but not a nonce.
    """

    __slots__ = ("key",)

    def __init__(self, key: bytes) -> None:
        self.key: Final = key

    def encrypt(self, nonce: bytes, padded: bytes, associated_data: bytes) -> bytes:
        """ciphertext ‖ tag (16) of a padded body."""
        return primitives.encrypt(self.key, nonce, padded, associated_data)

    def decrypt(self, nonce: bytes, ciphertext: bytes, associated_data: bytes) -> bytes:
        """The padded body. Raises CryptoRefusal (NOT_AUTHENTIC)."""
        return primitives.decrypt(self.key, nonce, ciphertext, associated_data)
