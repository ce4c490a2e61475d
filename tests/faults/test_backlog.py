"""However much waits, draining it takes no more memory than what is under way."""

import os
from pathlib import Path

import trio

from sottovoce_wire import limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import CaughtUp, Deliver, KeyClass, SendMany, SendResults, Target, Ttl
from sottovoce_wire.ids import EnvelopeId
from tests.faults import scale
from tests.faults.memory import MIB, memory_of
from tests.relay_clients import Client, Mailbox, RelayProcess, run_relay_process

#: Queues as full as the protocol allows, in envelopes or in bytes: 600 MiB and 120 MiB of backlog.
QUEUES, DEPTH, BODY = (10, limits.QUEUE_ENVELOPES, 6_000) if scale.FULL else (2, 900, 65_000)
#: What the database's caches may take, however much is drained: 32 MiB of the writer's and 2 of each reader's.
CACHES = 40 * MIB
#: What one drain may take: pages, what is unacknowledged, deletions under way.
ALLOWANCE = 12 * MIB
#: Sends before their answers are heard.
ANSWERS = 20


async def fill(client: Client, boxes: list[Mailbox]) -> None:
    """DEPTH envelopes for each, one body for all of them."""
    for number in range(DEPTH):
        targets = [Target(box.queue, box.keys[KeyClass.CONTACT], EnvelopeId(os.urandom(16))) for box in boxes]
        await client.say(SendMany(number, Ttl.DAY, (b"%d " % number).ljust(BODY, b"\0"), targets))
        if number % ANSWERS == ANSWERS - 1:
            for _ in range(ANSWERS):
                results = (await client.expect(SendResults)).results
                assert {result.code for result in results} == {Code.ACCEPTED}


async def drain(relay: RelayProcess, box: Mailbox) -> int:
    """Take all, in order; returns the most memory that the relay was seen to hold meanwhile."""
    most = taken = 0
    async with relay.connect() as owner:
        await owner.open(box)
        await owner.receive(box)
        while not isinstance(frame := await owner.hear(), CaughtUp):
            if isinstance(frame, Deliver):
                for item in frame.items:
                    assert int(item.body.split()[0]) == taken
                    taken += 1
                most = max(most, memory_of(relay.process.pid))
                await owner.ack(box, frame.items[-1].number)
    assert taken == DEPTH
    return most


async def test_full_queues_are_drained_in_memory_that_does_not_depend_on_their_depth(tmp_path: Path) -> None:
    boxes = [Mailbox() for _ in range(QUEUES)]
    async with run_relay_process(tmp_path) as relay, relay.connect() as client:
        for box in boxes:
            await client.create(box)
        await fill(client, boxes)
    async with run_relay_process(tmp_path) as relay:
        before = memory_of(relay.process.pid)
        most: list[int] = []

        async def take(box: Mailbox) -> None:
            most.append(await drain(relay, box))

        async with trio.open_nursery() as nursery:
            for box in boxes:
                nursery.start_soon(take, box)
        assert max(most) - before < CACHES + QUEUES * ALLOWANCE
