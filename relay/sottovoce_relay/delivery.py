"""One queue's delivery to one connection: cursor, delivery numbers, credit, acknowledgements. Sans-IO.

It is told of pages and of commits and says what to push and what to delete. No clock of its own, no frames sent here.
Spec: relay, delivery.
"""

from collections import deque
from collections.abc import Sequence

from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.frames import Delivery as Item
from sottovoce_wire.ids import QueueId

from .envelopes import Page, Range, Stored, ranges_of
from .states import DELIVERY, DeliveryEvent, DeliveryState

#: Bodies in one Deliver frame, so that it stays far below a frame's limit.
MAX_PUSH = 512 * 1024


class Delivery:
    """The delivery of `queue` on one connection. Numbers count 1, 2, 3 … and mean nothing on another."""

    def __init__(self, queue: QueueId) -> None:
        self.queue = queue
        self.state = DeliveryState.IDLE
        self.cursor = 0  # the highest queue number that was pushed or passed over
        self._head = 0  # the highest queue number known to be committed
        self._in_doubt = False  # something was committed, perhaps, that no page read so far shows
        self._pushed = 0  # the highest delivery number given out
        self._unacknowledged: dict[int, tuple[int, int]] = {}  # delivery number -> queue number, length
        self._count = 0
        self._size = 0
        self._used = 0  # bytes of credit in use
        self._starved = False  # the next envelope does not fit the credit that is left
        self._was_freed = False  # credit came back since a page was begun
        self._backlog_end: int | None = None  # the queue's head when delivery started
        self._backlog_left = 0  # pushed envelopes up to there whose deletion is not committed
        self._caught_up = False
        self._told = 0  # how many expired envelopes this connection was told of

    # --- What moves it -------------------------------------------------------------------------------------------

    def start(self, count: int, size: int) -> bool:
        """Begin, with this much credit. False if it has begun before."""
        if (self.state, DeliveryEvent.RECEIVE) not in DELIVERY:
            return False
        self._step(DeliveryEvent.RECEIVE)
        self._count, self._size = count, size
        return True

    def unsure(self) -> None:
        """A write to the queue failed: whatever it left shows in the database alone."""
        if self.state is not DeliveryState.IDLE:
            self._step(DeliveryEvent.UNSURE)
            self._in_doubt = True

    def begin_page(self) -> tuple[int, tuple[int, int]]:
        """A page is about to be read: behind which number, and at most how many envelopes and bytes of bodies."""
        self._in_doubt = self._was_freed = False
        allowance = (self._count - len(self._unacknowledged), min(self._size - self._used, MAX_PUSH))
        return self.cursor, allowance

    def take_page(self, page: Page) -> tuple[Item, ...]:
        """What to push of the page that `begin_page` announced. Goes live when nothing is left."""
        if self._backlog_end is None:
            self._backlog_end = page.head
        if page.more or page.cursor > self.cursor:
            self._step(DeliveryEvent.PAGE)
            self._starved = page.cursor == self.cursor and not self._was_freed
            self.cursor = page.cursor
            return tuple(self._push(envelope) for envelope in page.envelopes)
        self.cursor = max(self.cursor, page.head)  # numbers that no envelope has any more
        at_head = self._head <= self.cursor and not self._in_doubt
        self._step(DeliveryEvent.EMPTY_AT_HEAD if at_head else DeliveryEvent.EMPTY_BEHIND)
        return ()

    def take_commit(self, envelopes: Sequence[Stored], now: float) -> tuple[Item, ...]:
        """What to push of envelopes that were just committed, in the queue's order; the rest waits for a page."""
        self._head = max(self._head, envelopes[-1].seq)
        if self.state is not DeliveryState.LIVE:
            if self.state is DeliveryState.PAGING:
                self._step(DeliveryEvent.COMMITTED)
            return ()
        waiting = deque(envelope for envelope in envelopes if envelope.seq > self.cursor)
        items: list[Item] = []
        length = 0
        while waiting and self._fits(waiting[0]) and length + len(waiting[0].body) <= MAX_PUSH:
            envelope = waiting.popleft()
            self.cursor = envelope.seq
            if envelope.expires_at > now:
                length += len(envelope.body)
                items.append(self._push(envelope))
        self._step(DeliveryEvent.BEYOND_CREDIT if waiting else DeliveryEvent.COMMITTED)
        return tuple(items)

    def acknowledge(self, upto: int, singles: Sequence[int]) -> tuple[Range, ...]:
        """What to delete. Repeating an acknowledgement deletes nothing. Raises WireError (BAD_ACK) beyond `pushed`."""
        if upto > self._pushed or any(number > self._pushed for number in singles):
            raise WireError(Code.BAD_ACK, "an acknowledgement names what this connection has not been given")
        numbers = []
        for number in self._unacknowledged:
            if number > upto:
                break
            numbers.append(number)
        numbers.extend({number for number in singles if number > upto and number in self._unacknowledged})
        gone = [self._unacknowledged.pop(number) for number in numbers]
        self._used -= sum(length for _, length in gone)
        if gone:
            self._starved, self._was_freed = False, True
        return ranges_of(self.queue, (seq for seq, _ in gone))

    def deleted(self, ranges: Sequence[Range]) -> None:
        """The deletion that `acknowledge` asked for is committed."""
        end = self._backlog_end or 0
        self._backlog_left -= sum(max(0, min(gone.upto, end) - gone.after) for gone in ranges)

    def expired(self, total: int, told: int) -> int:
        """How many envelopes the owner must now be told are lost, when `total` ever expired and `told` were told."""
        news = total - max(told, self._told)
        self._told = max(total, self._told)
        return max(0, news)

    # --- What it wants -------------------------------------------------------------------------------------------

    @property
    def wants_page(self) -> bool:
        """Whether a page should be read now."""
        return self.state is DeliveryState.PAGING and not self._starved and len(self._unacknowledged) < self._count

    def take_caught_up(self) -> bool:
        """Whether to say CaughtUp now. True once."""
        ready = self._backlog_end is not None and self.cursor >= self._backlog_end and not self._backlog_left
        if self._caught_up or not ready:
            return False
        self._caught_up = True
        return True

    # --- Inside --------------------------------------------------------------------------------------------------

    def _step(self, event: DeliveryEvent) -> None:
        self.state = DELIVERY[self.state, event]

    def _fits(self, envelope: Stored) -> bool:
        return len(self._unacknowledged) < self._count and self._used + len(envelope.body) <= self._size

    def _push(self, envelope: Stored) -> Item:
        self._pushed += 1
        self._unacknowledged[self._pushed] = (envelope.seq, len(envelope.body))
        self._used += len(envelope.body)
        if self._backlog_end is not None and envelope.seq <= self._backlog_end:
            self._backlog_left += 1
        return Item(self._pushed, envelope.key_class, envelope.body)
