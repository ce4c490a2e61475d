"""The relay's WebSocket: carries bytes between ASGI and a Connection, and its actions to intake, writer and database.

Rules of the conversation stand in connection.py, of delivery in delivery.py, of what is accepted in intake.py. Nothing
is decided here but who waits.
"""

import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import trio

from sottovoce_hosting.budget import Budget
from sottovoce_hosting.database import Database, DatabaseError
from sottovoce_hosting.guard import RECEIVE_READY
from sottovoce_hosting.rates import Rates
from sottovoce_hosting.service import Origins, Receive, Scope, Send
from sottovoce_wire import frames, limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import KeyClass, SendResult
from sottovoce_wire.ids import QueueId, SendKeyHash

from . import storage
from .bus import Bus
from .connection import (
    Acknowledge,
    AddKey,
    Connection,
    Create,
    DeleteAll,
    DemoteKey,
    Leave,
    Prove,
    Reply,
    RevokeKey,
    Start,
    Take,
)
from .delivery import Delivery
from .envelopes import Envelope, Loss, Shared, Ticket
from .inbox import Inbox
from .intake import Intake
from .mailboxes import Mailbox, Mailboxes
from .metrics import Metrics
from .outbox import ALL_ROOM, Message, Outbox
from .registration import Registration
from .settings import DAY, FIRST_FRAME_SECONDS, GOODBYE_SECONDS, IDLE_SECONDS
from .states import ConnectionEvent, ConnectionState
from .writer import Writer

T = TypeVar("T")

#: Reads at a time, over all connections: the database does one after another, and the writer waits for this one only.
_READERS: Final = 1
#: What a request counts for beside its own bytes, so that many small ones are bounded too.
_REQUEST_OVERHEAD: Final = 256
#: What each acknowledged envelope counts for until it is deleted.
_ACKNOWLEDGED: Final = 64
#: Bytes that are heard without letting others go on, the writer among them; and what a frame counts for beside its own.
_TURN: Final = 16 * 1024
_FRAME: Final = 256

#: WebSocket close codes (RFC 6455, 7.4.1, and the IANA registry); the reason that counts is in Goodbye.
_CLOSE_CODES: Final = {Code.SHUTTING_DOWN: 1012, Code.INTERNAL: 1011, Code.DISPLACED: 1000}
_POLICY_VIOLATION: Final = 1008
_DETAILS: Final = {
    Code.UNKNOWN_QUEUE: "this key owns no queue here; create it",
    Code.TOO_MANY_SEND_KEYS: "a queue has at most 256 send keys; revoke some",
    Code.TRY_AGAIN: "the relay cannot do this now; try again later",
    Code.REGISTRATION_CLOSED: "this relay takes new queues only from those whom it invites, if at all",
}


@dataclass(frozen=True, slots=True)
class Relay:
    """What every connection shares."""

    origins: Origins
    max_envelope: int
    clock: Callable[[], float]
    database: Database
    bus: Bus
    inbox: Inbox
    mailboxes: Mailboxes
    intake: Intake
    writer: Writer
    registration: Registration
    metrics: Metrics
    connection_rates: Rates  # of one connection: what it sends, in envelopes
    block_rates: Rates  # the same of one address block


