"""Vectors of the recovery phrase (identity.md)."""

from collections.abc import Sequence

from sottovoce.crypto import phrase
from sottovoce.crypto.errors import Reason

from .build import HEX, TEXT, Construction, Group, Test, Type, invalid, valid
from .cast import ALICE

SPELL = Type("spellPhrase", {}, {"entropy": HEX}, {"phrase": TEXT})
READ = Type("readPhrase", {}, {"phrase": TEXT}, {"entropy": HEX})


def _spell() -> list[Test]:
    return [
        valid("Alice's", entropy=ALICE.root.entropy),
        valid("zeros", "Boundary", entropy=bytes(32)),
        valid("ones", "Boundary", entropy=b"\xff" * 32),
        invalid(Reason.BAD_KEY, "the bytes of 12 words", "Encoding", entropy=bytes(16)),
        invalid(Reason.BAD_KEY, "33 bytes", "Encoding", entropy=bytes(33)),
    ]


def _read() -> list[Test]:
    good = phrase.spell(ALICE.root.entropy)
    words = good.split()
    swapped = [words[1], words[0], *words[2:]]
    bad = {
        "23 words": words[:-1],
        "25 words": [*words, words[0]],
        "12 words": ["abandon"] * 11 + ["about"],
        "no words": [],
        "a word that is not in the list": ["sottovoce", *words[1:]],
        "a word with a letter missing": [words[0][:-1], *words[1:]],
        "the first four letters of each": [word[:4] for word in words],
        "another last word": [*words[:-1], "zoo" if words[-1] != "zoo" else "abandon"],
        "two words in the other order": swapped,
        "24 times one word": ["abandon"] * 24,
        "joined by commas": [", ".join(words)],
    }
    return [
        valid("Alice's", phrase=good),
        valid("in capitals", phrase=good.upper()),
        valid("over several lines", "Boundary", phrase="\n".join(words)),
        valid("with white space around", "Boundary", phrase=f"\t {good.replace(' ', '   ')}\r\n"),
        *(invalid(Reason.BAD_PHRASE, c, "Encoding", phrase=" ".join(given)) for c, given in bad.items()),
    ]


def _groups() -> Sequence[Group]:
    return [Group(SPELL, _spell()), Group(READ, _read())]


PHRASE = Construction("phrase", "The recovery phrase", [SPELL, READ], _groups)
