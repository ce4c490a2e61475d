"""The message key: one AES-256-GCM key that encrypts one message body.

Here stands what a message key does. Where it comes from is in `chain_key`. Spec: ratchet.
"""

from .primitives import AeadKey


class MessageKey(AeadKey):
    """32 bytes from a chain, used for one message.

    The message's 12 random bytes are the nonce all the same: a store restored from an old copy may use a number
    twice, and then two messages share a key but not a nonce.
    """

    __slots__ = ()
