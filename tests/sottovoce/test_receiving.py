"""The owner's connection to a relay that says what the test wants: invite codes, gaps, silence, faults, lies."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
import trio_websocket
from trio.testing import MockClock

from sottovoce import errors, events
from sottovoce.connection import Connection
from sottovoce.local import Local
from sottovoce.network import Internet
from sottovoce.protocol import contact_key
from sottovoce.receiving import Receiver
from sottovoce_wire import frames, limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import ClientFrame, GapReason
from sottovoce_wire.ids import QueueId, SendKeyHash, queue_id_of, send_key_hash
from tests.sottovoce.people import Person
from tests.sottovoce.relays import PATIENCE, Talk, relay

CODE = "let me in"

pytestmark = pytest.mark.usefixtures("impatient")


@asynccontextmanager
async def receiving(
    person: Person, origin: str, invite_code: str = "", changed: Callable[[Connection], None] = lambda _: None
) -> AsyncIterator[Receiver]:
    """The person's receiver, at work."""
    receiver = Receiver(
        Local(person.store),
        person.own,
        person.opener,
        lambda: None,
        network=Internet(),
        invite_code=invite_code,
        changed=changed,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver.run, origin)
        yield receiver
        nursery.cancel_scope.cancel()


async def trouble_after(
    talk: Callable[[Talk], Awaitable[None]], person: Person, invite_code: str = ""
) -> tuple[errors.SottovoceError, str]:
    """What the person's receiver has to say of this talk when it dials again, and the relay's address."""
    again = trio.Event()

    async def note(_: Talk) -> None:
        again.set()

    async with relay(talk, note) as origin, receiving(person, origin, invite_code) as receiver:
        with trio.fail_after(PATIENCE):
            await again.wait()
        assert receiver.trouble is not None
        assert not receiver.ready.is_set()
        return receiver.trouble, origin


async def test_a_relay_that_asks_for_an_invite_code_hears_it(alice: Person) -> None:
    async with relay(lambda talk: talk.greet(CODE)) as origin, receiving(alice, origin, CODE) as receiver:
        with trio.fail_after(PATIENCE):
            await receiver.ready.wait()
        assert receiver.trouble is None


@pytest.mark.parametrize(
    ("invite_code", "reason", "advice"),
    [
        ("", "takes nobody new without an invite code", "--invite-code"),
        ("a guess", "takes nobody new under this invite code", "letter by letter"),
    ],
)
async def test_a_relay_that_takes_nobody_new_is_told_apart_and_says_what_to_do(
    alice: Person, invite_code: str, reason: str, advice: str
) -> None:
    trouble, origin = await trouble_after(lambda talk: talk.greet(CODE), alice, invite_code)
    assert isinstance(trouble, errors.RegistrationClosed)
    assert str(trouble) == f"the relay at {origin} {reason}"
    assert advice in trouble.diagnostics()


async def test_another_refusal_says_its_name_and_not_the_relays_words(alice: Person) -> None:
    async def leave(talk: Talk) -> None:
        await talk.hear()
        await talk.say(frames.Goodbye(Code.TOO_MANY_CONNECTIONS, "\x1b]0;owned\x07"))

    trouble, origin = await trouble_after(leave, alice)
    assert type(trouble) is errors.ServerRefused
    assert str(trouble) == f"the relay at {origin} closed the connection (too_many_connections)"


async def test_only_what_expired_counts_as_lost(alice: Person) -> None:
    """What a full queue turned away, its senders keep."""

    async def tell(talk: Talk) -> None:
        await talk.greet()
        first, second = talk.queues
        await talk.say(
            frames.Gap(first, 3, GapReason.EXPIRED),
            frames.Gap(first, 4, GapReason.QUOTA),
            frames.Gap(second, 5, GapReason.EXPIRED),
            frames.CaughtUp(first),
            frames.CaughtUp(second),
        )

    async with relay(tell) as origin, receiving(alice, origin) as receiver:
        with trio.fail_after(PATIENCE):
            await receiver.caught_up.wait()
    with alice.store.transaction() as tables:
        told = tables.events.first()
    assert told is not None
    assert isinstance(told[1], events.MessagesExpired)
    assert told[1].count == 8


