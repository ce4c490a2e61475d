"""What becomes of an envelope that arrives: held, written first, passed on, refused; and what ends its being held."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from sottovoce_hosting.rates import Rates
from sottovoce_relay import envelopes as answers
from sottovoce_relay import intake
from sottovoce_relay.envelopes import OVERHEAD, Envelope, Fill, Quotas, Shared
from sottovoce_relay.states import EnvelopeState
from sottovoce_relay.storage import Door
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import KeyClass, SendResult, Ttl
from tests.sottovoce_relay.parts import (
    NOW,
    OTHER,
    QUEUE,
    SECOND_INVITE,
    Parts,
    Receiver,
    arrival,
    door_of,
    generous,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sottovoce_relay.mailboxes import Mailbox

CONTACT, STRANGER, INVITE, GROUP = KeyClass.CONTACT, KeyClass.STRANGER, KeyClass.INVITE, KeyClass.GROUP
HELD, QUEUED, GONE = EnvelopeState.HELD, EnvelopeState.QUEUED, EnvelopeState.GONE


def known(parts: Parts | None = None) -> Parts:
    """Parts that have both queues in memory."""
    parts = parts or Parts()
    parts.know(QUEUE)
    parts.know(OTHER)
    return parts


def live(parts: Parts | None = None, count: int = 256) -> tuple[Parts, Receiver]:
    """The same, and somebody receives QUEUE."""
    parts = known(parts)
    return parts, parts.receive(count=count)


def mailbox_of(parts: Parts) -> Mailbox:
    return parts.mailboxes.at(QUEUE, 1)


def waiting(parts: Parts) -> list[bytes]:
    """The bodies of what waits for the writer, in its order."""
    return [envelope.body for envelope in parts.inbox.take_batch().arriving]


def refusals(parts: Parts) -> list[SendResult]:
    return [refusal.result for refusal in parts.inbox.take_batch().refusals]


def codes(results: Sequence[SendResult]) -> list[Code]:
    return [result.code for result in results]


def settle(parts: Parts) -> None:
    """What the writer does with results that are known."""
    for settlement in parts.inbox.take_batch().settlements:
        settlement.ticket.settle(settlement.place, settlement.result)


def held(parts: Parts) -> list[Envelope]:
    return [envelope for envelope in mailbox_of(parts).held if envelope.state is HELD]


# --- Before it is decided -----------------------------------------------------------------------------------------


async def test_an_arrival_whose_send_key_is_not_known_waits_to_be_looked_up() -> None:
    parts = Parts()
    results = parts.send(arrival(b"1"))
    (undecided,) = parts.inbox.take_undecided()
    parts.know()
    parts.intake.decide(undecided)
    assert waiting(parts) == [b"1"]
    assert (results, parts.mailboxes.undecided) == ([], {})


async def test_a_send_key_that_opens_nothing_is_refused_with_the_next_batch_and_not_at_once() -> None:
    parts = known()
    results = parts.send(arrival(key_hash=SECOND_INVITE, queue=OTHER))
    (undecided,) = parts.inbox.take_undecided()
    parts.intake.decide(undecided)
    assert results == []
    settle(parts)
    assert results == [answers.REFUSED]


async def test_what_comes_behind_an_undecided_one_of_its_queue_waits_behind_it() -> None:
    parts = known()
    parts.send(arrival(b"1", key_hash=SECOND_INVITE), arrival(b"2"), arrival(b"other", queue=OTHER))
    parts.send(arrival(b"3"))
    assert waiting(parts) == [b"other"]
    undecided = parts.inbox.take_undecided()
    assert [waiting.arrival.body for waiting in undecided] == [b"1", b"2", b"3"]
    parts.mailboxes.learn({QUEUE + SECOND_INVITE: Door(1, GROUP, None)})
    for one in undecided:
        parts.intake.decide(one)
    assert waiting(parts) == [b"1", b"2", b"3"]


@pytest.mark.parametrize("forgotten", ["fill", "invites"])
async def test_a_queue_whose_quotas_are_not_known_is_looked_up_too(forgotten: str) -> None:
    parts = known()
    setattr(mailbox_of(parts), forgotten, {} if forgotten == "invites" else None)
    parts.send(arrival(kind=INVITE))
    assert len(parts.inbox.take_undecided()) == 1


async def test_the_quota_of_an_invite_key_is_looked_up_for_that_key_alone() -> None:
    parts = known()
    mailbox_of(parts).invites.clear()
    parts.send(arrival(b"1"))
    assert waiting(parts) == [b"1"]


async def test_an_envelope_above_the_limit_is_refused_by_itself() -> None:
    parts = known(Parts(quotas=Quotas(max_envelope=4)))
    results = parts.send(arrival(b"12345"), arrival(b"1234"))
    (fitting,) = parts.inbox.take_batch().arriving
    fitting.settle(answers.ACCEPTED)
    assert results == [answers.ENVELOPE_TOO_LARGE, answers.ACCEPTED]


async def test_nothing_is_taken_in_while_the_disk_is_short() -> None:
    parts, receiver = live()
    parts.space._free = 0
    assert parts.send(arrival(), arrival(kind=STRANGER)) == [answers.TRY_AGAIN] * 2
    assert (waiting(parts), receiver.heard) == ([], [])


async def test_an_envelope_lives_as_long_as_its_class_says_and_counts_up() -> None:
    parts = known()
    parts.now = NOW + 0.9
    parts.send(*(arrival(ttl=ttl) for ttl in list(Ttl)[1:]))
    taken = parts.inbox.take_batch().arriving
    assert [envelope.expires_at - NOW for envelope in taken] == [ttl.seconds for ttl in list(Ttl)[1:]]
    assert [envelope.seq for envelope in taken] == [1, 2, 3, 4, 5]
    assert parts.intake.next_seq() == 6
    assert mailbox_of(parts).last == 5


# --- Held, or written first ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [CONTACT, GROUP])
async def test_what_people_the_owner_knows_send_is_pushed_at_once_and_kept_from_the_writer(kind: KeyClass) -> None:
    parts, receiver = live()
    results = parts.send(arrival(b"1", kind), arrival(b"22", kind))
    assert receiver.heard == [b"1", b"22"]
    assert [envelope.body for envelope in held(parts)] == [b"1", b"22"]
    assert (waiting(parts), results, parts.intake.held_bytes) == ([], [], 3)


@pytest.mark.parametrize("kind", [STRANGER, INVITE])
async def test_what_strangers_send_is_written_first(kind: KeyClass) -> None:
    parts, receiver = live()
    parts.send(arrival(b"1", kind))
    assert (receiver.heard, waiting(parts)) == ([], [b"1"])


async def test_what_comes_under_a_demoted_key_is_a_strangers() -> None:
    parts, receiver = live()
    parts.mailboxes.learn({door_of(): Door(1, CONTACT, NOW + 1)})
    parts.send(arrival(b"1"))
    assert receiver.heard == []
    (envelope,) = parts.inbox.take_batch().arriving
    assert (envelope.is_limited, envelope.key_class) == (True, CONTACT)
    assert mailbox_of(parts).fill == Fill(1, 1, 1, 1)


async def test_a_demoted_key_whose_time_is_up_opens_nothing() -> None:
    parts = known()
    parts.mailboxes.learn({door_of(): Door(1, CONTACT, NOW)})
    results = parts.send(arrival(), arrival(ttl=Ttl.NOW))
    assert results == []
    settle(parts)
    assert results == [answers.REFUSED] * 2


async def test_everything_is_written_first_for_who_is_not_there_and_where_nothing_is_to_be_held() -> None:
    parts = known()
    parts.send(arrival(b"1"))
    assert waiting(parts) == [b"1"]
    parts, receiver = live(Parts(hold_seconds=0))
    parts.send(arrival(b"1"))
    assert (waiting(parts), receiver.heard) == ([b"1"], [])


async def test_what_is_held_is_written_once_something_follows_that_must_be() -> None:
    """Otherwise what survives a crash would not be a prefix."""
    parts, receiver = live()
    parts.send(arrival(b"1"), arrival(b"2"), arrival(b"3", STRANGER), arrival(b"4"))
    assert receiver.heard == [b"1", b"2"]
    assert waiting(parts) == [b"1", b"2", b"3", b"4"]
    assert (held(parts), parts.intake.held_bytes) == ([], 0)


async def test_what_is_held_in_one_queue_is_not_followed_by_another_queues() -> None:
    parts, _ = live()
    parts.send(arrival(b"1"), arrival(b"other", queue=OTHER))
    assert waiting(parts) == [b"other"]


async def test_what_is_held_at_a_time_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "HELD_BYTES", 10)
    parts, receiver = live()
    parts.send(arrival(bytes(6)), arrival(bytes(4)))
    assert len(held(parts)) == 2
    parts.send(arrival(b"1"))
    assert [len(body) for body in waiting(parts)] == [6, 4, 1]
    assert len(receiver.heard) == 2
    assert parts.intake.held_bytes == 0


async def test_a_body_that_is_held_for_many_queues_counts_once() -> None:
    parts, receiver = live()
    other = parts.receive(OTHER)
    body = bytes(1000)
    shared = Shared(77, body, pointers=2)
    parts.send(arrival(body, shared=shared), arrival(body, queue=OTHER, shared=shared))
    assert parts.intake.held_bytes == 1000 + 2 * OVERHEAD
    acknowledge(parts, receiver, 1)
    assert parts.intake.held_bytes == 500 + OVERHEAD
    parts.intake.release(other.delivery.mailbox, other.delivery.end())
    assert parts.intake.held_bytes == 0


async def test_what_is_beyond_the_credit_is_held_in_memory_until_there_is_some() -> None:
    parts, receiver = live(count=1)
    parts.send(arrival(b"1"), arrival(b"2"), arrival(b"3"))
    assert (receiver.heard, waiting(parts), len(held(parts))) == ([b"1"], [], 3)
    parts.intake.acknowledge(mailbox_of(parts), receiver.delivery.acknowledge(1, []), lambda: None)
    receiver.push(mailbox_of(parts))
    assert receiver.heard == [b"1", b"2"]


async def test_what_was_held_long_enough_is_written_and_what_came_later_is_not(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    parts, _ = live()
    nursery.start_soon(parts.intake.let_go_for_ever)
    for body in (b"1", b"2"):
        parts.send(arrival(body))
        await trio.sleep(0.01)
    await trio.sleep(0.0049)
    assert waiting(parts) == []
    await trio.sleep(0.0002)
    assert waiting(parts) == [b"1"]
    assert [envelope.body for envelope in held(parts)] == [b"2"]
    await trio.sleep(0.01)
    assert waiting(parts) == [b"2"]
    parts.send(arrival(b"3"))
    await trio.sleep(0.0251)
    assert waiting(parts) == [b"3"]
    assert parts.intake.held_bytes == 0


async def test_all_that_is_held_is_written_when_the_relay_stops() -> None:
    parts, receiver = live()
    parts.receive(OTHER)
    parts.send(arrival(b"1"), arrival(b"2"), arrival(b"3"))
    parts.send(arrival(b"other", queue=OTHER))
    acknowledge(parts, receiver, 0, 2)
    parts.intake.let_go_all()
    assert (waiting(parts), held(parts), parts.intake.held_bytes) == ([b"1", b"3", b"other"], [], 0)


async def test_what_is_let_go_in_time_takes_what_was_held_before_it_along(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    parts, receiver = live()
    nursery.start_soon(parts.intake.let_go_for_ever)
    parts.send(arrival(b"1"), arrival(b"2"), arrival(b"3"))
    parts.intake.acknowledge(mailbox_of(parts), receiver.delivery.acknowledge(0, [2]), lambda: None)
    await trio.sleep(0.03)
    assert waiting(parts) == [b"1", b"3"]


# --- Acknowledged -------------------------------------------------------------------------------------------------


def acknowledge(parts: Parts, receiver: Receiver, upto: int, *singles: int) -> list[str]:
    """Filled when the owner may be told."""
    told: list[str] = []
    envelopes = receiver.delivery.acknowledge(upto, singles)
    parts.intake.acknowledge(mailbox_of(parts), envelopes, lambda: told.append("acked"))
    return told


async def test_what_is_acknowledged_while_it_is_held_never_reaches_the_disk() -> None:
    parts, receiver = live()
    results = parts.send(arrival(b"1"), arrival(b"2"))
    assert acknowledge(parts, receiver, 2) == ["acked"]
    assert results == [answers.ACCEPTED] * 2
    assert parts.metrics.never_written == 2
    assert len(parts.inbox) == 0
    assert (mailbox_of(parts).fill, mailbox_of(parts).known, parts.intake.held_bytes) == (Fill(), {}, 0)


async def test_what_is_acknowledged_before_the_writer_takes_it_never_reaches_the_disk_either() -> None:
    parts, receiver = live()
    results = parts.send(arrival(b"1"))
    parts.send(arrival(b"2", STRANGER))
    assert acknowledge(parts, receiver, 1) == ["acked"]
    assert results == [answers.ACCEPTED]
    assert waiting(parts) == [b"2"]


async def test_what_is_acknowledged_while_it_is_written_is_accepted_at_once_and_deleted_afterwards() -> None:
    parts, receiver = live()
    results = parts.send(arrival(b"1"))
    (envelope,) = held(parts)
    envelope.state = EnvelopeState.WRITING
    assert acknowledge(parts, receiver, 1) == []
    assert results == [answers.ACCEPTED]
    (deletion,) = parts.inbox.take_batch().deletions
    assert (deletion.envelopes, envelope.state) == ([envelope], EnvelopeState.DELETING)


async def test_an_owner_is_told_once_nothing_that_it_acknowledged_is_in_the_database() -> None:
    parts, receiver = live()
    parts.send(arrival(b"1"), arrival(b"2"), arrival(b"3"))
    stored, failed, _ = held(parts)
    stored.state, failed.state = EnvelopeState.STORED, GONE  # of the failed one nobody knows whether its row is there
    assert acknowledge(parts, receiver, 3) == []
    (deletion,) = parts.inbox.take_batch().deletions
    assert deletion.envelopes == [stored, failed]


async def test_an_acknowledgement_of_nothing_is_answered_at_once() -> None:
    parts, receiver = live()
    assert acknowledge(parts, receiver, 0) == ["acked"]


async def test_an_answer_does_not_overtake_that_of_an_earlier_acknowledgement() -> None:
    """It speaks for all up to its number."""
    parts, receiver = live()
    parts.send(arrival(b"1"), arrival(b"2"), arrival(b"3"))
    held(parts)[0].state = EnvelopeState.STORED
    first, second = acknowledge(parts, receiver, 1), acknowledge(parts, receiver, 2)
    assert (first, second) == ([], [])
    for deletion in parts.inbox.take_batch().deletions:
        deletion.answer()
    assert (first, second) == (["acked"], ["acked"])
    assert acknowledge(parts, receiver, 3) == ["acked"]


# --- The connection ends ------------------------------------------------------------------------------------------


async def test_what_is_held_is_written_when_the_connection_is_over() -> None:
    parts, receiver = live(count=1)
    parts.send(arrival(b"1"), arrival(b"2"))
    parts.bus.stop(QUEUE, receiver)
    parts.intake.release(mailbox_of(parts), receiver.delivery.end())
    assert waiting(parts) == [b"1", b"2"]
    mailbox = mailbox_of(parts)
    assert (parts.intake.held_bytes, list(mailbox.unpushed), mailbox.is_received) == (0, [], False)


async def test_what_was_stored_is_forgotten_with_the_connection_and_what_is_being_written_is_not() -> None:
    parts, receiver = live()
    parts.send(arrival(b"1"), arrival(b"2"), arrival(b"3"))
    stored, writing, failed = held(parts)
    stored.state, writing.state, failed.state = EnvelopeState.STORED, EnvelopeState.WRITING, GONE
    parts.intake.release(mailbox_of(parts), receiver.delivery.end())
    assert list(mailbox_of(parts).known.values()) == [writing]
    assert not writing.is_pushed


# --- Ephemeral ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_there", [True, False])
async def test_what_is_ephemeral_is_passed_on_or_dropped_and_the_answer_is_the_same(is_there: bool) -> None:
    parts = known()
    receiver = parts.receive() if is_there else Receiver(mailbox_of(parts))
    results = parts.send(arrival(b"typing", ttl=Ttl.NOW), arrival(b"typing", STRANGER, ttl=Ttl.NOW))
    assert receiver.heard == ([b"typing"] * 2 if is_there else [])
    assert results == []
    settle(parts)
    assert results == [answers.ACCEPTED] * 2
    assert (mailbox_of(parts).fill, mailbox_of(parts).known) == (Fill(), {})


# --- Repeats ------------------------------------------------------------------------------------------------------


async def test_a_repeat_of_one_that_is_held_is_told_with_it_and_another_body_is_a_conflict() -> None:
    parts, receiver = live()
    first = parts.send(arrival(b"x", name=b"n"))
    again, other = parts.send(arrival(b"x", name=b"n")), parts.send(arrival(b"y", name=b"n"))
    settle(parts)
    assert (first, again, other) == ([], [], [answers.ID_CONFLICT])
    acknowledge(parts, receiver, 1)
    assert (first, again) == ([answers.ACCEPTED], [answers.ACCEPTED])
    assert receiver.heard == [b"x"]


async def test_a_repeat_of_one_that_waits_for_the_writer_is_told_with_it() -> None:
    parts = known()
    results = parts.send(arrival(b"x", name=b"n"), arrival(b"x", name=b"n"), arrival(b"y", name=b"n"))
    batch = parts.inbox.take_batch()
    (envelope,), (settlement,) = batch.arriving, batch.settlements
    assert settlement.result == answers.ID_CONFLICT
    envelope.settle(answers.ACCEPTED)
    settlement.ticket.settle(settlement.place, settlement.result)
    assert results == [answers.ACCEPTED, answers.ACCEPTED, answers.ID_CONFLICT]


async def test_the_same_id_under_another_key_is_another_envelope() -> None:
    parts = known()
    parts.send(arrival(b"x", name=b"n"), arrival(b"y", STRANGER, name=b"n"))
    assert waiting(parts) == [b"x", b"y"]


@pytest.mark.parametrize("kind", [STRANGER, INVITE, GROUP])
async def test_under_a_key_that_strangers_may_have_another_body_is_another_envelope(kind: KeyClass) -> None:
    """ID_CONFLICT would say that the first still waits, and so when the owner was there."""
    parts = known()
    parts.mailboxes.learn({door_of(GROUP): Door(1, GROUP, NOW + 9)})  # demoted
    results = parts.send(*(arrival(body, kind, name=b"n") for body in (b"x", b"y", b"x")))
    batch = parts.inbox.take_batch()
    assert ([envelope.body for envelope in batch.arriving], batch.settlements) == ([b"x", b"y"], [])
    for envelope in batch.arriving:
        envelope.settle(answers.ACCEPTED)
    assert results == [answers.ACCEPTED] * 3


async def test_a_repeat_of_one_whose_body_is_not_in_memory_any_more_is_the_writers_to_recognise() -> None:
    parts, receiver = live()
    parts.send(arrival(b"x", name=b"n"))
    (first,) = held(parts)
    first.state = EnvelopeState.WRITING
    first.committed()
    parts.send(arrival(b"x", name=b"n"))
    assert [envelope.seq for envelope in mailbox_of(parts).unwritten()] == [2]
    assert waiting(parts) == [b"x"]
    assert receiver.heard == [b"x"]
    assert list(mailbox_of(parts).known.values()) == [first]


async def test_one_that_is_sent_again_while_it_is_being_deleted_is_new_and_written_first() -> None:
    parts, receiver = live()
    parts.send(arrival(b"x", name=b"n"))
    (first,) = held(parts)
    first.state = EnvelopeState.WRITING
    acknowledge(parts, receiver, 1)
    parts.send(arrival(b"x", name=b"n"))
    batch = parts.inbox.take_batch()
    assert [envelope.body for envelope in batch.arriving] == [b"x"]
    assert list(mailbox_of(parts).known.values()) == batch.arriving
    assert receiver.heard == [b"x"]


async def test_a_shared_body_stays_shared() -> None:
    parts, shared = known(), Shared(77, b"body")
    parts.send(arrival(b"body", shared=shared), arrival(b"body", queue=OTHER, shared=shared))
    assert [envelope.shared for envelope in parts.inbox.take_batch().arriving] == [shared, shared]


# --- Quotas -------------------------------------------------------------------------------------------------------


async def test_after_a_full_queue_nothing_later_of_the_send_overtakes() -> None:
    parts = known(Parts(quotas=Quotas(size=10)))
    parts.send(arrival(bytes(8)), arrival(bytes(8)), arrival(b"1"), arrival(b"other", queue=OTHER))
    batch = parts.inbox.take_batch()
    assert [envelope.size for envelope in batch.arriving] == [8, 5]
    assert [refusal.result.code for refusal in batch.refusals] == [Code.QUEUE_FULL] * 2
    assert all(refusal.result.retry_after_ms > 0 for refusal in batch.refusals)
    parts.send(arrival(b"2"))
    assert waiting(parts) == [b"2"]


async def test_an_owner_can_be_told_how_many_were_refused_for_a_quota() -> None:
    parts = known(Parts(quotas=Quotas(envelopes=1)))
    for _ in range(3):
        parts.send(arrival())
    assert mailbox_of(parts).refused == 2


async def test_what_a_quota_refuses_may_be_a_repeat_so_the_writer_is_asked() -> None:
    parts = known(Parts(quotas=Quotas(envelopes=0)))
    results = parts.send(arrival())
    assert results == []
    assert refusals(parts) == [answers.QUEUE_FULL]


async def test_each_invite_key_has_a_quota_of_its_own() -> None:
    parts = known(Parts(quotas=Quotas(invite_envelopes=2)))
    second = QUEUE + SECOND_INVITE
    parts.mailboxes.learn({second: Door(1, INVITE, None)})
    mailbox_of(parts).invites[second] = 1
    parts.send(arrival(kind=INVITE), arrival(kind=INVITE), arrival(kind=INVITE))
    parts.send(arrival(key_hash=SECOND_INVITE))
    parts.send(arrival(key_hash=SECOND_INVITE))
    parts.send(arrival())
    batch = parts.inbox.take_batch()
    assert [envelope.invite for envelope in batch.arriving] == [door_of(INVITE), door_of(INVITE), second, None]
    assert [refusal.envelope.invite for refusal in batch.refusals] == [door_of(INVITE), second]


async def test_strangers_and_demoted_keys_share_one_quota_and_leave_room_for_contacts() -> None:
    parts = known(Parts(quotas=Quotas(stranger_envelopes=2)))
    parts.mailboxes.learn({door_of(GROUP): Door(1, GROUP, NOW + 9)})
    for kind in (STRANGER, GROUP, STRANGER, GROUP, CONTACT):
        parts.send(arrival(kind=kind))
    batch = parts.inbox.take_batch()
    assert [envelope.key_class for envelope in batch.arriving] == [STRANGER, GROUP, CONTACT]
    assert [refusal.envelope.key_class for refusal in batch.refusals] == [STRANGER, GROUP]


# --- Rates --------------------------------------------------------------------------------------------------------


class Ticks:
    """Seconds, as the test wants them."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def limited(kind: KeyClass, burst: int, clock: Ticks) -> Parts:
    """Parts whose queues take one a second under keys of this class."""
    return known(Parts(rates=generous() | {kind: Rates(1, burst, clock=clock)}))


