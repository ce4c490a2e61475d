"""The only cryptography a server does: verifying Ed25519 signatures (RFC 8032) under keys that it was given.

PyNaCl, not `cryptography`: libsodium refuses the small-order public keys under which any signature verifies.
"""

from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey


def verifies(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` (64 bytes) over `message` holds under `public_key` (32 bytes). Never raises for bad input."""
    try:
        VerifyKey(public_key).verify(message, signature)
    except (CryptoError, ValueError):
        return False
    return True
