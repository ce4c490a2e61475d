"""The sender's connections: the outbox, in order, to each relay, until it has answered *accepted*."""

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Final

import trio

from sottovoce_wire.errors import Code
from sottovoce_wire.frames import SendItem, SendResult
from sottovoce_wire.ids import EnvelopeId, MessageId, QueueId

from . import errors
from .backoff import Backoff
from .crypto import primitives
from .links import Link, with_link
from .local import Local, now_ms, unexpected
from .protocol import relay_link
from .protocol.relay_link import Answered, Event, RelayFault, SenderLink
from .store.database import Tables
from .store.outbox import Waiting

#: A connection with nothing to send is closed after this; the next message opens another.
IDLE: Final = 60.0
ANSWER_WITHIN: Final = 60.0
#: A full queue is tried again no sooner and no later than this, whatever the relay suggests.
SOONEST_RETRY: Final = 0.2
LATEST_RETRY: Final = 600.0
#: Codes after which the same envelope may be accepted later. All others but ACCEPTED and ID_CONFLICT are final.
RETRYABLE: Final = frozenset({Code.QUEUE_FULL, Code.TRY_AGAIN})


class Sender:
    """Empties the outbox. One task for each relay; one Send under way at a time on each, so that order holds.

    `settled` is set, and replaced, whenever a relay has answered; `trouble` says why a relay cannot be reached now.
    """

    def __init__(
        self, local: Local, own_server: str, nursery: trio.Nursery, settled: Callable[[MessageId], None]
    ) -> None:
        self._local = local
        self._own_server = own_server
        self._nursery = nursery
        self._report = settled
        self._wake: dict[str, trio.Event] = {}
        self.settled = trio.Event()
        self.trouble: dict[str, errors.SottovoceError] = {}

    def wake(self, origin: str) -> None:
        """Something for this relay has been added to the outbox."""
        event = self._wake.get(origin)
        if event is None:
            self._wake[origin] = trio.Event()
            self._nursery.start_soon(self._serve, origin)
        else:
            event.set()

    async def _serve(self, origin: str) -> None:
        """Send what waits for one relay, until nothing has come for a while.

        Cancellation: an envelope without an answer stays in the outbox and is sent again, the same bytes."""
        backoff = Backoff()
        held_back: dict[QueueId, float] = {}
        while await self._serve_once(origin, held_back, backoff):
            pass
        del self._wake[origin]
        self.trouble.pop(origin, None)

    async def _serve_once(self, origin: str, held_back: dict[QueueId, float], backoff: Backoff) -> bool:
        """One connection's worth of sending; False when there is nothing left to do."""
        try:
            if await self._next_batch(origin, held_back):
                await with_link(origin, self._own_server, partial(self._talk, origin, held_back, backoff))
            elif held_back:
                await self._idle(origin, held_back, inf)
            else:
                return self._wake[origin].is_set()
        except errors.SottovoceError as error:
            self.trouble[origin] = error
        except RelayFault as fault:
            self.trouble[origin] = errors.ServerRefused(f"the relay at {origin} closed the connection ({fault})")
        except Exception as error:
            self.trouble[origin] = unexpected(error)
        else:
            return True
        await backoff.wait()
        return True

    async def _idle(self, origin: str, held_back: dict[QueueId, float], until: float) -> None:
        """Wait for a new envelope, for the first queue that may be tried again, or until `until`."""
        with trio.move_on_at(min([until, *held_back.values()])):
            await self._wake[origin].wait()

    async def _next_batch(
        self,
        origin: str,
        held_back: dict[QueueId, float],
        before: Callable[[Tables], None] = lambda _: None,
    ) -> list[Waiting]:
        """What is to be sent next, read in one transaction after `before`."""
        for queue in [queue for queue, until in held_back.items() if until <= trio.current_time()]:
            del held_back[queue]
        self._wake[origin] = trio.Event()
        expired: list[MessageId] = []

        def work(tables: Tables) -> list[Waiting]:
            before(tables)
            expired.extend(tables.outbox.expire(origin, now_ms() // 1000, Code.TRY_AGAIN))
            return tables.outbox.batch(origin, held_back.keys())

        batch = await self._local.transact(work)
        for message_id in expired:
            self._report(message_id)
        return batch

    async def _talk(self, origin: str, held_back: dict[QueueId, float], backoff: Backoff, link: Link) -> None:
        sender = SenderLink()
        await link.send(relay_link.hello())
        await _next_event(sender, link)
        idle_since = trio.current_time()
        batch = await self._next_batch(origin, held_back)
        while trio.current_time() < idle_since + IDLE:
            if not batch:
                await self._idle(origin, held_back, idle_since + IDLE)
                batch = await self._next_batch(origin, held_back)
                continue
            await link.send(sender.send([_item(waiting) for waiting in batch]))
            answer = await _next_event(sender, link)
            if not isinstance(answer, Answered):
                raise errors.ServerRefused("the relay answered something else")
            batch = await self._settle(origin, batch, answer.results, held_back)
            backoff.reset()
            self.trouble.pop(origin, None)
            idle_since = trio.current_time()

    async def _settle(
        self,
        origin: str,
        batch: list[Waiting],
        results: tuple[SendResult, ...],
        held_back: dict[QueueId, float],
    ) -> list[Waiting]:
        """Write down what the relay answered, tell whoever waits for these messages, and return the next batch."""
        answers = list(zip(batch, results, strict=True))
        for waiting, result in answers:
            if result.code in RETRYABLE or result.code is Code.ID_CONFLICT:
                delay = min(max(result.retry_after_ms / 1000, SOONEST_RETRY), LATEST_RETRY)
                held_back[waiting.outgoing.address.queue] = trio.current_time() + delay

        def record(tables: Tables) -> None:
            for waiting, result in answers:
                _record(tables, waiting, result.code)

        following = await self._next_batch(origin, held_back, record)
        for waiting, result in answers:
            if result.code not in RETRYABLE:
                self._report(waiting.outgoing.message_id)
        self.settled.set()
        self.settled = trio.Event()
        return following


def _record(tables: Tables, waiting: Waiting, code: Code) -> None:
    if code is Code.ACCEPTED:
        tables.outbox.remove(waiting.position)
    elif code is Code.ID_CONFLICT:
        tables.outbox.rename(waiting.position, EnvelopeId(primitives.random_bytes(16)))
    elif code not in RETRYABLE:
        tables.outbox.fail(waiting, code)


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