async def test_what_comes_too_fast_is_told_when_to_come_again_and_then_taken() -> None:
    clock = Ticks()
    parts = limited(STRANGER, 2, clock)
    parts.send(arrival(kind=STRANGER), arrival(kind=STRANGER))
    assert len(waiting(parts)) == 2
    too_fast = parts.send(arrival(kind=STRANGER), arrival(b"too", STRANGER))
    assert too_fast == [SendResult(Code.TRY_AGAIN, 2000)] * 2
    assert len(parts.inbox) == 0  # no database is asked for those who come too fast
    clock.now += 2
    parts.send(arrival(kind=STRANGER))
    assert len(waiting(parts)) == 1


async def test_each_queue_and_each_class_has_a_rate_of_its_own() -> None:
    parts = limited(STRANGER, 1, Ticks())
    parts.send(arrival(kind=STRANGER))
    for other in (arrival(), arrival(kind=STRANGER, queue=OTHER)):
        parts.send(other)
    assert len(waiting(parts)) == 3
    assert codes(parts.send(arrival(kind=STRANGER))) == [Code.TRY_AGAIN]


async def test_each_invite_key_has_a_rate_of_its_own() -> None:
    parts = limited(INVITE, 1, Ticks())
    parts.mailboxes.learn({QUEUE + SECOND_INVITE: Door(1, INVITE, None)})
    mailbox_of(parts).invites[QUEUE + SECOND_INVITE] = 0
    parts.send(arrival(kind=INVITE))
    parts.send(arrival(key_hash=SECOND_INVITE))
    assert len(waiting(parts)) == 2
    assert codes(parts.send(arrival(key_hash=SECOND_INVITE))) == [Code.TRY_AGAIN]


async def test_demoted_keys_share_the_rate_of_strangers() -> None:
    parts = limited(STRANGER, 1, Ticks())
    demoted = {door_of(kind): Door(1, kind, NOW + 9) for kind in (CONTACT, GROUP)}
    parts.mailboxes.learn(demoted)
    parts.send(arrival())
    for kind in (CONTACT, GROUP, STRANGER):
        assert codes(parts.send(arrival(kind=kind))) == [Code.TRY_AGAIN]


async def test_what_is_ephemeral_and_too_fast_is_not_passed_on() -> None:
    parts = limited(CONTACT, 1, Ticks())
    receiver = parts.receive()
    parts.send(arrival(b"1", ttl=Ttl.NOW))
    results = parts.send(arrival(b"2", ttl=Ttl.NOW))
    settle(parts)
    assert receiver.heard == [b"1"]
    assert codes(results) == [Code.TRY_AGAIN]
