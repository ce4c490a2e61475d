"""The sender's connections: the outbox, in order, to each relay, until it has answered *accepted*.

Never on the owner's connection, and on none for long: what comes on one connection, a relay knows to be one device's.
"""

import random
from collections.abc import Callable
from math import inf
from typing import Final

import trio

from sottovoce_wire.errors import Code
from sottovoce_wire.frames import SendItem, SendResult
from sottovoce_wire.ids import EnvelopeId, MessageId, QueueId

from . import errors
from .backoff import Backoff
from .connection import Connection, Watched
from .crypto import primitives
from .local import Local, unexpected
from .network import Link, Network
from .outgoing import failed
from .protocol import healing, relay_link
from .protocol.relay_link import Answered, Event, RelayFault, SenderLink
from .store.database import Tables
from .store.outbox import Waiting

#: A connection with nothing to send is closed after this; the next message opens another. Shorter than the time after
#: which a relay misses a heartbeat, so that none is needed.
IDLE: Final = 60.0
#: A connection is replaced after a random time between these, so that a relay cannot tell by it what one device sends.
SHORTEST_LIFE: Final = 300.0
LONGEST_LIFE: Final = 900.0
#: Connections at a time: to relays that work or are new, and to those that failed the last time. Contacts name relays,
#: and somebody may name many: they take turns, and the dead never stand in the way of the others.
PLACES: Final = 48
PLACES_FOR_FAILING: Final = 16
#: While half of the places are taken: a connection's life, and how long it may have nothing to send.
CROWDED_LIFE: Final = 10.0
CROWDED_IDLE: Final = 1.0
ANSWER_WITHIN: Final = 60.0
#: A full queue is tried again no sooner and no later than this, whatever the relay suggests.
SOONEST_RETRY: Final = 0.2
LATEST_RETRY: Final = 600.0
#: Codes after which the same envelope may be accepted later. All others but ACCEPTED and ID_CONFLICT are final; after
#: REFUSED a handshake may find another address.
RETRYABLE: Final = frozenset({Code.QUEUE_FULL, Code.TRY_AGAIN})


class Sender:
    """Empties the outbox. One task for each relay; one Send under way at a time on each, so that order holds.

    `report` is called for each message of which a relay has answered something final, `changed` when a connection is up
    or no longer, `due` when a session is to be mended. `settled` is set, and replaced, whenever a relay has answered.
    """

    def __init__(
        self,
        local: Local,
        own_server: str,
        nursery: trio.Nursery,
        report: Callable[[MessageId], None],
        network: Network,
        changed: Callable[[Connection], None] = lambda _: None,
        due: Callable[[], None] = lambda: None,
    ) -> None:
        self.local = local
        self.own_server = own_server
        self.report = report
        self.due = due
        self.network = network
        self._nursery = nursery
        self._changed = changed
        self._relays: dict[str, _Relay] = {}
        self._places = trio.CapacityLimiter(PLACES)
        self._places_for_failing = trio.CapacityLimiter(PLACES_FOR_FAILING)
        self.settled = trio.Event()

    @property
    def trouble(self) -> dict[str, errors.SottovoceError]:
        """Why relays cannot be reached now."""
        found = {origin: relay.connection.trouble for origin, relay in self._relays.items()}
        return {origin: trouble for origin, trouble in found.items() if trouble is not None}

    def wake(self, origin: str) -> None:
        """Something for this relay has been added to the outbox."""
        if origin in self._relays:
            self._relays[origin].added.set()
        else:
            self._relays[origin] = _Relay(self, origin, Watched(origin, "send", self._changed))
            self._nursery.start_soon(self._serve, self._relays[origin])

    async def _serve(self, relay: "_Relay") -> None:
        """Send what waits for one relay, until nothing has come for a while.

        Cancellation: an envelope without an answer stays in the outbox and is sent again, the same bytes."""
        while await relay.serve_once():
            pass
        del self._relays[relay.origin]
        relay.connection.down()

    def places(self, *, is_failing: bool) -> trio.CapacityLimiter:
        """Where a relay's connection waits for its turn."""
        return self._places_for_failing if is_failing else self._places

    def answered(self) -> None:
        """A relay has answered."""
        self.settled.set()
        self.settled = trio.Event()


