"""The relay's WebSocket: carries bytes between ASGI and a Connection, and its actions to the writer and the database.

Rules of the conversation stand in connection.py, of delivery in delivery.py. Nothing is decided here but who waits.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import trio

from sottovoce_hosting.database import Database, DatabaseError
from sottovoce_hosting.service import Origins, Receive, Scope, Send
from sottovoce_wire import frames
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import SendResult
from sottovoce_wire.ids import QueueId

from . import storage
from .bus import Bus
from .connection import Action, AddKey, Connection, Delete, Leave, Prove, Reply, RevokeKey, Start, Take
from .delivery import Delivery
from .envelopes import Loss, Quotas, Stored
from .outbox import Outbox
from .settings import FIRST_FRAME_SECONDS, GOODBYE_SECONDS, IDLE_SECONDS
from .states import ConnectionEvent, ConnectionState
from .writer import Writer

T = TypeVar("T")

#: Reads at a time, over all connections: fewer than the database can do at once, so that none waits there.
_READERS: Final = 3
#: What a request counts for beside its own bytes, so that many small ones are bounded too.
_REQUEST_OVERHEAD: Final = 256

#: WebSocket close codes (RFC 6455, 7.4.1, and the IANA registry); the reason that counts is in Goodbye.
_CLOSE_CODES: Final = {Code.SHUTTING_DOWN: 1012, Code.INTERNAL: 1011, Code.DISPLACED: 1000}
_POLICY_VIOLATION: Final = 1008
_DETAILS: Final = {
    Code.UNKNOWN_QUEUE: "this key owns no queue here; create it",
    Code.TOO_MANY_SEND_KEYS: "a queue has at most 256 send keys; revoke some",
    Code.TRY_AGAIN: "the relay could not write; try again later",
}


@dataclass(frozen=True, slots=True)
class Relay:
    """What every connection shares."""

    origins: Origins
    quotas: Quotas
    clock: Callable[[], float]
    database: Database
    bus: Bus
    writer: Writer


class Gateway:
    """All connections of one relay; `serve` is the ASGI handler."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._readers = trio.CapacityLimiter(_READERS)
        self._links: set[Link] = set()
        self._emptied = trio.lowlevel.ParkingLot()
        self._draining = False

    async def serve(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """One WebSocket connection, from its handshake to its end. Cancellation: it is dropped without a Goodbye."""
        link = Link(self._relay, self._readers, receive, send)
        self._links.add(link)
        try:
            if self._draining:
                link.leave(ConnectionEvent.DRAIN, Code.SHUTTING_DOWN, "this relay is stopping")
            await link.run()
        finally:
            self._links.discard(link)
            self._emptied.unpark_all()

    async def drain(self) -> None:
        """Say Goodbye to everybody and wait until they are gone. Cancellation: those that are left stay connected."""
        self._draining = True
        for link in self._links:
            link.leave(ConnectionEvent.DRAIN, Code.SHUTTING_DOWN, "this relay is stopping")
        while self._links:
            await self._emptied.park()


class Link:
    """One connection's tasks: a reader, a sender, and, once it receives, a pager. A Listener on the bus."""

    def __init__(self, relay: Relay, readers: trio.CapacityLimiter, receive: Receive, send: Send) -> None:
        self._relay = relay
        self._readers = readers
        self._receive = receive
        self._send = send
        self._connection = Connection(os.urandom(32), relay.origins.accepted, relay.quotas.max_envelope, relay.clock)
        self._outbox = Outbox()
        self._scope = trio.CancelScope()
        self._close_code = _POLICY_VIOLATION
        self._nursery: trio.Nursery
        self._is_paging = False
        self._page_wanted = trio.Event()
        self._gaps: dict[QueueId, tuple[int, Loss]] = {}  # Gaps said, each with its place among the frames
        self._told: dict[QueueId, Loss] = {}  # those that were heard, to be noted

    async def run(self) -> None:
        """Serve until either side closes."""
        message = await self._receive()
        if message["type"] != "websocket.connect":
            return
        await self._send({"type": "websocket.accept"})
        try:
            with self._scope:
                async with trio.open_nursery() as self._nursery:
                    self._nursery.start_soon(self._speak)
                    await self._listen()
        finally:
            for queue in self._connection.deliveries:
                self._relay.bus.stop(queue, self)

    def leave(self, event: ConnectionEvent, code: Code, detail: str) -> None:
        """Say Goodbye after what is said already, and close; by force if the client does not take it in time."""
        if self._connection.leave(event):
            self._close_code = _CLOSE_CODES.get(code, _POLICY_VIOLATION)
            self._outbox.post(frames.Goodbye(code, detail))
            self._outbox.end()
            self._scope.deadline = trio.current_time() + GOODBYE_SECONDS

    # --- The sender ----------------------------------------------------------------------------------------------

    async def _speak(self) -> None:
        while messages := await self._outbox.take():
            for message in messages:
                await self._send({"type": "websocket.send", "bytes": message})
                self._outbox.sent(message)
                # A closed connection's send returns at once: without this, a loop of them would never let go.
                await trio.lowlevel.checkpoint()
        await self._send({"type": "websocket.close", "code": self._close_code})
        self._scope.cancel()

    # --- The reader ----------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        patience = FIRST_FRAME_SECONDS
        while True:
            message = None
            with trio.move_on_after(patience):
                await self._outbox.wait_for_room()
                message = await self._receive()
            if message is None:
                self.leave(ConnectionEvent.REFUSAL, Code.TOO_SLOW, "nothing was heard for too long")
            elif message["type"] == "websocket.disconnect":
                self._scope.cancel()
                return
            elif self._connection.state is not ConnectionState.CLOSING:
                self._confirm_gaps()
                await self._act(self._connection.hear(message.get("bytes")), len(message.get("bytes") or b""))
            patience = IDLE_SECONDS

    async def _act(self, action: Action, size: int) -> None:
        match action:
            case Reply(frame):
                self._outbox.post(frame)
            case Leave(code, detail):
                self.leave(ConnectionEvent.REFUSAL, code, detail)
            case Take():
                await self._take(action, size + _REQUEST_OVERHEAD)
            case Delete():
                await self._delete(action, size + _REQUEST_OVERHEAD)
            case Start():
                self._start(action)
            case Prove():
                await self._prove(action)
            case AddKey(request, queue, key):
                work = partial(storage.add_send_keys, queue=queue, keys=[key])
                self._answer(request, await self._perform(work))
            case RevokeKey(request, queue, key_hash):
                work = partial(storage.revoke_send_key, queue=queue, key_hash=key_hash)
                self._answer(request, await self._perform(work))

    async def _perform(self, work: Callable[..., Code]) -> Code:
        try:
            return await self._relay.writer.perform(work)
        except DatabaseError:
            return Code.TRY_AGAIN

    def _answer(self, request: int, code: Code) -> None:
        if code is Code.ACCEPTED:
            self._outbox.post(frames.Done(request))
        else:
            self._outbox.post(frames.Failed(request, code, _DETAILS[code]))

    async def _prove(self, action: Prove) -> None:
        if action.send_keys is None:
            code = await self._find(action)
        else:
            keys = action.send_keys
            work = partial(storage.create_queue, queue=action.queue, owner_key=action.owner_key, keys=keys)
            code = await self._perform(work)
        if code is Code.ACCEPTED:
            self._connection.proven(action.queue)
        self._answer(action.request, code)

    async def _find(self, action: Prove) -> Code:
        work = partial(storage.owns_queue, queue=action.queue, owner_key=action.owner_key)
        try:
            return Code.ACCEPTED if await self._read(work) else Code.UNKNOWN_QUEUE
        except DatabaseError:
            return Code.TRY_AGAIN

    async def _take(self, action: Take, size: int) -> None:
        self._outbox.reserve(size)

        def answer(results: Sequence[SendResult]) -> None:
            self._outbox.post(frames.SendResults(action.request, list(results)))
            self._outbox.release(size)

        await self._relay.writer.send(action.arrivals, answer)

    async def _delete(self, action: Delete, size: int) -> None:
        self._outbox.reserve(size)

        def answer() -> None:
            self._outbox.post(action.acked)
            action.delivery.deleted(action.ranges)
            self._tell_caught_up(action.delivery)
            self._outbox.release(size)

        await self._relay.writer.delete(action.ranges, answer)
        self._page_wanted.set()

    # --- The pager -----------------------------------------------------------------------------------------------

    def _start(self, action: Start) -> None:
        self._outbox.post(frames.Done(action.request))
        self._relay.bus.listen(action.delivery.queue, self)
        self._page_wanted.set()
        if not self._is_paging:
            self._is_paging = True
            self._nursery.start_soon(self._page)

    async def _page(self) -> None:
        deliveries = self._connection.deliveries
        while True:
            self._page_wanted = trio.Event()
            for delivery in list(deliveries.values()):
                if delivery.wants_page:
                    await self._read_page(delivery)
            while self._told:
                await self._note_told(self._told.popitem()[1])
            if not any(delivery.wants_page for delivery in deliveries.values()):
                await self._page_wanted.wait()

    async def _read_page(self, delivery: Delivery) -> None:
        await self._outbox.wait_for_room()
        cursor, allowance = delivery.begin_page()
        now = self._relay.clock()
        work = partial(storage.read_page, queue=delivery.queue, cursor=cursor, allowance=allowance, now=now)
        try:
            page = await self._read(work)
        except DatabaseError:
            self.leave(ConnectionEvent.REFUSAL, Code.INTERNAL, "the relay could not read the queue; connect again")
            await trio.sleep_forever()
        self._push(delivery, delivery.take_page(page))
        self.lost(Loss(delivery.queue, page.expired, page.told))
        self._tell_caught_up(delivery)

    def _confirm_gaps(self) -> None:
        """The client speaks: it counts as told what was with the socket before. A dead one would take Gaps for ever."""
        for queue, (place, loss) in list(self._gaps.items()):
            if place <= self._outbox.handed_over:
                del self._gaps[queue]
                self._told[queue] = loss
                self._page_wanted.set()

    async def _note_told(self, loss: Loss) -> None:
        """Lost with the connection or a failing database, it is told again."""
        with suppress(DatabaseError):
            work = partial(storage.told_expired, queue=loss.queue, total=loss.expired)
            await self._relay.writer.perform(work)

    async def _read(self, work: Callable[..., T]) -> T:
        async with self._readers:
            return await self._relay.database.read(work)

    # --- Told by the bus -----------------------------------------------------------------------------------------

    def committed(self, queue: QueueId, envelopes: Sequence[Stored]) -> None:
        """Push what was committed, as far as credit and room go; a page brings the rest."""
        delivery = self._connection.deliveries[queue]
        if self._outbox.has_room:
            self._push(delivery, delivery.take_commit(envelopes, self._relay.clock()))
        else:
            delivery.unsure()
        self._page_wanted.set()

    def unsure(self, queue: QueueId) -> None:
        """Look into the database again."""
        self._connection.deliveries[queue].unsure()
        self._page_wanted.set()

    def lost(self, loss: Loss) -> None:
        """Tell the owner, if this is news."""
        news = self._connection.deliveries[loss.queue].expired(loss.expired, loss.told)
        if news and self._outbox.post(frames.Gap(loss.queue, news, frames.GapReason.EXPIRED)):
            self._gaps[loss.queue] = (self._outbox.posted, loss)

    def displaced(self) -> None:
        """Another connection receives one of this one's queues."""
        self.leave(ConnectionEvent.DISPLACED, Code.DISPLACED, "another connection receives this queue now")

    def _push(self, delivery: Delivery, items: Sequence[frames.Delivery]) -> None:
        if items:
            self._outbox.post(frames.Deliver(delivery.queue, list(items)))

    def _tell_caught_up(self, delivery: Delivery) -> None:
        if delivery.take_caught_up():
            self._outbox.post(frames.CaughtUp(delivery.queue))