async def test_a_fault_in_mid_message_acknowledges_nothing_and_all_of_it_comes_again(alice: Person) -> None:
    acknowledged: list[ClientFrame] = []
    gone = trio.Event()

    def page(queue: QueueId, number: int) -> frames.Deliver:
        return frames.Deliver(queue, [frames.Delivery(number, frames.KeyClass.CONTACT, bytes([number]) * 100)])

    async def stumble(talk: Talk) -> None:
        await talk.greet()
        await talk.say(page(talk.queues[1], 1), page(talk.queues[1], 2), page(talk.queues[1], 4))
        try:
            acknowledged.extend(await talk.hear())
        finally:
            gone.set()

    async def go_on(talk: Talk) -> None:
        await gone.wait()
        assert acknowledged == []
        assert alice.undecryptable() == []
        await talk.greet()
        queue = talk.queues[1]
        await talk.say(page(queue, 1), page(queue, 2), page(queue, 3))
        for number in (1, 2, 3):
            assert await talk.hear() == [frames.Ack(queue, number, [])]
        await talk.say(frames.Acked(queue, 3, []), *(frames.CaughtUp(each) for each in talk.queues))

    async with relay(stumble, go_on) as origin, receiving(alice, origin) as receiver:
        with trio.fail_after(PATIENCE):
            await receiver.caught_up.wait()
    assert len(alice.undecryptable()) == 3


def page(queue: QueueId, *numbers: int) -> frames.Deliver:
    """Envelopes that nobody can read."""
    return frames.Deliver(
        queue, [frames.Delivery(number, frames.KeyClass.CONTACT, number.to_bytes(2) * 50) for number in numbers]
    )


UNKNOWN = QueueId(bytes(16))


@pytest.mark.parametrize(
    "lie",
    [
        lambda _: page(UNKNOWN, 1),
        lambda _: frames.CaughtUp(UNKNOWN),
        lambda _: frames.Gap(UNKNOWN, 1, GapReason.EXPIRED),
        lambda _: frames.Acked(UNKNOWN, 1, []),
        lambda _: frames.DeliverNow(UNKNOWN, [frames.Passing(frames.KeyClass.CONTACT, b"x")]),
        lambda queue: page(queue, 0),
        lambda queue: page(queue, 2),
        lambda queue: page(queue, 1, 1),
        lambda queue: page(queue, 1, 3),
        lambda queue: page(queue, 2, 1),
        lambda queue: frames.Deliver(queue, [frames.Delivery(2**53 - 1, frames.KeyClass.CONTACT, b"x")]),
        lambda _: frames.SendResults(0, [frames.SendResult(Code.ACCEPTED, 0)]),
        lambda _: frames.Done(7),
        lambda _: frames.Welcome(1, bytes(32), 0, 0, 0),
    ],
)
async def test_a_relay_that_lies_is_left_for_a_while_and_nothing_of_it_is_acknowledged_or_lost(
    lie: Callable[[QueueId], frames.RelayFrame], alice: Person
) -> None:
    told: list[Connection] = []
    acknowledged: list[list[ClientFrame]] = []

    async def mislead(talk: Talk) -> None:
        await talk.greet()
        await talk.say(lie(talk.queues[1]))
        acknowledged.append(await talk.hear())

    async def go_on(talk: Talk) -> None:
        await talk.greet()
        await talk.say(page(talk.queues[1], 1), *(frames.CaughtUp(each) for each in talk.queues))

    async with relay(mislead, go_on) as origin, receiving(alice, origin, changed=told.append) as receiver:
        with trio.fail_after(PATIENCE):
            await receiver.caught_up.wait()
    assert acknowledged == []
    assert len(alice.undecryptable()) == 1
    assert [each.is_up for each in told] == [True, False, True]
    assert isinstance(told[1].trouble, errors.ServerRefused)


