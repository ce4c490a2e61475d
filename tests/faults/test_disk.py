"""A disk that is full, fails, or cannot be written: clear answers, nothing lost, and all goes on when it is back."""

import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from sottovoce_hosting.testing import PATIENCE as LONG
from sottovoce_hosting.testing import read_until_closed, server_command
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import Ack, Acked, CaughtUp, Deliver, KeyClass, Ping, Pong, Send, SendResult, SendResults
from tests.faults import scale
from tests.faults.disks import disk_of, read_only, refusing_writes, small_disk
from tests.faults.history import History, Kind, complaints
from tests.faults.load import Owner, Sender, keep_busy
from tests.faults.stored import envelopes_in, faults_in
from tests.relay_clients import Client, Mailbox, RelayProcess, relay_command, run_relay_process

DISK_MEBIBYTES = 64


async def is_ready(relay: RelayProcess) -> bool:
    stream = await relay.stream()
    await stream.send_all(b"GET /readyz HTTP/1.0\r\n\r\n")
    return (await read_until_closed(stream)).startswith(b"HTTP/1.1 200")


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it holds."""
    with trio.fail_after(LONG):
        while not await condition():
            pass


async def until_ready(relay: RelayProcess, expected: bool) -> None:
    async def is_so() -> bool:
        return await is_ready(relay) is expected

    await until(is_so)


async def answer_to(client: Client, box: Mailbox, body: bytes) -> SendResult:
    await client.say(Send(9, [box.item(body)]))
    return (await client.hear_until(SendResults)).results[0]


async def send_until(client: Client, box: Mailbox, body: bytes, code: Code) -> SendResult:
    """Send until the answer is this; what is answered meanwhile may be TRY_AGAIN."""
    with trio.fail_after(LONG):
        while (answer := await answer_to(client, box, body)).code is not code:
            pass
    return answer


async def take_all(client: Client, box: Mailbox) -> list[bytes]:
    """Everything that waits, acknowledged, and every acknowledgement answered."""
    await client.open(box)
    await client.receive(box)
    bodies: list[bytes] = []
    acked = 0
    while True:
        match await client.hear():
            case Deliver(_, items):
                bodies += [item.body for item in items]
                await client.ack(box, items[-1].number)
            case Acked(_, upto, _):
                acked = upto
            case CaughtUp():
                assert acked == len(bodies)
                return bodies


async def test_a_full_disk_refuses_senders_and_lets_owners_empty_their_queues(tmp_path: Path) -> None:
    box, other = Mailbox(), Mailbox()
    bodies = [b"%d" % number + bytes(4000) for number in range(200)]
    disk_wrapper = small_disk(tmp_path, DISK_MEBIBYTES)
    async with (
        run_relay_process(tmp_path, wrapper=disk_wrapper) as relay,
        relay.connect() as owner,
        relay.connect() as sender,
    ):
        await owner.create(box)
        await owner.create(other)
        for start in range(0, len(bodies), 50):
            assert set(await sender.send([box.item(body) for body in bodies[start : start + 50]])) == {Code.ACCEPTED}
        with disk_of(relay, tmp_path) as disk:
            disk.fill()
            answer = await send_until(sender, other, bytes(60_000), Code.TRY_AGAIN)
            assert answer.retry_after_ms > 0
            await until_ready(relay, False)
            async with relay.connect() as reader:
                assert await take_all(reader, box) == bodies
            disk.free()
            await send_until(sender, other, b"there is room again", Code.ACCEPTED)
            await until_ready(relay, True)
            async with relay.connect() as reader:
                assert (await take_all(reader, other))[-1] == b"there is room again"
            assert (await relay.end(signal.SIGTERM))[0] == 0
            assert faults_in(disk.folder) == []


async def test_a_kill_on_a_full_disk_leaves_all_that_was_accepted(tmp_path: Path) -> None:
    box = Mailbox()
    disk_wrapper = small_disk(tmp_path, DISK_MEBIBYTES)
    async with run_relay_process(tmp_path, wrapper=disk_wrapper) as relay, relay.connect() as client:
        await client.create(box)
        with disk_of(relay, tmp_path) as disk:
            disk.fill()
            accepted = 0
            while (await answer_to(client, box, bytes(60_000))).code is Code.ACCEPTED:
                accepted += 1
            await relay.end(signal.SIGKILL)
            disk.free()
            assert faults_in(disk.folder) == []
            assert envelopes_in(disk.folder) == accepted


async def test_a_disk_that_fails_and_comes_back_loses_nothing_and_needs_no_restart(tmp_path: Path) -> None:
    rng = random.Random(scale.SEED)  # noqa: S311 - nobody guesses here
    history = History()
    boxes = [Mailbox(), Mailbox()]
    owners = [Owner(box, history, rng) for box in boxes]
    sender = Sender(0, boxes, KeyClass.CONTACT, history, rng, window=1)
    async with run_relay_process(tmp_path) as relay:
        async with relay.connect() as client:
            for box in boxes:
                await client.create(box)
        async with keep_busy(relay, [sender, owners[0]]):
            await history.until(Kind.ACKED, 10)
            for _ in range(3):
                with refusing_writes(relay):
                    with trio.fail_after(LONG):
                        await history.until(Kind.REFUSED, history.counts[Kind.REFUSED] + 1)
                    await until_ready(relay, False)
                with trio.fail_after(LONG):
                    for kind in (Kind.ACCEPTED, Kind.DELIVERED, Kind.ACKED):
                        await history.until(kind, history.counts[kind] + 50)
                await until_ready(relay, True)
            assert (await relay.end(signal.SIGTERM))[0] == 0
    async with run_relay_process(tmp_path) as relay:
        async with relay.connect() as client:
            await sender.finish(client)
        for owner in owners:
            async with relay.connect() as client:
                await owner.drain(client)
        assert (await relay.end(signal.SIGTERM))[0] == 0
    assert complaints(history.events) == []
    assert faults_in(tmp_path) == []
    assert envelopes_in(tmp_path) == 0


async def test_no_acknowledgement_is_answered_before_the_deletions_that_it_speaks_of_are_written(
    tmp_path: Path,
) -> None:
    box = Mailbox()
    async with run_relay_process(tmp_path) as relay, relay.connect() as owner, relay.connect() as sender:
        await owner.create(box)
        await owner.receive(box)
        await owner.expect(CaughtUp)
        assert await sender.send([box.item(b"on the disk", KeyClass.STRANGER)]) == [Code.ACCEPTED]
        await owner.expect(Deliver)
        with refusing_writes(relay):
            await owner.say(Ack(box.queue, 1, []), Ack(box.queue, 1, []), Ping(1))
            await owner.expect(Pong)
            await sender.say(Send(2, [box.item(b"pushed before it is on the disk")]))
            await owner.expect(Deliver)
            await owner.say(Ack(box.queue, 2, []), Ping(2))
            await owner.expect(Pong)
        assert [(await owner.hear_until(Acked)).upto for _ in range(3)] == [1, 1, 2]


async def test_a_kill_while_the_disk_fails_leaves_all_that_was_accepted(tmp_path: Path) -> None:
    box = Mailbox()
    async with run_relay_process(tmp_path) as relay, relay.connect() as client:
        await client.create(box)
        assert await client.send([box.item(b"accepted")]) == [Code.ACCEPTED]
        with refusing_writes(relay):
            await send_until(client, box, b"refused", Code.TRY_AGAIN)
            await relay.end(signal.SIGKILL)
    assert faults_in(tmp_path) == []
    async with run_relay_process(tmp_path) as relay, relay.connect() as client:
        assert await take_all(client, box) == [b"accepted"]


async def test_a_disk_that_cannot_be_written_ends_the_start_in_one_clear_line(tmp_path: Path) -> None:
    async with run_relay_process(tmp_path) as relay:
        assert (await relay.end(signal.SIGTERM))[0] == 0
    process = server_command([*read_only(tmp_path), *relay_command(tmp_path)])
    said, logged = process.communicate(timeout=2 * LONG)
    assert (process.returncode, said) == (1, "")
    (line,) = logged.splitlines()
    assert line.startswith("sottovoce-relay: ")
    assert "ead-only" in line or "written" in line
    async with run_relay_process(tmp_path) as relay:
        assert await is_ready(relay), "and it starts once the disk can be written"
