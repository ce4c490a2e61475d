"""The scenarios count what a real relay accepted and delivered; anything else is an error instead of a figure."""

from collections.abc import Awaitable, Callable

import pytest

from benchmarks import relay
from benchmarks.client import BODY, Client, Committing, Mailbox, Tally, at_once, make_sends
from benchmarks.wire import BenchError
from sottovoce_wire import frames
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import Deliver, Delivery, KeyClass, SendResult, SendResults
from sottovoce_wire.ids import QueueId, SendKey
from tests.benchmarks.loops import run

QUEUE = QueueId(bytes(16))


def with_relay(work: Callable[[relay.Relay], Awaitable[None]]) -> None:
    async def served() -> None:
        async with relay.running_relay() as running:
            await work(running)

    run(served())


def test_what_is_drained_is_counted_against_what_was_accepted() -> None:
    async def work(running: relay.Relay) -> None:
        boxes = [Mailbox() for _ in range(3)]
        await running.create(boxes)
        await relay._ingest(running, boxes, 80, 1, 10)
        with pytest.raises(BenchError, match="81 envelopes were accepted and 80 came out"):
            await relay._drain(running, boxes, 81)

    with_relay(work)


def test_an_envelope_that_is_refused_ends_the_measurement() -> None:
    async def work(running: relay.Relay) -> None:
        box = Mailbox()
        await running.create([box])
        stranger = Mailbox(owner=box.owner, send_key=SendKey(bytes(32)))
        sender = await running.connect()
        with pytest.raises(BenchError, match="an envelope was refused"):
            await sender.send_all(make_sends([stranger], 3, 1), 1)

    with_relay(work)


def test_an_owner_that_commits_acknowledges_and_catches_up() -> None:
    async def work(running: relay.Relay) -> None:
        box = Mailbox()
        owner = await running.owner(box, Committing(0.0))
        owner.tally = tally = Tally(64)
        sender = await running.connect()
        await sender.send_all(make_sends([box], 64, 32), 1)
        await owner.link.wait(tally.reached)
        await owner.caught_up()
        assert owner.received == {box.queue: 64}

    with_relay(work)


def delivered(*numbers: int) -> bytes:
    return frames.message(Deliver(QUEUE, [Delivery(number, KeyClass.CONTACT, b"x") for number in numbers]))


def test_deliveries_that_do_not_count_up_are_an_error() -> None:
    async def work() -> None:
        client = Client("http://127.0.0.1:1", None)
        client.received[QUEUE] = 0
        client._hear(delivered(1, 2))
        with pytest.raises(BenchError, match="1, 2, 3"):
            client._hear(delivered(2))

    run(work())


def test_more_deliveries_than_were_sent_are_an_error() -> None:
    async def work() -> None:
        tally = Tally(2)
        tally.add(2)
        assert tally.reached.done()
        with pytest.raises(BenchError, match="1 envelopes more"):
            tally.add(1)

    run(work())


def test_one_refusal_among_many_is_seen() -> None:
    async def work() -> None:
        client = Client("http://127.0.0.1:1", at_once)
        client.begin(2)
        results = [SendResult(Code.ACCEPTED, 0), SendResult(Code.QUEUE_FULL, 0)]
        with pytest.raises(BenchError, match="QUEUE_FULL"):
            client._hear(frames.message(SendResults(0, results)))

    run(work())


def test_every_envelope_has_a_kibibyte_and_an_id_of_its_own() -> None:
    boxes = [Mailbox(), Mailbox()]
    items = [box.item() for box in boxes * 5]
    assert {len(item.body) for item in items} == {BODY} == {1024}
    assert len({item.envelope_id for item in items}) == len({item.body for item in items}) == 10


@pytest.mark.parametrize(("count", "batch", "messages"), [(10, 1, 10), (64, 32, 2), (65, 32, 3)])
def test_batches_hold_all_that_is_to_be_sent(count: int, batch: int, messages: int) -> None:
    assert len(make_sends([Mailbox()], count, batch)) == messages