async def test_numbers_that_went_back_end_the_connection(alice: Person) -> None:
    async def repeat(talk: Talk) -> None:
        await talk.greet()
        await talk.say(page(talk.queues[1], 1, 2))
        assert await talk.hear() == [frames.Ack(talk.queues[1], 2, [])]
        await talk.say(page(talk.queues[1], 2))

    again = trio.Event()

    async def note(_: Talk) -> None:
        again.set()

    async with relay(repeat, note) as origin, receiving(alice, origin) as receiver:
        with trio.fail_after(PATIENCE):
            await again.wait()
        assert isinstance(receiver.trouble, errors.ServerRefused)
    assert len(alice.undecryptable()) == 2


async def test_the_greatest_counts_that_a_relay_can_name_hurt_nobody(alice: Person) -> None:
    async def exaggerate(talk: Talk) -> None:
        await talk.greet()
        first, second = talk.queues
        for _ in range(3):
            await talk.say(*[frames.Gap(first, 2**53 - 1, GapReason.EXPIRED)] * limits.MAX_FRAMES)
        await talk.say(frames.Acked(first, 2**53 - 1, [2**53 - 1] * 256), frames.Pong(2**32 - 1))
        await talk.say(page(second, 1), frames.CaughtUp(first), frames.CaughtUp(second))

    async with relay(exaggerate) as origin, receiving(alice, origin) as receiver:
        with trio.fail_after(PATIENCE):
            await receiver.caught_up.wait()
        assert receiver.trouble is None
    assert len(alice.undecryptable()) == 1
    with alice.store.transaction() as tables:
        told = tables.events.first()
    assert told is not None
    assert getattr(told[1], "count", None) == 2**53 - 1


async def test_what_may_be_newer_than_what_waits_in_the_other_queue_is_left_for_the_next_connection(
    alice: Person,
) -> None:
    """256 that the relay has not seen acknowledged: more may wait behind them."""
    told: list[Connection] = []
    heard: list[ClientFrame] = []
    gone = trio.Event()

    async def fill(talk: Talk) -> None:
        await talk.greet()
        first, second = talk.queues
        for start in range(1, 257, 64):
            await talk.say(page(first, *range(start, start + 64)))
        await talk.say(page(second, 1))
        with suppress(trio_websocket.ConnectionClosed):
            while True:
                heard.extend(await talk.hear())
        gone.set()

    async def go_on(talk: Talk) -> None:
        await gone.wait()
        await talk.greet()
        assert heard == [frames.Ack(talk.queues[0], upto, []) for upto in (64, 128, 192, 256)]
        await talk.say(page(talk.queues[1], 1), *(frames.CaughtUp(each) for each in talk.queues))

    async with relay(fill, go_on) as origin, receiving(alice, origin, changed=told.append) as receiver:
        with trio.fail_after(PATIENCE):
            await receiver.caught_up.wait()
    assert [each.is_up for each in told] == [True, False, True]
    assert "more than it could deliver" in str(told[1].trouble)
    assert len(alice.undecryptable()) == 1


async def test_strangers_who_keep_their_queue_full_cannot_keep_contacts_out(alice: Person) -> None:
    """One connection is given up for the order, and not the next one."""
    talks = 0

    async def fill(talk: Talk) -> None:
        nonlocal talks
        talks += 1
        assert talks <= 2, "another one was given up"
        await talk.greet()
        first, second = talk.queues
        await talk.say(page(first, *range(1, 257)))
        await talk.say(page(second, 1), frames.CaughtUp(second))
        while True:  # until the client goes
            await talk.hear()

    async with relay(fill) as origin, receiving(alice, origin) as receiver:
        with trio.fail_after(PATIENCE):
            await receiver.caught_up.wait()
    assert talks == 2
    assert len(alice.undecryptable()) == 1


