"""Labels are what keeps one signature or hash from being taken for another."""

from collections.abc import Callable
from itertools import permutations

import pytest

from sottovoce_wire import labels

LABELS = {name: value for name, value in vars(labels).items() if name.isupper()}


def test_a_label_is_its_length_and_its_text() -> None:
    assert labels.label("root key") == b"\x15Sottovoce v1 root key"


def test_no_two_labels_are_equal() -> None:
    assert len(set(LABELS.values())) == len(LABELS)


def test_no_label_is_a_prefix_of_another() -> None:
    assert not [(a, b) for a, b in permutations(LABELS.values(), 2) if a.startswith(b)]


@pytest.mark.parametrize("name", LABELS)
def test_a_labels_length_byte_is_right(name: str) -> None:
    assert LABELS[name][0] == len(LABELS[name]) - 1


def test_a_label_that_is_not_ascii_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        labels.label("clé")


def test_the_spec_lists_exactly_these_labels(spec_rows: Callable[[str], list[list[str]]]) -> None:
    listed = {constant: labels.label(text) for text, constant, *_ in spec_rows("labels.md")}
    assert listed == LABELS
