"""The owner's connection: proves this device's queues, takes in pages, and acknowledges what is safely stored."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from math import inf
from typing import Final

import trio

from sottovoce_wire.errors import Code
from sottovoce_wire.frames import GapReason
from sottovoce_wire.ids import MessageId, QueueId, SendKey, send_key_hash

from . import errors, events
from .backoff import Backoff
from .connection import Connection, Watched
from .local import Local, unexpected
from .network import Link, Network
from .protocol import contact_key, healing, relay_link
from .protocol.opening import Opener
from .protocol.reading import Outcome
from .protocol.relay_link import Arrived, CaughtUp, Event, Gap, Overtaken, OwnerLink, OwnQueue, Ready, RelayFault
from .protocol.state import Own
from .store import account
from .store.database import Tables

#: Envelopes taken in with one commit.
PAGE: Final = 64
PING_AFTER: Final = 30.0
DEAD_AFTER: Final = 90.0
#: From the connection to the last proof: a relay that only answers pings is given up.
READY_WITHIN: Final = 60.0
#: So long the queue for contacts waits until the one for strangers is read, which these can keep full for ever.
IN_ORDER_FOR: Final = 10.0


class Receiver:
    """Keeps one owner connection to this device's relay, reconnecting by itself.

    `ready` is set once the queues were proven for the first time; `caught_up` once all that had waited then is stored.
    `trouble` says why there is no connection now.
    `invite_code` is what a relay may ask for before it makes the queues. `arrived` is called after every page that was
    stored, `due` if a session is to be mended since, `changed` when the connection is up or no longer, `receipted` with
    the messages that receipts came for.
    """

    def __init__(
        self,
        local: Local,
        own: Own,
        opener: Opener,
        arrived: Callable[[], None],
        due: Callable[[], None] = lambda: None,
        *,
        network: Network,
        invite_code: str = "",
        changed: Callable[[Connection], None] = lambda _: None,
        receipted: Callable[[Iterable[MessageId]], None] = lambda _: None,
    ) -> None:
        self._local = local
        self._own = own
        self._opener = opener
        self._arrived = arrived
        self._due = due
        self._receipted = receipted
        self._network = network
        self._invite_code = invite_code
        self._backoff = Backoff()
        self._connection = Watched(own.contact.origin, "receive", changed)
        self._behind: set[QueueId] = set()
        self._is_stale = self._has_new_key = False
        self._is_patient = True
        self._listening = trio.CancelScope()
        self.ready = trio.Event()
        self.caught_up = trio.Event()

    @property
    def trouble(self) -> errors.SottovoceError | None:
        """Why there is no connection now."""
        return self._connection.trouble

    async def run(self, origin: str) -> None:
        """Connect, receive, reconnect, for ever.

        Cancellation: what is not stored is not acknowledged, and comes again."""
        while True:
            try:
                await self._network.with_link(origin, self._own.server, partial(self._talk, origin))
            except errors.SottovoceError as error:
                self._connection.down(error)
            except RelayFault as fault:
                self._connection.down(_refusal(origin, fault, self._invite_code))
            except Overtaken:
                self._is_patient = False
                self._connection.down(errors.ServerUnreachable(f"the relay at {origin} has more than it could deliver"))
            except Exception as error:
                self._connection.down(unexpected(error))
            else:  # it is renewed
                continue
            await self._backoff.wait()

    def renew(self) -> None:
        """Connect anew as soon as what came is stored: there is another key for the relay to know, and it is not being
        told of it."""
        if not self._has_new_key:
            self._is_stale = True
            self._listening.cancel()

    async def _talk(self, origin: str, link: Link) -> None:
        self._is_stale = False
        queues = await self._local.transact(self._queues)
        self._behind = {queue.owner.queue_id for queue in queues}
        owner = OwnerLink(origin, queues, self._invite_code, is_patient=self._is_patient)
        self._is_patient = True  # for the next one again
        hurry_at = trio.current_time() + IN_ORDER_FOR
        await link.send(relay_link.hello())
        with trio.move_on_after(READY_WITHIN) as proving:
            while (heard := await self._hear(link)) is not None:
                happened, answers = owner.receive(heard)
                for message in answers:
                    await link.send(message)
                await self._note_expired(happened)
                for event in happened:
                    if isinstance(event, Ready):
                        proving.deadline = inf
                    await self._handle(owner, link, event)
                if trio.current_time() >= hurry_at:
                    for message in owner.hurry():
                        await link.send(message)
            return
        raise errors.ServerUnreachable(f"the relay at {origin} does not open the queues")

    async def _hear(self, link: Link) -> bytes | None:
        """The next message; None if the connection is to be renewed."""
        with trio.CancelScope() as self._listening:
            return None if self._is_stale else await _next_message(link)
        return None

    def _queues(self, tables: Tables) -> list[OwnQueue]:
        """This device's queues, with the key that the contact queue is to have from now on, if one is due."""
        new_key = contact_key.due(tables, self._local.now_ms() // 1000)
        self._has_new_key = new_key is not None
        return [
            _as_said(tables.account.queue(account.INTAKE)),
            _as_said(tables.account.queue(account.CONTACT), new_key),
        ]

    async def _handle(self, owner: OwnerLink, link: Link, event: Event) -> None:
        match event:
            case Ready():
                if self._has_new_key:
                    now = self._local.now_ms() // 1000
                    await self._local.transact(lambda tables: contact_key.replaced(tables, now))
                    self._has_new_key = False
                self._backoff.succeed()
                self._connection.up()
                self.ready.set()
            case Arrived():
                for start in range(0, len(event.envelopes), PAGE):
                    await self._take_in(event.envelopes[start : start + PAGE], event.sealed_only)
                await link.send(owner.ack(event.queue, event.upto))
            case CaughtUp():
                self._behind.discard(event.queue)
                if not self._behind:
                    self.caught_up.set()
            case Gap():
                pass  # noted before; or a full queue: the senders were told, and send again

    async def _take_in(self, page: Sequence[bytes], sealed_only: bool) -> None:
        """Decrypt and store a page in one transaction, then tell whoever waits for messages."""

        def work(tables: Tables) -> tuple[bool, set[MessageId]]:
            now_ms = self._local.now_ms()
            outcomes = [self._opener.receive(tables, each, now_ms, sealed_only=sealed_only) for each in page]
            unreadable = outcomes.count(Outcome.UNDECRYPTABLE)
            if unreadable:
                tables.events.add(events.MessagesUnreadable(self._now(), unreadable))
            self._opener.search_again(tables, now_ms)
            return healing.is_pending(tables, now_ms // 1000), tables.sent.take_news()

        is_due, receipted = await self._local.transact(work)
        if is_due:
            self._due()
        self._receipted(receipted)
        self._arrived()

    async def _note_expired(self, happened: Sequence[Event]) -> None:
        """Keep what a message tells of expired envelopes, all of it in one transaction."""
        count = sum(each.count for each in happened if isinstance(each, Gap) and each.reason is GapReason.EXPIRED)
        if count:
            event = events.MessagesExpired(self._now(), count)
            await self._local.transact(lambda tables: tables.events.add(event))
            self._arrived()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._local.now_ms() / 1000, UTC)


def _refusal(origin: str, fault: RelayFault, invite_code: str) -> errors.ServerRefused:
    """Why the relay ended the connection, in words for a person."""
    if fault.code is not Code.REGISTRATION_CLOSED:
        return errors.ServerRefused(f"the relay at {origin} closed the connection ({fault})")
    if invite_code:
        return errors.RegistrationClosed(
            f"the relay at {origin} takes nobody new under this invite code",
            hint="compare it with the one you were given, letter by letter; if it is the same, ask for a new one",
        )
    return errors.RegistrationClosed(f"the relay at {origin} takes nobody new without an invite code")


async def _next_message(link: Link) -> bytes:
    """The next message, with a ping after 30 silent seconds. Raises ServerUnreachable after 90."""
    with trio.move_on_after(DEAD_AFTER):
        while True:
            with trio.move_on_after(PING_AFTER):
                return await link.receive()
            await link.send(relay_link.ping())
    raise errors.ServerUnreachable("the relay has fallen silent")


def _as_said(queue: account.OwnQueue, new_key: SendKey | None = None) -> OwnQueue:
    """The queue as the relay hears of it."""
    key = send_key_hash(queue.send_key)
    if new_key is None:
        return OwnQueue(queue.owner, ((key, queue.key_class),))
    return OwnQueue(queue.owner, ((key, queue.key_class), (send_key_hash(new_key), queue.key_class)), demoted=(key,))
