"""The sender's connections to relays that are honest, gone, silent or lying, on real sockets."""

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from sottovoce import errors, sending
from sottovoce.connection import Connection
from sottovoce.local import Local, now_ms
from sottovoce.network import Internet
from sottovoce.protocol.state import Address, Outgoing
from sottovoce.sending import Sender
from sottovoce.store.database import Tables
from sottovoce.store.outbox import BATCH
from sottovoce_wire import frames
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import KeyClass, SendResult, Ttl
from sottovoce_wire.ids import AccountId, DeviceId, EnvelopeId, MessageId, QueueId, SendKey
from tests.sottovoce.people import Person
from tests.sottovoce.relays import ACCEPTED, PATIENCE, WELCOME, Talk, relay

#: Where nobody listens.
NOBODY = "http://127.0.0.1:1"


@dataclass
class Mailer:
    """A sender at work, and what it tells."""

    local: Local
    sender: Sender = field(init=False)
    told: list[Connection] = field(default_factory=list)
    settled: dict[bytes, trio.Event] = field(default_factory=lambda: defaultdict(trio.Event))
    _last: int = 0
    _news: trio.Event = field(default_factory=trio.Event)

    async def post(self, origin: str, count: int = 1) -> list[bytes]:
        """Put envelopes in the outbox, all for one queue; returns their bodies."""
        numbers = range(self._last + 1, self._last + count + 1)
        self._last += count
        names = [number.to_bytes(16, "big") for number in numbers]

        def add(tables: Tables) -> None:
            for name in names:
                tables.outbox.add(_envelope(origin, name), now_ms() // 1000)

        await self.local.transact(add)
        self.sender.wake(origin)
        return names

    async def wait_settled(self, *names: bytes) -> None:
        for name in names:
            await self.settled[name].wait()

    def tell(self, change: Connection) -> None:
        self.told.append(change)
        self._news.set()
        self._news = trio.Event()

    async def wait_told(self, count: int) -> None:
        while len(self.told) < count:
            await self._news.wait()

    async def waiting(self) -> int:
        """Envelopes in the outbox."""
        return await self.local.transact(lambda tables: tables.outbox.size())


def _envelope(origin: str, name: bytes) -> Outgoing:
    address = Address(origin, QueueId(bytes(16)), SendKey(bytes(32)), KeyClass.CONTACT)
    account_id, device_id = AccountId(bytes(32)), DeviceId(bytes(16))
    return Outgoing(MessageId(name), account_id, device_id, EnvelopeId(name), address, Ttl.MONTH, name)


@asynccontextmanager
async def mailing(person: Person, own: str = NOBODY, *, inline: bool = False) -> AsyncIterator[Mailer]:
    """A sender at work on the person's store; `inline`, so that when all tasks are blocked nothing is under way."""
    mailer = Mailer(Local(person.store, inline=inline))
    async with trio.open_nursery() as nursery:
        mailer.sender = Sender(
            mailer.local,
            own,
            nursery,
            lambda message_id: mailer.settled[message_id].set(),
            Internet(),
            changed=mailer.tell,
        )
        yield mailer
        nursery.cancel_scope.cancel()


async def accept_all(talk: Talk) -> None:
    await talk.welcome()
    while True:
        await talk.accept()


@pytest.fixture
def heard() -> list[list[bytes]]:
    """The bodies that were accepted, one list for each connection."""
    return []


@pytest.fixture
def noting(heard: list[list[bytes]]) -> Callable[[Talk], Awaitable[None]]:
    async def note(talk: Talk) -> None:
        await talk.welcome()
        heard.append([])
        while True:
            heard[-1] += await talk.accept()

    return note


# --- When a connection ends. The clock stands still but where a test moves it, so that nothing happens by itself. ---


async def test_a_connection_in_use_is_replaced_within_five_to_fifteen_minutes(
    alice: Person, heard: list[list[bytes]], noting: Callable[[Talk], Awaitable[None]], mock_clock: MockClock
) -> None:
    sent = []
    async with relay(noting) as origin, mailing(alice) as mailer:
        for _ in range(20):  # one in 50 s: never idle
            sent += await mailer.post(origin)
            await mailer.wait_settled(sent[-1])
            mock_clock.jump(50)
    assert [body for bodies in heard for body in bodies] == sent
    assert 2 <= len(heard) <= 4
    assert len(heard[0]) >= 6


async def test_two_clients_replace_their_connections_at_different_times(
    alice: Person, heard: list[list[bytes]], noting: Callable[[Talk], Awaitable[None]], mock_clock: MockClock
) -> None:
    lives = set()
    for _ in range(5):
        heard.clear()
        async with relay(noting) as origin, mailing(alice) as mailer:
            started, now = trio.current_time(), 0.0
            while len(heard) < 2:
                await mailer.wait_settled(*await mailer.post(origin))
                now = trio.current_time()
                mock_clock.jump(7.0)
            lives.add(now - started)
    assert len(lives) > 1


async def test_a_replacement_amid_a_backlog_loses_and_reorders_nothing(
    alice: Person, heard: list[list[bytes]], monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    monkeypatch.setattr(sending, "SHORTEST_LIFE", 30.0)
    monkeypatch.setattr(sending, "LONGEST_LIFE", 30.0)

    async def take_long(talk: Talk) -> None:
        await talk.welcome()
        heard.append([])
        while True:
            request, items = await talk.hear_send()
            mock_clock.jump(31)  # its time is over while this batch is under way
            heard[-1] += [item.body for item in items]
            await talk.say(frames.SendResults(request, [ACCEPTED] * len(items)))

    async with relay(take_long) as origin, mailing(alice) as mailer:
        sent = await mailer.post(origin, 3 * BATCH)
        await mailer.wait_settled(*sent)
        await mailer.wait_told(2)
        assert [(each.is_up, each.trouble) for each in mailer.told] == [(True, None), (False, None)]  # told as one
    assert [len(bodies) for bodies in heard] == [BATCH] * 3
    assert [body for bodies in heard for body in bodies] == sent


async def test_an_idle_connection_is_closed_after_a_minute_and_the_next_message_opens_another(
    alice: Person, heard: list[list[bytes]], noting: Callable[[Talk], Awaitable[None]], mock_clock: MockClock
) -> None:
    gone = trio.Event()

    async def note(talk: Talk) -> None:
        try:
            await noting(talk)
        finally:
            gone.set()

    async with relay(note) as origin, mailing(alice) as mailer:
        first = await mailer.post(origin)
        await mailer.wait_settled(*first)
        mock_clock.jump(61)
        await gone.wait()
        second = await mailer.post(origin)
        await mailer.wait_settled(*second)
        assert [(each.is_up, each.trouble) for each in mailer.told] == [(True, None), (False, None), (True, None)]
    assert heard == [first, second]


async def test_a_relay_that_ends_an_idle_connection_delays_and_troubles_nobody(
    alice: Person, heard: list[list[bytes]], noting: Callable[[Talk], Awaitable[None]], mock_clock: MockClock
) -> None:
    """With the clock standing still, a wait before the next attempt would never end."""

    async def leave(talk: Talk) -> None:
        await talk.welcome()
        heard.append(await talk.accept())
        await talk.say(frames.Goodbye(Code.SHUTTING_DOWN, ""))

    async with relay(leave, noting) as origin, mailing(alice) as mailer:
        first = await mailer.post(origin)
        await mailer.wait_settled(*first)
        await mailer.wait_told(2)
        assert [each.trouble for each in mailer.told] == [None] * 2
        second = await mailer.post(origin)
        await mailer.wait_settled(*second)
    assert heard == [first, second]


# --- Relays that fail ---


@pytest.mark.usefixtures("impatient")
async def test_what_was_not_answered_goes_out_again_first_in_the_same_bytes_under_the_same_ids(alice: Person) -> None:
    sends: list[list[frames.SendItem]] = []
    came, more = trio.Event(), trio.Event()

    async def hang_up(talk: Talk) -> None:
        await talk.welcome()
        sends.append((await talk.hear_send())[1])
        came.set()
        await more.wait()
        await talk.socket.aclose()

    async def go_on(talk: Talk) -> None:
        await talk.welcome()
        while True:
            request, items = await talk.hear_send()
            sends.append(items)
            await talk.say(frames.SendResults(request, [ACCEPTED] * len(items)))

    async with relay(hang_up, go_on) as origin, mailing(alice) as mailer:
        first = await mailer.post(origin, 3)
        await came.wait()
        later = await mailer.post(origin)
        more.set()
        with trio.fail_after(PATIENCE):
            await mailer.wait_settled(*first, *later)
    assert sends[1][:3] == sends[0]
    assert [item.body for items in sends[1:] for item in items] == first + later


def _said(*said: frames.RelayFrame) -> bytes:
    return frames.message(*said)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "lie",
    [
        lambda request: _said(frames.SendResults(request, [ACCEPTED] * 3)),
        lambda request: _said(frames.SendResults(request, [ACCEPTED])),
        lambda request: _said(frames.SendResults(request + 1, [ACCEPTED] * 2)),
        lambda request: _said(frames.SendResults(request, [ACCEPTED] * 2), frames.SendResults(request, [ACCEPTED] * 2)),
        lambda request: _said(frames.SendResults(request, [ACCEPTED] * 2)).replace(b"\x00\x00", b"\xcd\x7f\xff\x00"),
        lambda _: _said(frames.Deliver(QueueId(bytes(16)), [frames.Delivery(1, KeyClass.CONTACT, b"x")])),
        lambda _: _said(frames.Done(0)),
        lambda _: _said(WELCOME),
        lambda _: _said(frames.Goodbye(Code.SHUTTING_DOWN, "\x1b]0;owned\x07")),
        lambda _: b"\xdd\xff\xff\xff\xff",
        lambda _: b"\xc1",
        lambda _: b"",
    ],
)
async def test_a_relay_that_lies_is_left_and_what_it_was_sent_is_sent_again(
    lie: Callable[[int], bytes], alice: Person, heard: list[list[bytes]], noting: Callable[[Talk], Awaitable[None]]
) -> None:
    async def mislead(talk: Talk) -> None:
        await talk.welcome()
        request, _ = await talk.hear_send()
        await talk.socket.send_message(lie(request))

    async with relay(mislead, noting) as origin, mailing(alice) as mailer:
        sent = await mailer.post(origin, 2)
        with trio.fail_after(PATIENCE):
            await mailer.wait_settled(*sent)
        assert heard == [sent]
        trouble = mailer.told[1].trouble
        assert isinstance(trouble, errors.ServerRefused)
        assert "\x1b" not in trouble.diagnostics()
        assert mailer.sender.trouble == {}


@pytest.mark.usefixtures("impatient")
async def test_a_relay_that_says_come_back_in_fifty_days_is_asked_again_within_minutes(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "LATEST_RETRY", sending.SOONEST_RETRY)

    async def put_off(talk: Talk) -> None:
        await talk.welcome()
        request, items = await talk.hear_send()
        await talk.say(frames.SendResults(request, [SendResult(Code.QUEUE_FULL, 2**32 - 1)] * len(items)))
        await talk.accept()

    async with relay(put_off) as origin, mailing(alice) as mailer:
        with trio.fail_after(PATIENCE):
            await mailer.wait_settled(*await mailer.post(origin))
        assert await mailer.waiting() == 0


# --- Several relays ---


async def test_slow_and_dead_relays_delay_nothing_for_the_others(alice: Person, mock_clock: MockClock) -> None:
    silent = trio.Event()

    async def say_nothing(_: Talk) -> None:
        silent.set()

    async def never_answer(talk: Talk) -> None:
        await talk.welcome()
        await talk.hear()

    async with (
        relay(say_nothing) as slow,
        relay(never_answer) as slower,
        relay(accept_all) as first,
        relay(accept_all) as second,
        mailing(alice) as mailer,
    ):
        for bad in (slow, slower, NOBODY):
            await mailer.post(bad, BATCH)
        await silent.wait()
        for origin in (first, second, first):  # the clock stands still: nobody's patience ends meanwhile
            await mailer.wait_settled(*await mailer.post(origin))
        assert await mailer.waiting() == 3 * BATCH


async def test_however_many_relays_contacts_name_a_few_are_connected_at_a_time_and_the_dead_leave_room(
    alice: Person, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    monkeypatch.setattr(sending, "PLACES", 2)
    monkeypatch.setattr(sending, "PLACES_FOR_FAILING", 1)
    connected = most = 0

    async def say_nothing(talk: Talk) -> None:
        nonlocal connected, most
        connected += 1
        most = max(most, connected)
        try:
            await talk.hear()
            await talk.hear()
        finally:
            connected -= 1

    async def pass_time(step: float, until: Callable[[], bool]) -> None:
        for _ in range(100):
            if until():
                return
            mock_clock.jump(step)
            await trio.testing.wait_all_tasks_blocked(0.01)
        raise AssertionError("nothing happened")

    async with AsyncExitStack() as relays:
        honest, *silent = [await relays.enter_async_context(relay(talk)) for talk in (accept_all, *[say_nothing] * 6)]
        mailer = await relays.enter_async_context(mailing(alice, inline=True))
        for origin in silent:
            await mailer.post(origin)
        await pass_time(5.0, lambda: len(mailer.sender.trouble) == 6)
        (sent,) = await mailer.post(honest)
        await pass_time(0.0, mailer.settled[sent].is_set)
    assert most <= 3
