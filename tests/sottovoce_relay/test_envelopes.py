"""The arithmetic of ranges and quotas."""

import itertools

import pytest

from sottovoce_relay.envelopes import Fill, Quotas, Range, merged, ranges_of
from sottovoce_wire.frames import KeyClass
from sottovoce_wire.ids import QueueId

QUEUE = QueueId(b"q" * 16)


def seqs_in(ranges: tuple[Range, ...]) -> list[int]:
    return [seq for gone in ranges for seq in range(gone.after + 1, gone.upto + 1)]


def test_ranges_cover_exactly_the_numbers_they_were_made_of() -> None:
    for count in range(7):
        for seqs in itertools.combinations(range(1, 7), count):
            assert seqs_in(ranges_of(QUEUE, reversed(seqs))) == list(seqs)


def test_consecutive_numbers_are_one_range() -> None:
    assert ranges_of(QUEUE, [5, 3, 4, 9]) == (Range(QUEUE, 2, 5), Range(QUEUE, 8, 9))


def test_merged_ranges_cover_every_envelope_once() -> None:
    other = QueueId(b"o" * 16)
    overlapping = [Range(QUEUE, 4, 6), Range(QUEUE, 0, 2), Range(QUEUE, 0, 2), Range(QUEUE, 1, 3), Range(other, 2, 5)]
    assert merged(overlapping) == [Range(other, 2, 5), Range(QUEUE, 0, 3), Range(QUEUE, 4, 6)]


@pytest.mark.parametrize("kind", KeyClass)
def test_a_full_queue_has_no_room_for_any_class(kind: KeyClass) -> None:
    quotas = Quotas(envelopes=3, size=100)
    assert Fill(1, 2, 90, 0, 0).has_room(kind, 10, quotas)
    assert not Fill(1, 3, 10, 0, 0).has_room(kind, 1, quotas)
    assert not Fill(1, 2, 90, 0, 0).has_room(kind, 11, quotas)


def test_strangers_have_a_share_of_their_own() -> None:
    quotas = Quotas(stranger_envelopes=2, stranger_size=50)
    for fill in (Fill(1, 2, 20, 2, 20), Fill(1, 1, 50, 1, 50)):
        assert not fill.has_room(KeyClass.STRANGER, 1, quotas)
        assert fill.has_room(KeyClass.CONTACT, 1, quotas)


def test_counting_in_gives_numbers_that_follow_each_other() -> None:
    fill = Fill(next_seq=7, envelopes=0, size=0, stranger_envelopes=0, stranger_size=0)
    assert [fill.add(KeyClass.STRANGER, 10), fill.add(KeyClass.GROUP, 20)] == [7, 8]
    assert fill == Fill(next_seq=9, envelopes=2, size=30, stranger_envelopes=1, stranger_size=10)