async def test_a_queue_for_strangers_that_is_never_read_to_the_end_holds_contacts_up_for_ten_seconds(
    alice: Person, mock_clock: MockClock
) -> None:
    came = trio.Event()

    async def flood(talk: Talk) -> None:
        await talk.welcome()
        created = await talk.hear()
        queues = [queue_id_of(frame.owner_key) for frame in created if isinstance(frame, frames.CreateQueue)]
        await talk.say(*(frames.Done(request) for request in range(len(created))))
        await talk.say(page(queues[0], 1))
        assert await talk.hear() == [frames.Ack(queues[0], 1, [])]
        mock_clock.jump(9)
        await talk.say(page(queues[0], 2))
        assert await talk.hear() == [frames.Ack(queues[0], 2, [])]
        mock_clock.jump(1)
        await talk.say(page(queues[0], *range(3, 259)))
        assert await talk.hear() == [frames.Ack(queues[0], 258, [])]
        await trio.testing.wait_all_tasks_blocked(0.01)
        mock_clock.jump(31)  # who has nothing to say pings
        (receive,) = await talk.hear()
        assert isinstance(receive, frames.Receive)
        assert receive.queue == queues[1]
        assert await talk.hear() == [frames.Ping(0)]
        await talk.say(frames.Done(receive.request), page(queues[1], 1))
        assert await talk.hear() == [frames.Ack(queues[1], 1, [])]
        came.set()

    async with relay(flood) as origin, receiving(alice, origin):
        await came.wait()
    assert len(alice.undecryptable()) == 1


@dataclass
class Keys:
    """What the relay heard of the keys of a person's contact queue, connection by connection."""

    created: list[list[SendKeyHash]] = field(default_factory=list)
    demoted: list[list[SendKeyHash]] = field(default_factory=list)
    again: trio.Event = field(default_factory=trio.Event)
    heard: Callable[[], object] = lambda: None  # the client waits for an answer meanwhile

    def note(self, asked: list[ClientFrame]) -> None:
        _, contact = (frame for frame in asked if isinstance(frame, frames.CreateQueue))
        self.created.append([key.key_hash for key in contact.send_keys])
        self.demoted.append([frame.key_hash for frame in asked if isinstance(frame, frames.DemoteSendKey)])

    async def answer(self, talk: Talk) -> None:
        """Do all that is asked."""
        await talk.welcome()
        asked = await talk.hear()
        self.note(asked)
        await talk.do(asked)

    async def break_off(self, talk: Talk) -> None:
        """Hear all that is asked, do it perhaps, and be gone before all of it is answered."""
        await talk.welcome()
        asked = await talk.hear()
        self.note(asked)
        self.heard()
        await talk.say(*(frames.Done(request) for request in range(len(asked) - 1)))
        await talk.socket.aclose()

    async def come_again(self, talk: Talk) -> None:
        await self.answer(talk)
        self.again.set()


def contact_keys(person: Person) -> tuple[SendKeyHash, SendKeyHash | None]:
    """The hashes of the key that contacts are given and of the one that is to take its place."""
    with person.store.transaction() as tables:
        following = tables.account.next_contact_key()
        return send_key_hash(tables.account.contact_key()), None if following is None else send_key_hash(following)


def want_new_key(person: Person) -> None:
    with person.store.transaction() as tables:
        contact_key.want(tables)


async def test_a_new_key_is_handed_out_when_the_relay_has_done_all_and_said_again_until_then(alice: Person) -> None:
    """As often as the relay, or the client, is gone in between."""
    want_new_key(alice)
    old, new = contact_keys(alice)
    assert new is not None
    held: list[tuple[SendKeyHash, SendKeyHash | None]] = []
    keys = Keys(heard=lambda: held.append(contact_keys(alice)))
    async with relay(keys.break_off, keys.break_off, keys.answer) as origin, receiving(alice, origin) as receiver:
        with trio.fail_after(PATIENCE):
            await receiver.ready.wait()
    assert held == [(old, new)] * 2
    assert keys.created == [[old, new]] * 3
    assert keys.demoted == [[old]] * 3
    assert contact_keys(alice) == (new, None)
    keys = Keys()
    async with relay(keys.answer) as origin, receiving(alice, origin) as receiver:
        with trio.fail_after(PATIENCE):
            await receiver.ready.wait()
    assert (keys.created, keys.demoted) == ([[new]], [[]])


