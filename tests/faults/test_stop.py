"""SIGTERM under load: everybody is told to move on, the process ends in time, and nothing that was answered is lost."""

import random
import signal
from pathlib import Path

import trio

from sottovoce_relay.settings import RelaySettings
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import KeyClass
from tests.faults import scale
from tests.faults.history import History, Kind, complaints
from tests.faults.load import Owner, Pace, Sender, keep_busy
from tests.faults.stored import envelopes_in, faults_in
from tests.relay_clients import PATIENCE, Mailbox, run_relay_process


def all_are_there(history: History, senders: int, owners: int) -> bool:
    """Whether so many senders have been answered, and so many owners have received something."""
    answered, received = history.all_of(Kind.ACCEPTED), history.all_of(Kind.DELIVERED)
    return len({each.sender for each in answered}) == senders and len({each.queue for each in received}) == owners


async def test_sigterm_under_load_tells_everybody_loses_nothing_and_exits_in_time(tmp_path: Path) -> None:
    rng = random.Random(scale.SEED)  # noqa: S311 - nobody guesses here
    history = History()
    boxes = [Mailbox() for _ in range(3)]
    owners = [Owner(boxes[0], history, rng), Owner(boxes[1], history, rng, Pace.SLOWLY)]
    senders = [Sender(number, boxes, KeyClass.CONTACT, history, rng) for number in range(3)]
    async with run_relay_process(tmp_path) as relay:
        async with relay.connect() as client:
            for box in boxes:
                await client.create(box)
        async with keep_busy(relay, [*senders, *owners]):
            await history.until(Kind.DELIVERED, 300)
            while not all_are_there(history, len(senders), len(owners)):
                await history.until(Kind.DELIVERED, history.counts[Kind.DELIVERED] + 1)
            relay.process.send_signal(signal.SIGTERM)
            with trio.fail_after(RelaySettings().drain_seconds + PATIENCE):  # of a machine that has much else to do
                assert await relay.process.wait() == 0, relay.log
    assert {*(sender.goodbye for sender in senders), *(owner.goodbye for owner in owners)} == {Code.SHUTTING_DOWN}
    assert faults_in(tmp_path) == []
    async with run_relay_process(tmp_path) as relay:
        for sender in senders:
            async with relay.connect() as client:
                await sender.finish(client)
        for box in boxes:
            async with relay.connect() as client:
                await Owner(box, history, rng).drain(client)
        assert (await relay.end(signal.SIGTERM))[0] == 0
    assert complaints(history.events) == []
    assert envelopes_in(tmp_path) == 0