class Gateway:
    """All connections of one relay; `serve` is the ASGI handler."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._readers = trio.CapacityLimiter(_READERS)
        self._budget = Budget(ALL_ROOM)
        self._links: set[Link] = set()
        self._emptied = trio.lowlevel.ParkingLot()
        self._draining = False

    def __len__(self) -> int:
        return len(self._links)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One WebSocket connection, from its handshake to its end. Cancellation: it is dropped without a Goodbye."""
        link = Link(self._relay, self._readers, self._budget, scope, receive, send)
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

    def __init__(
        self,
        relay: Relay,
        readers: trio.CapacityLimiter,
        budget: Budget,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._relay = relay
        self._readers = readers
        self._receive = receive
        self._receive_ready: Callable[[], dict[str, Any] | None] = scope["extensions"][RECEIVE_READY]
        self._send = send
        self._peer = scope["state"]["peer"]
        self._connection = Connection(
            os.urandom(32), relay.origins.accepted, relay.max_envelope, self._share, self._wait_for
        )
        self._outbox = Outbox(budget)
        self._name = os.urandom(8)
        self._scope = trio.CancelScope()
        self._close_code = _POLICY_VIOLATION
        self._nursery: trio.Nursery
        self._turn = 0
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
            self._release_all()
            self._outbox.close()

    def leave(self, event: ConnectionEvent, code: Code, detail: str) -> None:
        """Say Goodbye after what is said already, and close; by force if the client does not take it in time."""
        if self._connection.leave(event):
            self._close_code = _CLOSE_CODES.get(code, _POLICY_VIOLATION)
            self._release_all()
            self._outbox.end(frames.Goodbye(code, detail))
            self._scope.deadline = trio.current_time() + GOODBYE_SECONDS

    def _release_all(self) -> None:
        """Nothing is heard any more, so nothing more can be acknowledged here."""
        for delivery in list(self._connection.deliveries.values()):
            self._release(delivery)

    def _release(self, delivery: Delivery) -> None:
        self._connection.deliveries.pop(delivery.queue, None)
        self._relay.bus.stop(delivery.queue, self)
        self._relay.intake.release(delivery.mailbox, delivery.end())

    # --- The sender ----------------------------------------------------------------------------------------------

    async def _speak(self) -> None:
        while message := await self._outbox.take():
            await self._say(message)
        await self._send({"type": "websocket.close", "code": self._close_code})
        self._scope.cancel()

    async def _say(self, message: Message) -> None:
        await self._send({"type": "websocket.send", "bytes": message.data})
        self._outbox.sent(message)
        # A closed connection's send returns at once: without this, a loop of them would never let go.
        await trio.lowlevel.checkpoint()

    # --- The reader ----------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        patience = FIRST_FRAME_SECONDS
        while True:
            message = self._receive_ready() if self._outbox.may_hear else None
            if message is None:
                with trio.move_on_after(patience):
                    await self._outbox.wait_to_hear()
                    message = await self._receive()
            if message is None:
                self.leave(ConnectionEvent.REFUSAL, Code.TOO_SLOW, "nothing was heard for too long")
            elif message["type"] == "websocket.disconnect":
                self._scope.cancel()
                return
            elif self._connection.state is not ConnectionState.CLOSING:
                await self._hear(message.get("bytes"))
            patience = IDLE_SECONDS

    async def _hear(self, data: bytes | None) -> None:
        if self._gaps:
            self._confirm_gaps()
        self._turn += len(data or b"")
        for action in self._connection.hear(data):
            await _ACTIONS[type(action)](self, action)
            self._turn += _FRAME
            if self._turn > _TURN:
                self._turn = 0
                await trio.lowlevel.checkpoint()

    async def _reply(self, action: Reply) -> None:
        if isinstance(action.frame, frames.SendResults):
            self._relay.metrics.answered(action.frame.results)
        self._outbox.post(action.frame)

    async def _refuse(self, action: Leave) -> None:
        self.leave(ConnectionEvent.REFUSAL, action.code, action.detail)

    # --- What senders ask ----------------------------------------------------------------------------------------

    async def _take(self, action: Take) -> None:
        relay = self._relay
        count, size = len(action.arrivals), action.size + _REQUEST_OVERHEAD * len(action.arrivals)
        if not relay.inbox.has_room:
            await relay.inbox.wait_for_room()
        self._outbox.reserve(size)

        def answer(results: Sequence[SendResult]) -> None:
            relay.metrics.answered(results)
            self._outbox.post(frames.SendResults(action.request, list(results)))
            self._outbox.release(size)

        relay.intake.take(action.arrivals, Ticket(count, trio.current_time(), answer))

    def _wait_for(self, cost: int) -> float:
        """Seconds until this connection and its address block may cause so much work, or 0."""
        relay = self._relay
        wait = relay.connection_rates.take(self._name, cost)
        return wait or (relay.block_rates.take(self._peer, cost) if self._peer else 0.0)

    def _share(self, body: bytes, pointers: int) -> Shared:
        return Shared(self._relay.intake.next_seq(), body, pointers)

    # --- What owners ask -----------------------------------------------------------------------------------------

    async def _acknowledge(self, action: Acknowledge) -> None:
        size = _REQUEST_OVERHEAD + _ACKNOWLEDGED * len(action.envelopes)
        self._outbox.reserve(size)

        def answer() -> None:
            self._outbox.post(action.acked)
            action.delivery.gone(action.envelopes)
            self._tell_caught_up(action.delivery)
            self._outbox.release(size)

        mailbox = action.delivery.mailbox
        self._relay.intake.acknowledge(mailbox, action.envelopes, answer)
        if mailbox.unpushed:
            self.push(mailbox)
        if action.delivery.wants_page:
            self._page_wanted.set()

    async def _create(self, action: Create) -> None:
        code = await self._find(action, action.send_keys)
        if code is Code.UNKNOWN_QUEUE:
            code = self._relay.registration.may_create(action.code, self._peer)
            if code is Code.ACCEPTED:
                code = await self._make(action.queue, action.owner_key, action.send_keys)
        self._answer(action.request, code)

    async def _prove(self, action: Prove) -> None:
        self._answer(action.request, await self._find(action, ()))

    async def _find(self, action: Create | Prove, keys: Sequence[frames.NewSendKey]) -> Code:
        """Look first: who connects again has mostly nothing new to write."""
        queue, owner_key = action.queue, action.owner_key
        try:
            owned = await self._read(
                partial(storage.find_queue, queue=queue, owner_key=owner_key, keys=keys, day=self._today())
            )
        except DatabaseError:
            return Code.TRY_AGAIN
        if owned.code is not Code.ACCEPTED:
            return owned.code
        code: Code = owned.code
        if not owned.is_current:
            work = partial(storage.refresh_queue, queue=queue, number=owned.number, keys=keys, day=self._today())
            code = await self._perform(work)
        if code is Code.ACCEPTED:
            self._connection.prove(queue, owned.number)
        return code

    async def _make(self, queue: QueueId, owner_key: bytes, keys: Sequence[frames.NewSendKey]) -> Code:
        work = partial(storage.create_queue, queue=queue, owner_key=owner_key, keys=keys, day=self._today())
        try:
            owned = await self._relay.writer.perform(work, partial(self._relay.mailboxes.forget_queues, {queue}))
        except DatabaseError:
            return Code.TRY_AGAIN
        if listener := self._relay.bus.listener(queue):
            listener.made(queue, owned.number)
        if owned.code is Code.ACCEPTED:
            self._connection.prove(queue, owned.number)
        return owned.code

    async def _add_key(self, action: AddKey) -> None:
        queue, number = action.queue.queue, action.queue.number
        work = partial(storage.add_send_keys, queue=queue, number=number, keys=[action.key])
        self._answer(action.request, await self._perform(work))

    async def _revoke_key(self, action: RevokeKey) -> None:
        queue = action.queue.queue
        work = partial(storage.revoke_send_key, queue=queue, key_hash=action.key_hash)
        self._answer(action.request, await self._perform(work, self._forget_door(queue, action.key_hash)))

    async def _demote_key(self, action: DemoteKey) -> None:
        queue = action.queue.queue
        work = partial(storage.demote_send_key, queue=queue, key_hash=action.key_hash, dies_at=self._death())
        self._answer(action.request, await self._perform(work, self._forget_door(queue, action.key_hash)))

    def _forget_door(self, queue: QueueId, key_hash: SendKeyHash) -> Callable[[], None]:
        return partial(self._relay.mailboxes.forget_doors, [queue + key_hash])

    async def _delete_all(self, action: DeleteAll) -> None:
        queue = action.queue.queue
        work = partial(storage.delete_queue_of, queue=queue)
        code = await self._perform(work, partial(self._forget_queue, queue))
        if code is Code.ACCEPTED:
            if delivery := self._connection.deliveries.get(queue):
                self._release(delivery)
            self._connection.deleted(queue)
        self._answer(action.request, code)

    def _forget_queue(self, queue: QueueId) -> None:
        self._relay.mailboxes.forget_queues({queue})
        listener = self._relay.bus.listener(queue)
        if listener is not None and listener is not self:
            listener.deleted()

    async def _perform(self, work: Callable[..., Code], then: Callable[[], None] | None = None) -> Code:
        try:
            return await self._relay.writer.perform(work, then)
        except DatabaseError:
            return Code.TRY_AGAIN

    def _answer(self, request: int, code: Code) -> None:
        if code is Code.ACCEPTED:
            self._outbox.post(frames.Done(request))
        else:
            self._outbox.post(frames.Failed(request, code, _DETAILS[code]))

    def _death(self) -> int:
        return int(self._relay.clock()) + limits.DEMOTED_LIFETIME

    def _today(self) -> int:
        return int(self._relay.clock() // DAY)

    # --- The pager -----------------------------------------------------------------------------------------------

    async def _start(self, action: Start) -> None:
        mailbox = self._relay.mailboxes.at(action.queue.queue, action.queue.number)
        delivery = Delivery(mailbox, action.count, action.size, self._relay.metrics.delivered)
        self._outbox.post(frames.Done(action.request))
        self._relay.bus.listen(delivery.queue, self)
        mailbox.is_received = True
        self._connection.started(delivery)
        self._tell_refused(delivery)
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
        if delivery.queue not in self._connection.deliveries:
            return  # it was deleted, or the connection is closing
        if page is None or page.number != delivery.mailbox.number:
            self.deleted()
            return
        self._push(delivery, delivery.take_page(page))
        self.lost(Loss(delivery.queue, page.expired, page.told))
        self._tell_caught_up(delivery)

    def _tell_refused(self, delivery: Delivery) -> None:
        refused, delivery.mailbox.refused = delivery.mailbox.refused, 0
        if refused:
            self._outbox.post(frames.Gap(delivery.queue, refused, frames.GapReason.QUOTA))

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

    def follows(self, queue: QueueId) -> bool:
        """Whether what arrives now comes right after what this connection has, or will have from memory."""
        return self._connection.deliveries[queue].follows()

    def push(self, mailbox: Mailbox) -> None:
        """Push what is unpushed in memory, as far as credit and room go."""
        delivery = self._connection.deliveries[mailbox.queue]
        while self._outbox.has_room and (items := delivery.push_unwritten()):
            self._push(delivery, items)

    def pass_on(self, queue: QueueId, key_class: KeyClass, body: bytes) -> None:
        """Push what is ephemeral, if there is room."""
        if self._outbox.has_room:
            self._outbox.post(frames.DeliverNow(queue, [frames.Passing(key_class, body)]))

    def committed(self, queue: QueueId, envelopes: Sequence[Envelope]) -> None:
        """Push what was committed, as far as credit and room go; a page brings the rest."""
        delivery = self._connection.deliveries[queue]
        if self._outbox.has_room:
            self._push(delivery, delivery.take_commit(envelopes, self._relay.clock()))
        else:
            delivery.unsure()
        if delivery.wants_page:
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

    def made(self, queue: QueueId, number: int) -> None:
        """The queue of this id has this number now: whoever receives one of another number was told that its deletion
        had failed."""
        if self._connection.deliveries[queue].mailbox.number != number:
            self.deleted()

    def deleted(self) -> None:
        """Another connection of the owner's deleted one of the queues."""
        self.leave(ConnectionEvent.REFUSAL, Code.UNKNOWN_QUEUE, "the queue was deleted")

    def displaced(self) -> None:
        """Another connection receives one of this one's queues."""
        self.leave(ConnectionEvent.DISPLACED, Code.DISPLACED, "another connection receives this queue now")

    def _push(self, delivery: Delivery, items: Sequence[frames.Delivery]) -> None:
        if items:
            self._outbox.deliver(delivery.queue, items)

    def _tell_caught_up(self, delivery: Delivery) -> None:
        if delivery.take_caught_up():
            self._outbox.post(frames.CaughtUp(delivery.queue))


_ACTIONS: Final[dict[type, Callable[[Link, Any], Awaitable[None]]]] = {
    Reply: Link._reply,
    Leave: Link._refuse,
    Take: Link._take,
    Acknowledge: Link._acknowledge,
    Create: Link._create,
    Prove: Link._prove,
    AddKey: Link._add_key,
    RevokeKey: Link._revoke_key,
    DemoteKey: Link._demote_key,
    DeleteAll: Link._delete_all,
    Start: Link._start,
}
