"""What an envelope keeps and drops on its way, who is told, and the arithmetic of quotas."""

import itertools

import pytest

from sottovoce_relay import envelopes as answers
from sottovoce_relay.envelopes import (
    OVERHEAD,
    Fill,
    Quotas,
    Shared,
    Ticket,
    closed_name,
    name_of,
    queue_of,
    try_again_in,
)
from sottovoce_relay.states import ENVELOPE, EnvelopeEvent, EnvelopeState
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import SendResult
from sottovoce_wire.ids import EnvelopeId
from tests.sottovoce_relay.parts import QUEUE, arrival, door_of, envelope

FULL = answers.QUEUE_FULL


def ticket(count: int) -> tuple[Ticket, list[list[SendResult]]]:
    told: list[list[SendResult]] = []
    return Ticket(count, 0, lambda results: told.append(list(results))), told


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_send_is_answered_once_when_all_its_results_are_there_and_in_its_own_order(order: tuple[int, ...]) -> None:
    owed, told = ticket(3)
    results = [answers.ACCEPTED, FULL, answers.REFUSED]
    for place in order:
        assert told == []
        owed.settle(place, results[place])
    assert told == [results]


def test_whoever_sent_an_envelope_is_told_once() -> None:
    subject, (first, told), (second, also_told) = envelope(1), ticket(1), ticket(1)
    subject.owed = [(first, 0), (second, 0)]
    subject.settle(answers.ACCEPTED)
    subject.settle(answers.TRY_AGAIN)
    assert told == also_told == [[answers.ACCEPTED]]


def test_a_step_that_is_not_in_the_table_is_refused() -> None:
    subject = envelope(1, state=EnvelopeState.GONE)
    with pytest.raises(KeyError):
        subject.step(EnvelopeEvent.ACK)
    assert subject.state is EnvelopeState.GONE


@pytest.mark.parametrize("pushed_first", [True, False])
def test_a_body_is_kept_until_it_is_both_stored_and_pushed(pushed_first: bool) -> None:
    subject = envelope(1, b"body", shared=Shared(7, b"body"), state=EnvelopeState.WRITING)
    steps = [subject.pushed, subject.committed]
    for step in steps if pushed_first else reversed(steps):
        assert subject.body == b"body"
        assert subject.shared
        assert subject.shared.body == b"body"
        step()
    assert subject.shared
    assert (subject.body, subject.shared.id, subject.shared.body) == (b"", 7, b"")
    assert subject.size == 4


def test_a_body_that_others_share_stays_with_them() -> None:
    shared = Shared(7, b"body")
    one, two = (envelope(seq, b"body", shared=shared, state=EnvelopeState.WRITING) for seq in (1, 2))
    one.pushed()
    one.committed()
    assert two.shared is shared
    assert shared.body == b"body"


def test_only_what_is_not_written_yet_can_be_kept_from_the_disk() -> None:
    """An acknowledgement ends an envelope at once only before the writer took it; later it must be deleted."""
    ends = {state: ENVELOPE[state, EnvelopeEvent.ACK] for state, event in ENVELOPE if event is EnvelopeEvent.ACK}
    assert ends == {
        EnvelopeState.HELD: EnvelopeState.GONE,
        EnvelopeState.QUEUED: EnvelopeState.GONE,
        EnvelopeState.WRITING: EnvelopeState.DELETING,
        EnvelopeState.STORED: EnvelopeState.DELETING,
    }


def test_a_name_tells_queues_keys_and_ids_apart_and_shows_none_of_them() -> None:
    ids = [EnvelopeId(bytes([n]) * 16) for n in range(2)]
    doors = [queue + key for queue in (b"q" * 16, b"o" * 16) for key in (b"k" * 32, b"l" * 32)]
    names = {name_of(door, envelope_id) for door in doors for envelope_id in ids}
    assert len(names) == 8
    assert {len(name) for name in names} == {16}


def test_a_closed_name_tells_bodies_apart_as_well() -> None:
    names = {closed_name(bytes([name]) * 16, body) for name in range(2) for body in (b"", b"x", b"y")}
    assert len(names) == 6
    assert {len(name) for name in names} == {16}


def test_a_body_that_others_share_counts_for_each_by_its_part() -> None:
    shared = Shared(7, bytes(1000), pointers=10)
    assert arrival(bytes(1000)).weight == envelope(1, bytes(1000)).weight == 1000
    weights = {arrival(bytes(1000), shared=shared).weight, envelope(1, bytes(1000), shared=shared).weight}
    assert weights == {100 + OVERHEAD}


def test_a_door_begins_with_its_queue() -> None:
    assert queue_of(door_of()) == QUEUE


@pytest.mark.parametrize(("seconds", "milliseconds"), [(1e-9, 1), (0.0004, 1), (1.5, 1500), (1e9, 2**32 - 1)])
def test_try_again_says_when_in_whole_milliseconds_that_fit_the_frame(seconds: float, milliseconds: int) -> None:
    assert try_again_in(seconds) == SendResult(Code.TRY_AGAIN, milliseconds)


@pytest.mark.parametrize("is_limited", [True, False])
def test_a_full_queue_has_no_room_for_any_class(is_limited: bool) -> None:
    quotas = Quotas(envelopes=3, size=100)
    assert Fill(2, 90, 0, 0).has_room(is_limited, 10, quotas)
    assert not Fill(3, 10, 0, 0).has_room(is_limited, 1, quotas)
    assert not Fill(2, 90, 0, 0).has_room(is_limited, 11, quotas)


def test_strangers_have_a_share_of_their_own() -> None:
    quotas = Quotas(stranger_envelopes=2, stranger_size=50)
    for fill in (Fill(2, 20, 2, 20), Fill(1, 50, 1, 50)):
        assert not fill.has_room(True, 1, quotas)
        assert fill.has_room(False, 1, quotas)
    assert Fill(1, 49, 1, 49).has_room(True, 1, quotas)


def test_what_is_counted_in_and_out_again_leaves_nothing() -> None:
    fill = Fill()
    for is_limited, size in ((True, 10), (False, 20)):
        fill.add(is_limited, size)
    assert fill == Fill(2, 30, 1, 10)
    for is_limited, size in ((True, 10), (False, 20)):
        fill.add(is_limited, size, -1)
    assert fill == Fill()
