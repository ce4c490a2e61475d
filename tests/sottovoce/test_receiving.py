"""The owner's connection to a relay that says what the test wants: invite codes, gaps, faults in mid-message."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
import trio
import trio_websocket

from sottovoce import errors
from sottovoce.local import Local
from sottovoce.network import Internet
from sottovoce.receiving import Receiver
from sottovoce_wire import frames, limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import ClientFrame, GapReason, RelayFrame
from sottovoce_wire.ids import QueueId, queue_id_of
from tests.sottovoce.people import Person

PATIENCE = 60.0
CODE = "let me in"
WELCOME = frames.Welcome(1, bytes(32), limits.MAX_ENVELOPE, limits.MAX_MESSAGE, limits.MAX_SEND_ITEMS)

pytestmark = pytest.mark.usefixtures("impatient")


@dataclass
class Talk:
    """One client's connection, on the relay's side."""

    socket: trio_websocket.WebSocketConnection
    queues: list[QueueId] = field(default_factory=list)

    async def hear(self) -> list[ClientFrame]:
        """The frames of the next message."""
        data = await self.socket.get_message()
        assert isinstance(data, bytes)
        return frames.decode_client_message(data)

    async def say(self, *said: RelayFrame) -> None:
        """All of it in one message."""
        await self.socket.send_message(frames.message(*said))

    async def greet(self, code: str = "") -> None:
        """Welcome the client, and make its queues if it says this code."""
        assert await self.hear() == [frames.Hello([1])]
        await self.say(WELCOME)
        asked = await self.hear()
        created = [frame for frame in asked if isinstance(frame, frames.CreateQueue)]
        self.queues = [queue_id_of(frame.owner_key) for frame in created]
        if {frame.code for frame in created} != {code}:
            await self.say(frames.Failed(0, Code.REGISTRATION_CLOSED, "\x1b]0;not the relay's words\x07"))
            return
        await self.say(*(frames.Done(request) for request in range(len(asked))))


@asynccontextmanager
async def relay(*talks: Callable[[Talk], Awaitable[None]]) -> AsyncIterator[str]:
    """A relay's address: the first connection meets the first of `talks`, and so on; the last also all further ones."""
    remaining = list(talks)

    async def serve(request: trio_websocket.WebSocketRequest) -> None:
        talk = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        socket = await request.accept()
        with suppress(trio_websocket.ConnectionClosed):
            await talk(Talk(socket))
            await socket.get_message()  # until the client goes

    async with trio.open_nursery() as nursery:
        server: trio_websocket.WebSocketServer = await nursery.start(
            trio_websocket.serve_websocket, serve, "127.0.0.1", 0, None
        )
        yield f"http://127.0.0.1:{server.port}"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def receiving(person: Person, origin: str, invite_code: str = "") -> AsyncIterator[Receiver]:
    """The person's receiver, at work."""
    receiver = Receiver(
        Local(person.store), person.own, person.opener, lambda: None, network=Internet(), invite_code=invite_code
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
    ("invite_code", "reason"),
    [("", "takes nobody new without an invite code"), ("a guess", "takes nobody new under this invite code")],
)
async def test_a_relay_that_takes_nobody_new_is_told_apart_and_says_what_to_do(
    alice: Person, invite_code: str, reason: str
) -> None:
    trouble, origin = await trouble_after(lambda talk: talk.greet(CODE), alice, invite_code)
    assert isinstance(trouble, errors.RegistrationClosed)
    assert str(trouble) == f"the relay at {origin} {reason}"
    assert "--invite-code" in trouble.diagnostics()


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
        assert receiver.expired == 8


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
