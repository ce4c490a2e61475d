"""What waits for the writer: in order, in bounded batches, and bounded itself."""

from collections.abc import Callable, Sequence

import pytest
import trio
import trio.testing

from sottovoce_relay import envelopes as answers
from sottovoce_relay import inbox as module
from sottovoce_relay.envelopes import Envelope, Shared, Ticket
from sottovoce_relay.inbox import Deletion, Errand, Inbox, Refusal, Settlement, Undecided
from sottovoce_relay.states import EnvelopeState
from tests.sottovoce_relay.parts import arrival, envelope

TICKET = Ticket(10_000, 0, lambda _: None)


def queued(seq: int, length: int = 4) -> Envelope:
    return envelope(seq, bytes(length), state=EnvelopeState.QUEUED)


def deletion(*seqs: int) -> Deletion:
    return Deletion([envelope(seq, state=EnvelopeState.DELETING) for seq in seqs], lambda: None)


def seqs(envelopes: Sequence[Envelope]) -> list[int]:
    return [envelope.seq for envelope in envelopes]


def test_a_batch_has_all_that_waits_by_kind_and_in_order() -> None:
    inbox = Inbox()
    settlement = Settlement(TICKET, 0, answers.REFUSED)
    refusal = Refusal(envelope(3), answers.QUEUE_FULL)
    for ready in (queued(1), deletion(7, 8), refusal, queued(2), settlement, deletion(9)):
        inbox.add(ready)
    batch = inbox.take_batch()
    assert (seqs(batch.arriving), seqs(batch.leaving)) == ([1, 2], [7, 8, 9])
    assert (batch.refusals, batch.settlements) == ([refusal], [settlement])
    assert len(inbox) == 0


def test_what_was_acknowledged_or_failed_while_it_waited_is_passed_over() -> None:
    inbox = Inbox()
    envelopes = [queued(1), queued(2), queued(3)]
    for ready in envelopes:
        inbox.add(ready)
    envelopes[1].state = EnvelopeState.GONE
    assert seqs(inbox.take_batch().arriving) == [1, 3]


def test_a_batch_is_bounded_in_envelopes() -> None:
    inbox = Inbox()
    for seq in range(module.BATCH_ENVELOPES + 2):
        inbox.add(queued(seq))
    assert [len(inbox.take_batch().arriving) for _ in range(3)] == [module.BATCH_ENVELOPES, 2, 0]


def test_refusals_and_deletions_count_for_a_batch_too() -> None:
    inbox = Inbox()
    for seq in range(module.BATCH_ENVELOPES + 1):
        inbox.add(Refusal(envelope(seq), answers.QUEUE_FULL))
    assert len(inbox.take_batch().refusals) == module.BATCH_ENVELOPES
    inbox = Inbox()
    for _ in range(100):
        inbox.add(deletion(*range(256)))
    assert len(inbox.take_batch().deletions) < 100


def test_a_batch_is_bounded_in_bytes() -> None:
    inbox = Inbox()
    for seq in range(6):
        inbox.add(queued(seq, module.BATCH_BYTES // 4))
    assert [len(inbox.take_batch().arriving) for _ in range(2)] == [4, 2]


def test_deletions_that_are_put_back_come_first_and_in_their_order() -> None:
    inbox = Inbox()
    inbox.add(deletion(3))
    inbox.put_back([deletion(1), deletion(2)])
    assert seqs(inbox.take_batch().leaving) == [1, 2, 3]


def test_errands_and_look_ups_are_taken_in_order_and_in_bounded_numbers() -> None:
    inbox = Inbox()
    errands: list[Errand[object]] = [Errand(lambda _: None) for _ in range(module.BATCH_ERRANDS + 1)]
    for errand in errands:
        inbox.add_errand(errand)
    undecided = [Undecided(arrival(), TICKET, place) for place in range(module.BATCH_ARRIVALS + 1)]
    for waiting in undecided:
        inbox.add_undecided(waiting)
    assert inbox.take_errands() + inbox.take_errands() == errands
    assert inbox.take_undecided() == undecided[:-1]
    assert inbox.take_undecided() == undecided[-1:]
    assert len(inbox) == 0


async def test_who_brings_more_waits_while_too_many_bytes_wait(autojump_clock: trio.testing.MockClock) -> None:
    inbox = Inbox()
    adds: list[Callable[[bytes], None]] = [
        lambda body: inbox.add(envelope(1, body, state=EnvelopeState.QUEUED)),
        lambda body: inbox.add_undecided(Undecided(arrival(body), TICKET, 0)),
        lambda body: inbox.add(Refusal(envelope(1, body), answers.QUEUE_FULL)),
    ]
    for add, take in zip(adds, (inbox.take_batch, inbox.take_undecided, inbox.take_batch), strict=True):
        add(bytes(module.INBOX_BYTES - 1))
        await inbox.wait_for_room()
        add(b"1")
        with trio.move_on_after(1) as scope:
            await inbox.wait_for_room()
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inbox.wait_for_room)
            await trio.testing.wait_all_tasks_blocked()
            while len(inbox):
                take()


async def test_a_body_for_many_queues_counts_once(autojump_clock: trio.testing.MockClock) -> None:
    inbox, count, body = Inbox(), 1000, bytes(60_000)
    shared = Shared(7, body, count)
    for place in range(count):
        inbox.add_undecided(Undecided(arrival(body, shared=shared), TICKET, place))
        inbox.add(envelope(place, body, shared=shared, state=EnvelopeState.QUEUED))
        inbox.add(Refusal(envelope(place, body, shared=shared), answers.QUEUE_FULL))
    with trio.fail_after(1):
        await inbox.wait_for_room()
    while len(inbox):
        inbox.take_undecided()
        inbox.take_batch()
    inbox.add(queued(1, module.INBOX_BYTES - 1))
    with trio.fail_after(1):
        await inbox.wait_for_room()  # as much was given back as was counted
    inbox.add(queued(1, 1))
    with trio.move_on_after(1) as scope:
        await inbox.wait_for_room()
    assert scope.cancelled_caught


async def test_who_brings_more_waits_while_too_much_waits(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INBOX_JOBS", 3)
    inbox = Inbox()
    inbox.add(deletion(1))
    inbox.add_errand(Errand(lambda _: None))
    await inbox.wait_for_room()
    inbox.add_undecided(Undecided(arrival(), TICKET, 0))
    with trio.move_on_after(1) as scope:
        await inbox.wait_for_room()
    assert scope.cancelled_caught
    inbox.take_errands()
    await inbox.wait_for_room()


async def test_the_writer_wakes_for_whatever_comes(autojump_clock: trio.testing.MockClock) -> None:
    adds: list[Callable[[Inbox], None]] = [
        lambda inbox: inbox.add(deletion(1)),
        lambda inbox: inbox.add_errand(Errand(lambda _: None)),
        lambda inbox: inbox.add_undecided(Undecided(arrival(), TICKET, 0)),
    ]
    for add in adds:
        inbox = Inbox()
        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(inbox.wait)
                await trio.testing.wait_all_tasks_blocked()
                add(inbox)
            await inbox.wait()
