"""The recovery phrase: an account's 32 bytes of entropy as 24 words that a person writes down.

Here stands the spelling, BIP-39's, and what is wrong with a phrase. What is derived from it is in `identity`. No word
of a phrase stands in an error. Spec: identity.
"""

import functools
from typing import Final

from mnemonic import Mnemonic

from . import primitives
from .errors import CryptoRefusal, Reason
from .identity import ENTROPY_LENGTH

WORDS: Final = 24


@functools.cache
def _english() -> Mnemonic:
    # Read from the package's own file at the first use, so that importing this room opens none.
    return Mnemonic("english")


def spell(entropy: bytes) -> str:
    """24 lower-case words with single spaces for 32 bytes. Raises CryptoRefusal (BAD_KEY) for another length."""
    primitives.check_secret(entropy, ENTROPY_LENGTH)
    return _english().to_mnemonic(entropy)


def read(text: str) -> bytes:
    """The 32 bytes that a phrase spells, in any case and with any white space between, before and after the words.

    Raises CryptoRefusal (BAD_PHRASE) that says which: the number of words, the places of those that are not in the
    list, or the checksum (a word is wrong, or two have changed places).
    """
    words = text.lower().split()
    if len(words) != WORDS:
        raise CryptoRefusal(Reason.BAD_PHRASE, f"a recovery phrase has {WORDS} words, this one has {len(words)}")
    known = frozenset(_english().wordlist)
    unknown = [str(place) for place, word in enumerate(words, 1) if word not in known]
    if unknown:
        raise CryptoRefusal(Reason.BAD_PHRASE, f"not in the word list: word {', '.join(unknown)}")
    try:
        return bytes(_english().to_entropy(words))
    except ValueError:
        raise CryptoRefusal(
            Reason.BAD_PHRASE, "the words do not belong together: check each one and their order"
        ) from None
