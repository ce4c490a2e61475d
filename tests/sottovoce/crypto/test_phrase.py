"""The recovery phrase: the published spelling, what a person may do to it, and what is said of a wrong one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce.crypto import phrase
from sottovoce.crypto.errors import CryptoRefusal, Reason
from sottovoce.crypto.identity import RootKey
from tests.random_input import examples

#: From BIP-39's published vectors, those of 256 bits.
PUBLISHED = {
    "00" * 32: "abandon " * 23 + "art",
    "7f" * 32: "legal winner thank year wave sausage worth useful " * 2
    + "legal winner thank year wave sausage worth title",
    "80" * 32: "letter advice cage absurd amount doctor acoustic avoid " * 2
    + "letter advice cage absurd amount doctor acoustic bless",
    "ff" * 32: "zoo " * 23 + "vote",
    "68a79eaca2324873eacc50cb9c6eca8cc68ea5d936f98787c60c7ebc74e6ce7c": "hamster diagram private dutch cause delay"
    " private meat slide toddler razor book happy fancy gospel tennis maple dilemma loan word shrug inflict delay"
    " length",
}
WORDS = PUBLISHED["68a79eaca2324873eacc50cb9c6eca8cc68ea5d936f98787c60c7ebc74e6ce7c"].split()


def refusal_of(text: str) -> CryptoRefusal:
    with pytest.raises(CryptoRefusal) as refusal:
        phrase.read(text)
    assert refusal.value.reason is Reason.BAD_PHRASE
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None
    return refusal.value


@pytest.mark.parametrize(("entropy", "words"), PUBLISHED.items(), ids=lambda value: value[:8])
def test_the_spelling_is_bip_39s(entropy: str, words: str) -> None:
    assert phrase.spell(bytes.fromhex(entropy)) == words
    assert phrase.read(words) == bytes.fromhex(entropy)


@given(entropy=st.binary(min_size=32, max_size=32))
@examples(100)
def test_every_entropy_comes_back(entropy: bytes) -> None:
    words = phrase.spell(entropy)
    assert len(words.split(" ")) == 24
    assert phrase.read(words) == entropy


def test_a_phrase_gives_its_account_back() -> None:
    root = RootKey.generate()
    assert RootKey.from_entropy(phrase.read(phrase.spell(root.entropy))).account_id == root.account_id


@pytest.mark.parametrize("separator", ["  ", "\n", "\t ", " \r\n", "\u00a0"])
def test_case_and_white_space_do_not_matter(separator: str) -> None:
    text = separator + separator.join(word.upper() if place % 2 else word.title() for place, word in enumerate(WORDS))
    assert phrase.read(text + separator) == phrase.read(" ".join(WORDS))


@pytest.mark.parametrize("count", [0, 1, 12, 23, 25, 48])
def test_another_number_of_words_is_refused_and_counted(count: int) -> None:
    assert refusal_of(" ".join((WORDS * 2)[:count])).detail == f"a recovery phrase has 24 words, this one has {count}"


def test_unknown_words_are_named_by_their_place() -> None:
    words = [*WORDS]
    words[0], words[22] = "Sottovoce", "inflictt"
    assert refusal_of(" ".join(words)).detail == "not in the word list: word 1, 23"


@pytest.mark.parametrize("place", range(24))
def test_a_word_in_another_ones_place_is_refused(place: int) -> None:
    words = [*WORDS]
    words[place] = "abandon"
    assert refusal_of(" ".join(words)).detail.startswith("the words do not belong together")


def test_two_words_that_changed_places_are_refused() -> None:
    swapped = [WORDS[1], WORDS[0], *WORDS[2:]]
    assert refusal_of(" ".join(swapped)).detail.startswith("the words do not belong together")


def test_a_refusal_repeats_no_word() -> None:
    for text in ("hamster diagram", " ".join([*WORDS[:23], "secretword"]), " ".join([*WORDS[:23], "zoo"])):
        said = str(refusal_of(text)).replace("word list", "").split()
        assert not {*text.split()} & {*said} - {"word"}


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_only_32_bytes_are_spelt(length: int) -> None:
    with pytest.raises(CryptoRefusal) as refusal:
        phrase.spell(bytes(length))
    assert refusal.value.reason is Reason.BAD_KEY


@given(text=st.text(max_size=300))
@examples(200)
def test_no_text_raises_anything_but_a_refusal(text: str) -> None:
    refusal_of(text)
    refusal_of(" ".join([*WORDS[:23], "x" + text.replace(" ", "")]))