async def test_a_renewed_connection_has_stored_and_acknowledged_what_came_and_nobody_is_told_that_it_is_down(
    alice: Person,
) -> None:
    told: list[Connection] = []
    acknowledged: list[list[ClientFrame]] = []
    keys, came = Keys(), trio.Event()

    async def bring(talk: Talk) -> None:
        await keys.answer(talk)
        await talk.say(page(talk.queues[1], 1))
        acknowledged.append(await talk.hear())
        came.set()

    async with (
        relay(bring, keys.come_again) as origin,
        receiving(alice, origin, changed=told.append) as receiver,
    ):
        with trio.fail_after(PATIENCE):
            await came.wait()
            want_new_key(alice)
            receiver.renew()
            await keys.again.wait()
    assert [len(acks) for acks in acknowledged] == [1]
    assert [len(created) for created in keys.created] == [1, 2]
    assert [each.is_up for each in told] == [True]
    assert len(alice.undecryptable()) == 1


async def test_a_connection_that_tells_of_the_new_key_is_not_cut_for_it(alice: Person) -> None:
    """Or whoever blocks many in a row would be cut off until the last of them."""
    want_new_key(alice)
    keys, was_asked = Keys(), trio.Event()

    async def take_time(talk: Talk) -> None:
        await talk.welcome()
        asked = await talk.hear()
        was_asked.set()
        await trio.testing.wait_all_tasks_blocked()
        await talk.say(*(frames.Done(request) for request in range(len(asked))))

    async with relay(take_time, keys.answer) as origin, receiving(alice, origin) as receiver:
        with trio.fail_after(PATIENCE):
            await was_asked.wait()
            receiver.renew()
            await receiver.ready.wait()
    assert keys.created == []
    assert contact_keys(alice)[1] is None


async def test_a_connection_is_renewed_when_the_page_in_hand_is_stored(alice: Person) -> None:
    """The keys that it was made with are another's by then, and the page is not taken in a second time."""
    keys, acknowledged = Keys(), []

    async def bring(talk: Talk) -> None:
        await keys.answer(talk)
        await talk.say(page(talk.queues[1], 1))
        acknowledged.append(await talk.hear())

    async with relay(bring, keys.come_again) as origin, receiving(alice, origin) as receiver:
        receiver._arrived = receiver.renew  # in the middle of the page
        with trio.fail_after(PATIENCE):
            await keys.again.wait()
    assert [len(acks) for acks in acknowledged] == [1]


async def pass_time(clock: MockClock, until: trio.Event) -> None:
    """Let the clock go on, in steps that everybody takes part in, for ten minutes at most."""
    for _ in range(120):
        if until.is_set():
            return
        clock.jump(5)
        await trio.testing.wait_all_tasks_blocked(0.01)
    raise AssertionError("nothing happened")


async def test_a_silent_relay_is_asked_twice_and_left_after_90_seconds(alice: Person, mock_clock: MockClock) -> None:
    heard: list[float] = []
    gone = trio.Event()

    async def fall_silent(talk: Talk) -> None:
        await talk.greet()
        started = trio.current_time()
        try:
            while await talk.hear() == [frames.Ping(0)]:
                heard.append(trio.current_time() - started)
        finally:
            heard.append(trio.current_time() - started)
            gone.set()

    told: list[Connection] = []
    async with relay(fall_silent) as origin, receiving(alice, origin, changed=told.append) as receiver:
        await receiver.ready.wait()
        await pass_time(mock_clock, gone)
    assert [round(at / 30) for at in heard] == [1, 2, 3]
    assert [each.is_up for each in told] == [True, False]
    assert "fallen silent" in str(told[1].trouble)


async def test_a_relay_that_answers_pings_and_never_opens_the_queues_is_left(
    alice: Person, mock_clock: MockClock
) -> None:
    asked, gone = trio.Event(), trio.Event()

    async def put_off(talk: Talk) -> None:
        await talk.welcome()
        await talk.hear()
        asked.set()
        while await talk.hear() == [frames.Ping(0)]:
            await talk.say(frames.Pong(0))

    async with relay(put_off) as origin, receiving(alice, origin, changed=lambda _: gone.set()) as receiver:
        await asked.wait()
        started = trio.current_time()
        await pass_time(mock_clock, gone)
        assert trio.current_time() - started <= 80
        assert "does not open the queues" in str(receiver.trouble)