class _Relay:
    """What is under way with one relay. `added` is set when something for it has been added to the outbox."""

    def __init__(self, sender: Sender, origin: str, connection: Watched) -> None:
        self._sender = sender
        self._local = sender.local
        self.origin = origin
        self.connection = connection
        self.added = trio.Event()
        self._backoff = Backoff()
        self._held_back: dict[QueueId, float] = {}
        self._places = sender.places(is_failing=False)

    async def serve_once(self) -> bool:
        """One connection's worth of sending; False when there is nothing left to do."""
        try:
            if await self._next_batch(is_connected=False):
                await self._connect()
            elif self._held_back:
                self.connection.down()
                await self._rest(inf)
            else:
                return self.added.is_set()
        except errors.SottovoceError as error:
            self.connection.down(error)
        except RelayFault as fault:
            self.connection.down(errors.ServerRefused(f"the relay at {self.origin} closed the connection ({fault})"))
        except Exception as error:
            self.connection.down(unexpected(error))
        else:
            return True
        await self._backoff.wait()
        return True

    async def _connect(self) -> None:
        self._places = self._sender.places(is_failing=self._backoff.is_failing)
        async with self._places:
            await self._sender.network.with_link(self.origin, self._sender.own_server, self._talk)

    async def _rest(self, until: float) -> None:
        """Wait for a new envelope, for the first queue that may be tried again, or until `until`."""
        with trio.move_on_at(min([until, *self._held_back.values()])):
            await self.added.wait()

    async def _rest_on(self, link: Link, sender: SenderLink, until: float) -> bool:
        """The same on an open connection; False when the relay has ended it: no fault, as nothing is under way."""
        has_ended = False

        async def listen() -> None:
            nonlocal has_ended
            try:
                while True:
                    sender.receive(await link.receive())
            except (errors.ServerUnreachable, RelayFault):
                has_ended = True
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await self._rest(until)
            nursery.cancel_scope.cancel()
        return not has_ended

    async def _next_batch(
        self, before: Callable[[Tables], None] = lambda _: None, *, is_connected: bool = True
    ) -> list[Waiting]:
        """What is to be sent next, read in one transaction after `before`. Once a connection has it, it cannot be
        cancelled any more."""
        for queue in [queue for queue, until in self._held_back.items() if until <= trio.current_time()]:
            del self._held_back[queue]
        self.added = trio.Event()
        given_up: list[MessageId] = []

        def work(tables: Tables) -> list[Waiting]:
            before(tables)
            given_up.extend(_give_up(tables, self.origin, self._local.now_ms()))
            batch = tables.outbox.batch(self.origin, self._held_back.keys())
            if is_connected:
                tables.outbox.offer(batch)
            return batch

        batch = await self._local.transact(work)
        for message_id in given_up:
            self._sender.report(message_id)
        return batch

    async def _talk(self, link: Link) -> None:
        sender = SenderLink()
        await link.send(relay_link.hello())
        await _next_event(sender, link)
        self.connection.up()
        opened = idle_since = trio.current_time()
        life = random.uniform(SHORTEST_LIFE, LONGEST_LIFE)  # noqa: S311 - the relay sees nothing else of this generator
        batch = await self._next_batch()
        while trio.current_time() < (end := self._end(opened, life, idle_since)):
            if not batch:
                if not await self._rest_on(link, sender, end):
                    return
                batch = await self._next_batch()
                continue
            await link.send(sender.send([_item(waiting) for waiting in batch]))
            answer = await _next_event(sender, link)
            if not isinstance(answer, Answered):
                raise errors.ServerRefused("the relay answered something else")
            batch = await self._settle(batch, answer.results)
            self._backoff.succeed()
            idle_since = trio.current_time()

    def _end(self, opened: float, life: float, idle_since: float) -> float:
        """When this connection is to be closed, between two batches. What waits then goes out on the next."""
        if self._places.available_tokens < self._places.total_tokens / 2:
            return min(opened + CROWDED_LIFE, idle_since + CROWDED_IDLE)
        return min(opened + life, idle_since + IDLE)

    async def _settle(self, batch: list[Waiting], results: tuple[SendResult, ...]) -> list[Waiting]:
        """Write down what the relay answered, tell whoever waits for these messages, and return the next batch."""
        answers = list(zip(batch, results, strict=True))
        for waiting, result in answers:
            if result.code in RETRYABLE or result.code is Code.ID_CONFLICT:
                delay = min(max(result.retry_after_ms / 1000, SOONEST_RETRY), LATEST_RETRY)
                self._held_back[waiting.outgoing.address.queue] = trio.current_time() + delay

        def record(tables: Tables) -> None:
            for waiting, result in answers:
                _record(tables, waiting, result.code, self._local.now_ms())

        following = await self._next_batch(record)
        for waiting, result in answers:
            if result.code not in RETRYABLE:
                self._sender.report(waiting.outgoing.message_id)
        if any(result.code is Code.REFUSED for result in results):
            self._sender.due()
        self._sender.answered()
        return following


def _give_up(tables: Tables, origin: str, now_ms: int) -> list[MessageId]:
    """Take out some of what is too late, and all that is for accounts that were blocked since."""
    given_up: list[MessageId] = []

    def fail(lost: list[Waiting], reason: str) -> None:
        for waiting in lost:
            failed(tables, waiting, reason, now_ms)
            given_up.append(waiting.outgoing.message_id)

    fail(tables.outbox.expired(origin, now_ms // 1000), "expired")
    while to_blocked := tables.outbox.to_blocked(origin):
        fail(to_blocked, "blocked")
    return given_up


def _record(tables: Tables, waiting: Waiting, code: Code, now_ms: int) -> None:
    if code is Code.ACCEPTED:
        tables.outbox.remove(waiting.position)
    elif code is Code.ID_CONFLICT:
        tables.outbox.rename(waiting.position, EnvelopeId(primitives.random_bytes(16)))
    elif code is Code.REFUSED:
        _record_refused(tables, waiting, now_ms)
    elif code not in RETRYABLE:
        failed(tables, waiting, code.name.lower(), now_ms)


def _record_refused(tables: Tables, waiting: Waiting, now_ms: int) -> None:
    """The relay does not know the address. If there is hope of another, the envelope waits for what comes of it."""
    device = waiting.outgoing.account_id, waiting.outgoing.device_id
    if tables.outbox.refuse(waiting.position) and not healing.refused(tables, *device, now_ms // 1000):
        failed(tables, waiting, "refused", now_ms)


def _item(waiting: Waiting) -> SendItem:
    outgoing = waiting.outgoing
    address = outgoing.address
    return SendItem(address.queue, address.send_key, outgoing.envelope_id, outgoing.ttl, outgoing.body)


async def _next_event(sender: SenderLink, link: Link) -> Event:
    """The next event on a sender's link. Raises ServerUnreachable after 60 s without one, RelayFault."""
    with trio.move_on_after(ANSWER_WITHIN):
        while True:
            for event in sender.receive(await link.receive()):
                return event
    raise errors.ServerUnreachable("the relay does not answer")
