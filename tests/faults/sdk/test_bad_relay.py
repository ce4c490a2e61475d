"""A relay that loses, repeats, reorders, corrupts, lies or raves, on real sockets: both people get everything, once."""

import os
import random
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import pytest

from sottovoce import sending
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import (
    Ack,
    CaughtUp,
    ClientFrame,
    Deliver,
    Delivery,
    Done,
    Gap,
    GapReason,
    Goodbye,
    KeyClass,
    Pong,
    RelayFrame,
    Send,
    SendItem,
    SendResult,
    SendResults,
    Welcome,
)
from sottovoce_wire.ids import EnvelopeId, QueueId, SendKey
from tests.faults import scale
from tests.faults.sdk.between import Cut, Mischief, bad_server
from tests.faults.sdk.journal import lost_or_twice
from tests.faults.sdk.world import peer
from tests.servers import ServerProcess

#: Messages in one direction while nobody is there to read them, and while both are.
ABSENT, PRESENT = (200, 200) if scale.FULL else (30, 8)


class Counting(Mischief):
    """Mischief that is done now and then."""

    in_order = True

    def __init__(self) -> None:
        self.done = 0
        self.rng = random.Random(scale.SEED)  # noqa: S311 - nobody guesses here

    def turn(self, every: int) -> bool:
        """Whether it is this one's turn: one's in so many."""
        is_due = self.rng.random() * every < 1
        self.done += is_due
        return is_due


class Losing(Counting):
    """Cuts connections: before a batch is passed on, before its answer is, before an acknowledgement is."""

    def heard(self, frames: list[ClientFrame]) -> Sequence[ClientFrame]:
        if any(isinstance(frame, Send | Ack) for frame in frames) and self.turn(3):
            raise Cut
        return frames

    def said(self, frames: list[RelayFrame]) -> Sequence[RelayFrame]:
        if any(isinstance(frame, SendResults) for frame in frames) and self.turn(4):
            raise Cut
        return frames


def another(item: SendItem, body: bytes) -> SendItem:
    """An envelope of the relay's own for the same queue."""
    return SendItem(item.queue, item.send_key, EnvelopeId(os.urandom(16)), item.ttl, body)


