"""identity.md, "Recovery phrase": BIP-39's spelling of 256 bits. The list of words is the published one."""

from mnemonic import Mnemonic

from .notation import sha256
from .refusal import RefusedError

_WORDS = list(Mnemonic("english").wordlist)


def spell(entropy: bytes) -> str:
    """24 words for 32 bytes."""
    if len(entropy) != 32:
        raise RefusedError("bad_key")
    bits = int.from_bytes(entropy + sha256(entropy)[:1], "big")
    return " ".join(_WORDS[bits >> 11 * (23 - i) & 2047] for i in range(24))


def read(phrase: str) -> bytes:
    """The 32 bytes that a phrase spells."""
    words = phrase.lower().split()
    if len(words) != 24 or not set(words) <= set(_WORDS):
        raise RefusedError("bad_phrase")
    bits = 0
    for word in words:
        bits = bits << 11 | _WORDS.index(word)
    entropy, checksum = (bits >> 8).to_bytes(32, "big"), bits & 0xFF
    if sha256(entropy)[0] != checksum:
        raise RefusedError("bad_phrase")
    return entropy
