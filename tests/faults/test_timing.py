"""How long an answer takes tells a stranger nothing: not who is online, not which queues there are."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from sottovoce_wire.errors import Code
from sottovoce_wire.frames import KeyClass, Send, SendItem, SendResults, Ttl
from sottovoce_wire.ids import EnvelopeId, QueueId, SendKey
from tests.faults import scale
from tests.faults.timing import differ, rank_score
from tests.relay_clients import Client, Mailbox, RelayProcess, run_relay_process

#: Of each kind at a time, and at most: as many as it takes until a difference of 2 ms would be seen.
SAMPLES, MOST_SAMPLES = 60, 600
DELIBERATE = 0.002
Kinds = Sequence[Callable[[], SendItem]]


@asynccontextmanager
async def online(relay: RelayProcess, box: Mailbox) -> AsyncIterator[None]:
    """An owner who takes what comes, in a process of its own."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.faults.bystander", relay.url, bytes(box.owner).hex()],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    async with process.stdout:
        try:
            assert (await process.stdout.receive_some()).startswith(b"ready")
            yield
        finally:
            process.kill()
            await process.wait()


async def time_to_answer(client: Client, item: SendItem) -> tuple[float, Code]:
    await trio.lowlevel.checkpoint()
    began = time.perf_counter()
    await client.say(Send(1, [item]))
    answer = await client.expect(SendResults)
    return time.perf_counter() - began, answer.results[0].code


async def samples(client: Client, kinds: Kinds, code: Code) -> list[list[float]]:
    """Times of each kind, in random turns, until a deliberate difference between them would be seen."""
    rng = random.Random(scale.SEED)  # noqa: S311 - nobody guesses here
    taken: list[list[float]] = [[] for _ in kinds]
    while len(taken[0]) < MOST_SAMPLES:
        turns = [which for which in range(len(kinds)) for _ in range(SAMPLES)]
        rng.shuffle(turns)
        for which in turns:
            seconds, answered = await time_to_answer(client, kinds[which]())
            assert answered is code
            taken[which].append(seconds)
        if differ(taken[0], [seconds + DELIBERATE for seconds in taken[0]]):
            return taken
    pytest.skip("this machine is too busy to see 2 ms")


def stranger(box: Mailbox) -> SendItem:
    return box.item(bytes(1000), KeyClass.STRANGER)


async def test_a_stranger_does_not_learn_from_the_time_whether_an_owner_is_online(tmp_path: Path) -> None:
    present, absent = Mailbox(), Mailbox()
    async with run_relay_process(tmp_path) as relay, relay.connect() as client:
        await client.create(present)
        await client.create(absent)
        async with online(relay, present):
            here, away = await samples(client, [lambda: stranger(present), lambda: stranger(absent)], Code.ACCEPTED)
        assert (await relay.end(signal.SIGTERM))[0] == 0
    assert not differ(here, away)


async def test_nobody_learns_from_the_time_whether_there_is_a_queue(tmp_path: Path) -> None:
    box = Mailbox()

    def to(queue: bytes) -> SendItem:
        key, envelope_id = SendKey(os.urandom(32)), EnvelopeId(os.urandom(16))
        return SendItem(QueueId(queue), key, envelope_id, Ttl.DAY, bytes(1000))

    async with run_relay_process(tmp_path) as relay, relay.connect() as client:
        await client.create(box)
        async with online(relay, box):
            wrong, unknown = await samples(client, [lambda: to(box.queue), lambda: to(os.urandom(16))], Code.REFUSED)
        assert (await relay.end(signal.SIGTERM))[0] == 0
    assert not differ(wrong, unknown)


def test_two_milliseconds_are_found_and_noise_is_not() -> None:
    rng = random.Random(scale.SEED)  # noqa: S311 - nobody guesses here
    quick, same = ([rng.lognormvariate(-6.5, 0.5) for _ in range(SAMPLES)] for _ in range(2))
    slow = [seconds + DELIBERATE for seconds in same]
    assert not differ(quick, same)
    assert differ(quick, slow)
    assert differ(slow, quick)


def test_a_difference_that_only_many_samples_show_does_not_count() -> None:
    first = [number / 1e6 for number in range(1000)]
    second = [seconds + 0.0005 for seconds in first]
    assert rank_score(second, first) > 6
    assert not differ(first, second)