class Repeating(Counting):
    """Puts every envelope into the queue twice."""

    def heard(self, frames: list[ClientFrame]) -> Sequence[ClientFrame]:
        return [self._twice(frame) if isinstance(frame, Send) else frame for frame in frames]

    def _twice(self, frame: Send) -> Send:
        self.done += len(frame.items)
        return Send(frame.request, [*frame.items, *(another(item, item.body) for item in frame.items)])

    def said(self, frames: list[RelayFrame]) -> Sequence[RelayFrame]:
        return [self._half(frame) if isinstance(frame, SendResults) else frame for frame in frames]

    def _half(self, frame: SendResults) -> SendResults:
        return SendResults(frame.request, frame.results[: len(frame.results) // 2])


class Corrupting(Repeating):
    """Puts a copy with a flipped bit before every envelope."""

    in_order = False  # the copies make the two begin a new session

    def _twice(self, frame: Send) -> Send:
        self.done += len(frame.items)
        pairs = [(another(item, self._flipped(item.body)), item) for item in frame.items]
        return Send(frame.request, list(chain.from_iterable(pairs)))

    def _flipped(self, body: bytes) -> bytes:
        changed = bytearray(body)
        changed[self.rng.choice((0, 5, 12, 40, 100, -1))] ^= 1
        return bytes(changed)

    def _half(self, frame: SendResults) -> SendResults:
        return SendResults(frame.request, frame.results[1::2])


class Reordering(Counting):
    """Shuffles what it delivers, as far as it has it in hand."""

    in_order = False

    def said(self, frames: list[RelayFrame]) -> Sequence[RelayFrame]:
        return [self._shuffled(frame) if isinstance(frame, Deliver) else frame for frame in frames]

    def _shuffled(self, frame: Deliver) -> Deliver:
        bodies = [item.body for item in frame.items]
        self.rng.shuffle(bodies)
        self.done += len(bodies) > 1
        items = [Delivery(item.number, item.key_class, body) for item, body in zip(frame.items, bodies, strict=True)]
        return Deliver(frame.queue, items)


class Lying(Counting):
    """Says that what it has taken is to be sent again, under the same id or another; invents gaps, and ends of queues;
    names another class."""

    def said(self, frames: list[RelayFrame]) -> Sequence[RelayFrame]:
        return list(chain.from_iterable(map(self._lie, frames)))

    def _lie(self, frame: RelayFrame) -> list[RelayFrame]:
        if isinstance(frame, SendResults) and self.turn(2):
            code = self.rng.choice((Code.TRY_AGAIN, Code.QUEUE_FULL, Code.ID_CONFLICT))
            return [SendResults(frame.request, [SendResult(code, 1) for _ in frame.results])]
        if isinstance(frame, Deliver) and self.turn(2):
            items = [Delivery(item.number, KeyClass.STRANGER, item.body) for item in frame.items]
            gaps = [Gap(frame.queue, 3, reason) for reason in GapReason]
            return [Pong(7), CaughtUp(frame.queue), *gaps, Deliver(frame.queue, items), CaughtUp(frame.queue)]
        return [frame]


class Refusing(Counting):
    """Takes nothing for now, now and then."""

    def heard(self, frames: list[ClientFrame]) -> Sequence[ClientFrame]:
        return [self._spoilt(frame) if isinstance(frame, Send) and self.turn(2) else frame for frame in frames]

    def _spoilt(self, frame: Send) -> Send:
        items = [
            SendItem(item.queue, SendKey(bytes(32)), item.envelope_id, item.ttl, item.body) for item in frame.items
        ]
        return Send(frame.request, items)

    def said(self, frames: list[RelayFrame]) -> Sequence[RelayFrame]:
        return [self._later(frame) if isinstance(frame, SendResults) else frame for frame in frames]

    def _later(self, frame: SendResults) -> SendResults:
        code = self.rng.choice((Code.TRY_AGAIN, Code.QUEUE_FULL))
        results = [result if result.code is Code.ACCEPTED else SendResult(code, 1) for result in frame.results]
        return SendResults(frame.request, results)


class Raving(Counting):
    """Says what no relay may say."""

    def said(self, frames: list[RelayFrame]) -> Sequence[RelayFrame]:
        if any(isinstance(frame, Deliver | SendResults) for frame in frames) and self.turn(3):
            return [self.rng.choice(self._nonsense(frames))]
        return frames

    def _nonsense(self, frames: list[RelayFrame]) -> list[RelayFrame]:
        stranger = QueueId(bytes(16))
        items = [Delivery(2**40, KeyClass.CONTACT, b"\x01" * 400)]
        queues = [frame.queue for frame in frames if isinstance(frame, Deliver)]
        return [
            Done(99),
            Welcome(1, bytes(32), 1, 1, 1),
            CaughtUp(stranger),
            Deliver(stranger, items),
            *(Deliver(queue, items) for queue in queues),
            SendResults(77, [SendResult(Code.ACCEPTED, 0)]),
            Goodbye(Code.TRY_AGAIN, "words of \x1b[31mmine"),
        ]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", [Losing, Repeating, Corrupting, Reordering, Lying, Refusing, Raving])
async def test_a_bad_relay_makes_nobody_lose_or_see_anything_twice(
    hidden_server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Counting]
) -> None:
    monkeypatch.setattr(sending, "SOONEST_RETRY", 0.01)
    name = kind.__name__.lower()
    alice_says, bob_says = ([f"{who} {number}" for number in range(ABSENT + PRESENT)] for who in ("alice", "bob"))
    mischief = kind()
    async with bad_server(hidden_server.url) as bad, peer(tmp_path / "a.db", bad.url, f"{name}-alice") as alice:
        async with peer(tmp_path / "b.db", bad.url, f"{name}-bob") as bob:
            await alice.send(f"{name}-bob", "hello")
            await bob.until("hello")
            await bob.send(f"{name}-alice", "hello to you")
            await alice.until("hello to you")
        bad.mischief = mischief
        for text in alice_says[:ABSENT]:
            await alice.client.send(f"{name}-bob", text)
        async with peer(tmp_path / "b.db", bad.url, f"{name}-bob") as bob:
            for text in bob_says[:ABSENT]:
                await bob.client.send(f"{name}-alice", text)
            for mine, yours in zip(alice_says[ABSENT:], bob_says[ABSENT:], strict=True):
                await alice.send(f"{name}-bob", mine)
                await bob.send(f"{name}-alice", yours)
            bad.mischief = Mischief()
            await alice.send(f"{name}-bob", "the end")
            await bob.send(f"{name}-alice", "the end")
            await bob.until("the end")
            await alice.until("the end")
            if not mischief.in_order:
                await bob.until(*alice_says)
                await alice.until(*bob_says)
    assert mischief.done > 3
    for said, heard in ((alice_says, bob.arrived), (bob_says, alice.arrived)):
        assert lost_or_twice(said, said, [text for text in heard if text in said], in_order=kind.in_order) == []
