"""The relay's scenarios: what is done to a fresh relay, and the figures that come of it.

Each starts a relay of its own on loopback, with fsync and every check on, and sends bodies of 1 KiB. How connections
work stands in client.py, what the figures should be in report.py.
"""

import asyncio
import random
import re
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Final, TypeAlias, TypeVar

from sottovoce_wire.frames import KeyClass

from . import floors
from .client import (
    Acknowledge,
    Client,
    Committing,
    Mailbox,
    Tally,
    at_once,
    make_fan_out,
    make_sends,
)
from .outcome import Outcome
from .servers import Server, Spent, free_port, python_server
from .wire import BenchError

_T = TypeVar("_T")

#: Envelopes in a batched Send, and unanswered Sends of one sender: 100 single ones, or 16 batches.
BATCH: Final = 32
WINDOW: Final = 100
BATCHED_WINDOW: Final = 16
#: What a client's commit takes before it acknowledges.
COMMIT_SECONDS: Final = 0.004
SENDERS: Final = 8
OFFLINE_QUEUES: Final = 20
PAIRS: Final = 4
FAN_OUT: Final = 256
#: Queues that one connection proves while many are created: the protocol's bound.
_QUEUES_AT_ONCE: Final = 16
_CONNECTING: Final = 32

#: The settings that are not the defaults: one host stands for everybody here, so the bounds of one are out of the way.
_UNLIMITED: Final = {
    f"SOTTOVOCE_SERVER_{name}": "1000000000"
    for name in ("CONNECTION_RATE", "ADDRESS_RATE", "CONTACT_RATE", "QUEUES_PER_HOUR")
}
_SERVE: Final = "from sottovoce_relay.cli import main; main()"
_COUNTER: Final = re.compile(r'^sottovoce_relay_envelopes_total\{outcome="(\w+)"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class Sizes:
    """How much of everything, for one repeat."""

    single: int = 30_000
    batched: int = 60_000
    online_single: int = 20_000
    online_batched: int = 60_000
    latency: int = 3_000
    fan_outs: int = 20
    idle: int = 5_000
    idle_warm: int = 100
    flat_queues: Sequence[int] = (10, 100, 1_000, 10_000)
    flat: int = 20_000
    #: Envelopes at each rate (a second).
    disk: Mapping[int, int] = field(default_factory=lambda: {50: 1_000, 1_000: 10_000})
    echoes: int = 30_000
    echo_turns: int = 2_000
    echo_idle: int = 500
    commits: int = 50
    peer: int = 4_000
    peer_turns: int = 1_000


FULL: Final = Sizes()
QUICK: Final = Sizes(
    single=8_000,
    batched=16_000,
    online_single=4_000,
    online_batched=16_000,
    latency=300,
    fan_outs=5,
    idle=500,
    flat=5_000,
    flat_queues=(10, 100, 1_000),
    disk={50: 200, 1_000: 2_000},
    echoes=8_000,
    echo_turns=300,
    echo_idle=200,
    commits=15,
    peer=800,
    peer_turns=200,
)


Scenario: TypeAlias = Callable[[Sizes], Awaitable[Outcome]]


class Relay:
    """A running relay and every connection to it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._clients: list[Client] = []

    async def connect(self, acknowledge: Acknowledge | None = None) -> Client:
        """A welcomed connection, dropped with the relay."""
        client = await Client.connect(self.server.url, acknowledge)
        self._clients.append(client)
        return client

    async def owner(self, box: Mailbox, acknowledge: Acknowledge) -> Client:
        """A connection that receives this queue."""
        client = await self.connect(acknowledge)
        await client.create(box)
        await client.receive(box)
        return client

    async def create(self, boxes: Sequence[Mailbox]) -> None:
        """Create queues whose owners are away."""
        groups = [boxes[at : at + _QUEUES_AT_ONCE] for at in range(0, len(boxes), _QUEUES_AT_ONCE)]
        await _each(groups, self._create_and_leave)

    async def _create_and_leave(self, boxes: Sequence[Mailbox]) -> None:
        client = await Client.connect(self.server.url)
        try:
            await client.create(*boxes)
        finally:
            client.link.close()

    def drop_all(self) -> None:
        """Drop every connection."""
        for client in self._clients:
            client.link.close()


@asynccontextmanager
async def running_relay(**environment: str) -> AsyncIterator[Relay]:
    """A relay with an empty folder, as a process of its own; ended and removed with the block."""
    with tempfile.TemporaryDirectory(prefix="sottovoce-bench-") as name:
        folder = Path(name)
        arguments = ("serve", "--port", "0", "--data", str(folder / "data"))
        async with python_server(_SERVE, *arguments, folder=folder, **_UNLIMITED, **environment) as server:
            relay = Relay(server)
            try:
                yield relay
            finally:
                relay.drop_all()


async def _each(items: Sequence[_T], work: Callable[[_T], Awaitable[object]]) -> None:
    """Work on a few at a time."""
    waiting = list(reversed(items))

    async def one_after_another() -> None:
        while waiting:
            await work(waiting.pop())

    async with asyncio.TaskGroup() as group:
        for _ in range(_CONNECTING):
            group.create_task(one_after_another())


async def _send_all(senders: Sequence[Client], messages: Sequence[Sequence[bytes]], window: int) -> None:
    async with asyncio.TaskGroup() as group:
        for sender, own in zip(senders, messages, strict=True):
            group.create_task(sender.send_all(own, window))


# --- Ingest and drain -----------------------------------------------------------------------------------------


async def _ingest(relay: Relay, boxes: Sequence[Mailbox], count: int, batch: int, window: int) -> Spent:
    senders = [await relay.connect() for _ in range(SENDERS)]
    messages = [make_sends([*boxes[at:], *boxes[:at]], count // SENDERS, batch) for at in range(SENDERS)]
    with relay.server.measured() as spent:
        await _send_all(senders, messages, window)
    return spent


async def _drain(relay: Relay, boxes: Sequence[Mailbox], count: int) -> Spent:
    owners = [await relay.connect(at_once) for _ in boxes]
    for owner, box in zip(owners, boxes, strict=True):
        await owner.create(box)
    with relay.server.measured() as spent:
        async with asyncio.TaskGroup() as group:
            for owner, box in zip(owners, boxes, strict=True):
                group.create_task(_drain_one(owner, box))
    received = sum(sum(owner.received.values()) for owner in owners)
    if received != count:
        raise BenchError(f"{count} envelopes were accepted and {received} came out")
    return spent


async def _drain_one(owner: Client, box: Mailbox) -> None:
    await owner.receive(box)
    await owner.caught_up()


async def ingest(sizes: Sizes) -> Outcome:
    """Eight senders to twenty queues whose owners are away; then the owners come for what waits."""
    single, batched = sizes.single // SENDERS * SENDERS, sizes.batched // SENDERS * SENDERS
    boxes = [Mailbox() for _ in range(OFFLINE_QUEUES)]
    async with running_relay() as relay:
        await relay.create(boxes)
        spent = {
            "ingest, single": await _ingest(relay, boxes, single, 1, WINDOW),
            "ingest, batched": await _ingest(relay, boxes, batched, BATCH, BATCHED_WINDOW),
            "drain": await _drain(relay, boxes, single + batched),
        }
    rates = zip(("ingest_single_s", "ingest_batched_s", "drain_s"), (single, batched, single + batched), strict=True)
    return Outcome({key: count / each.elapsed for (key, count), each in zip(rates, spent.values(), strict=True)}, spent)


async def flatness(sizes: Sizes) -> Outcome:
    """The same ingest to ten queues, to a hundred, …; the report divides the slowest by the fastest."""
    figures: dict[str, float] = {}
    spent: dict[str, Spent] = {}
    for queues in sizes.flat_queues:
        boxes = [Mailbox() for _ in range(queues)]
        async with running_relay() as relay:
            await relay.create(boxes)
            took = spent[f"ingest to {queues:,} queues"] = await _ingest(relay, boxes, sizes.flat, 1, WINDOW)
        figures[f"ingest_{queues}_queues_s"] = sizes.flat / took.elapsed
    return Outcome(figures, spent)


# --- Online ---------------------------------------------------------------------------------------------------


async def _online(relay: Relay, count: int, batch: int, window: int) -> Spent:
    boxes = [Mailbox() for _ in range(PAIRS)]
    owners = [await relay.owner(box, at_once) for box in boxes]
    senders = [await relay.connect() for _ in boxes]
    messages = [make_sends([box], count // PAIRS, batch) for box in boxes]
    tally = Tally(count // PAIRS * PAIRS)
    for owner in owners:
        owner.tally = tally
    with relay.server.measured() as spent:
        await _send_all(senders, messages, window)
        await owners[0].link.wait(tally.reached)
    return spent


async def online(sizes: Sizes) -> Outcome:
    """Four pairs of a sender and a connected owner that acknowledges at once."""
    async with running_relay() as relay:
        spent = {
            "online, single": await _online(relay, sizes.online_single, 1, WINDOW),
            "online, batched": await _online(relay, sizes.online_batched, BATCH, BATCHED_WINDOW),
        }
    figures = {
        "online_single_s": sizes.online_single / spent["online, single"].elapsed,
        "online_batched_s": sizes.online_batched / spent["online, batched"].elapsed,
    }
    return Outcome(figures, spent)


async def _latencies(relay: Relay, acknowledge: Acknowledge, count: int) -> list[float]:
    box = Mailbox()
    owner = await relay.owner(box, acknowledge)
    sender = await relay.connect()
    taken = []
    for message in make_sends([box], count, 1):
        owner.tally = tally = Tally(1)
        began = time.perf_counter()
        await sender.send_all([message], 1)
        taken.append(await owner.link.wait(tally.reached) - began)
    return taken


async def latency(sizes: Sizes) -> Outcome:
    """One sender and one owner in turn, from the sender's write to the owner's read.

    Measured with an owner that takes its time to commit before it acknowledges, and with one that takes none.
    """
    figures: dict[str, float] = {}
    spent: dict[str, Spent] = {}
    owners: dict[str, Acknowledge] = {"latency": Committing(COMMIT_SECONDS), "latency_no_commit": at_once}
    async with running_relay() as relay:
        for name, acknowledge in owners.items():
            with relay.server.measured() as spent[name.replace("_", " ")]:
                taken = await _latencies(relay, acknowledge, sizes.latency)
            figures[f"{name}_p50_ms"] = median(taken) * 1000
            figures[f"{name}_p99_ms"] = quantiles(taken, n=100)[98] * 1000
    return Outcome(figures, spent)


async def fan_out(sizes: Sizes) -> Outcome:
    """One upload for 256 connected queues, until the last owner has it."""
    boxes = [Mailbox(KeyClass.GROUP) for _ in range(FAN_OUT)]
    taken = []
    async with running_relay() as relay:
        owners = [await relay.owner(box, at_once) for box in boxes]
        sender = await relay.connect()
        with relay.server.measured() as spent:
            for _ in range(sizes.fan_outs):
                tally = Tally(FAN_OUT)
                for owner in owners:
                    owner.tally = tally
                message = make_fan_out(0, boxes)
                began = time.perf_counter()
                await sender.send_all([message], 1)
                taken.append(await sender.link.wait(tally.reached) - began)
    return Outcome({"fanout256_ms": median(taken) * 1000}, {"fan-out": spent})


# --- Memory, and what never reaches the disk --------------------------------------------------------------------


async def idle(sizes: Sizes) -> Outcome:
    """What an owner's connection costs that receives its queue and is silent, after some have been there already."""
    async with running_relay() as relay:
        connect = partial(relay.owner, acknowledge=at_once)
        await _each([Mailbox() for _ in range(sizes.idle_warm)], connect)
        before = relay.server.resident_bytes
        boxes = [Mailbox() for _ in range(sizes.idle)]
        with relay.server.measured() as spent:
            await _each(boxes, connect)
        grown = relay.server.resident_bytes - before
    return Outcome({"idle_kib": grown / sizes.idle / 1024}, {f"{sizes.idle:,} connections": spent})


async def disk(sizes: Sizes) -> Outcome:
    """Four pairs at a steady rate, whose owners commit before they acknowledge: the share that was never written.

    The relay's own counters say so; what it gave to the disk altogether bounds what it can have stored.
    """
    figures: dict[str, float] = {}
    spent: dict[str, Spent] = {}
    port = free_port()
    async with running_relay(SOTTOVOCE_SERVER_METRICS_PORT=str(port)) as relay:
        for rate, count in sizes.disk.items():
            took, share, written = await _steady(relay, rate, count, f"http://127.0.0.1:{port}/metrics")
            spent[f"online, {rate:,} a second"] = took
            figures[f"never_on_disk_{rate}"] = share
            figures[f"written_kib_each_{rate}"] = written / 1024
    return Outcome(figures, spent)


async def _steady(relay: Relay, rate: int, count: int, metrics: str) -> tuple[Spent, float, float]:
    boxes = [Mailbox() for _ in range(PAIRS)]
    owners = [await relay.owner(box, Committing(COMMIT_SECONDS)) for box in boxes]
    senders = [await relay.connect() for _ in boxes]
    tally = Tally(count)
    for owner in owners:
        owner.tally = tally
    before, bytes_before = await _outcomes(metrics), relay.server.written_bytes
    with relay.server.measured() as spent:
        await _send_steadily(senders, boxes, count, rate)
        await owners[0].link.wait(tally.reached)
    written = relay.server.written_bytes - bytes_before
    after = await _outcomes(metrics)
    passed, stored = (after.get(name, 0) - before.get(name, 0) for name in ("cut_through", "stored"))
    if passed + stored != count:
        raise BenchError(f"{count} envelopes were sent; the relay counts {passed:.0f} + {stored:.0f}")
    return spent, passed / count, written / count


async def _send_steadily(senders: Sequence[Client], boxes: Sequence[Mailbox], count: int, rate: int) -> None:
    """Send at random moments, as independent people do; the same ones each time."""
    moments = random.Random(1)  # noqa: S311 - no secret
    turns = [make_sends([box], len(range(at, count, PAIRS)), 1) for at, box in enumerate(boxes)]
    for sender, messages in zip(senders, turns, strict=True):
        sender.begin(len(messages))
    due = time.perf_counter()
    for number in range(count):
        due += moments.expovariate(rate)
        await asyncio.sleep(due - time.perf_counter())
        link = senders[number % PAIRS].link
        link.say(turns[number % PAIRS][number // PAIRS])
        link.flush()
    for sender in senders:
        await sender.answered()


async def _outcomes(metrics: str) -> dict[str, float]:
    """How many envelopes ended how, as the relay counts them."""

    def read() -> str:
        with urllib.request.urlopen(metrics) as answer:  # noqa: S310 - our own address
            return str(answer.read().decode())

    try:
        return {name: float(value) for name, value in _COUNTER.findall(await asyncio.to_thread(read))}
    except OSError as error:
        raise BenchError(f"the relay shows no metrics: {error}") from None


async def bare(sizes: Sizes) -> Outcome:
    """The floors: what the disk and the stack do without a relay."""
    return await floors.measure(sizes.echoes, sizes.echo_turns, sizes.echo_idle, sizes.commits)


SCENARIOS: Final[dict[str, Scenario]] = {
    "ingest": ingest,
    "online": online,
    "latency": latency,
    "fan-out": fan_out,
    "idle": idle,
    "flatness": flatness,
    "disk": disk,
    "floors": bare,
}

#: Which scenario gives a figure of the report.
FIGURES: Final = {
    "ingest_single_s": "ingest",
    "ingest_batched_s": "ingest",
    "drain_s": "ingest",
    "online_single_s": "online",
    "online_batched_s": "online",
    "latency_p50_ms": "latency",
    "latency_p99_ms": "latency",
    "fanout256_ms": "fan-out",
    "idle_kib": "idle",
    "flatness": "flatness",
    "never_on_disk_50": "disk",
    "never_on_disk_1000": "disk",
}
