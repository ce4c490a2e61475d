"""One queue's delivery to one connection: cursor, delivery numbers, credit, acknowledgements. Sans-IO.

It is told of pages and of commits and says what to push and what to delete. No clock of its own, no frames sent here.
Spec: relay, delivery.
"""

from collections import deque
from collections.abc import Callable, Sequence

from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.frames import Delivery as Item

from .envelopes import Envelope, Page
from .mailboxes import Mailbox
from .states import DELIVERY, DeliveryEvent, DeliveryState, EnvelopeState

#: Bodies in one Deliver frame, so that it stays far below a frame's limit.
MAX_PUSH = 512 * 1024


class Delivery:
    """The delivery of one queue on one connection. Numbers count 1, 2, 3 … and mean nothing on another.

    `note` is told of the envelopes that are pushed.
    """

    def __init__(self, mailbox: Mailbox, count: int, size: int, note: Callable[[Sequence[Envelope]], None]) -> None:
        self.mailbox = mailbox
        self._note = note
        self.queue = mailbox.queue
        self.state = DELIVERY[DeliveryState.IDLE, DeliveryEvent.RECEIVE]
        self.cursor = 0  # the highest queue number that was pushed or passed over
        self._head = 0  # the highest queue number known to be committed
        self._in_doubt = False  # something was committed, perhaps, that no page read so far shows
        self._pushed = 0  # the highest delivery number given out
        self._unacknowledged: dict[int, Envelope] = {}  # by delivery number
        self._count = count  # the credit, in envelopes
        self._size = size  # and in bytes
        self._used = 0  # bytes of credit in use
        self._starved = False  # the next envelope does not fit the credit that is left
        self._was_freed = False  # credit came back since a page was begun
        self._backlog_end: int | None = None  # the queue's head when delivery started
        self._backlog_left = 0  # pushed envelopes up to there whose deletion is not committed
        self._caught_up = False
        self._told = 0  # how many expired envelopes this connection was told of

    # --- What moves it -------------------------------------------------------------------------------------------

    def unsure(self) -> None:
        """A write to the queue failed: whatever it left shows in the database alone."""
        self._step(DeliveryEvent.UNSURE)
        self._in_doubt = True
        self.mailbox.unpushed.clear()

    def begin_page(self) -> tuple[int, tuple[int, int]]:
        """A page is about to be read: behind which number, and at most how many envelopes and bytes of bodies."""
        self._in_doubt = self._was_freed = False
        self._head = self.cursor  # the page shows what was committed before
        return self.cursor, self._room()

    def take_page(self, page: Page) -> Sequence[Item]:
        """What to push of the page that `begin_page` announced. Goes live when nothing is left."""
        if self._backlog_end is None:
            self._backlog_end = page.head
        if page.more or page.cursor > self.cursor:
            self._step(DeliveryEvent.PAGE)
            self._starved = page.cursor == self.cursor and not self._was_freed
            self.cursor = page.cursor
            return self._push_all([envelope for envelope in page.envelopes if not self._is_leaving(envelope)])
        self.cursor = max(self.cursor, page.head)  # numbers that no envelope has any more
        self._backlog_end = min(self._backlog_end, self.cursor)  # the rest of it expired
        at_head = self._head <= self.cursor and not self._in_doubt
        self._step(DeliveryEvent.EMPTY_AT_HEAD if at_head else DeliveryEvent.EMPTY_BEHIND)
        return ()

    def follows(self) -> bool:
        """Whether an envelope that arrives now comes right after what is pushed or unpushed in memory."""
        unpushed = self.mailbox.unpushed
        end = max(self.cursor, unpushed[-1].seq) if unpushed else self.cursor
        return self.state is DeliveryState.LIVE and end >= self.mailbox.last

    def push_unwritten(self) -> Sequence[Item]:
        """What to push of the unpushed in memory, as far as the credit goes."""
        unpushed = self.mailbox.unpushed
        room, size = self._room()
        pushed: list[Envelope] = []
        while unpushed:
            envelope = unpushed[0]
            if envelope.seq > self.cursor and envelope.state is not EnvelopeState.GONE:
                size -= envelope.size
                if len(pushed) >= room or size < 0:
                    break
                pushed.append(envelope)
            unpushed.popleft()  # pushed now, or at its commit, or failed
            self.cursor = max(self.cursor, envelope.seq)
        return self._push_all(pushed)

    def take_commit(self, envelopes: Sequence[Envelope], now: float) -> Sequence[Item]:
        """What to push of envelopes that were just committed, in the queue's order; the rest waits for a page."""
        self._head = max(self._head, envelopes[-1].seq)
        if self.state is not DeliveryState.LIVE:
            self._step(DeliveryEvent.COMMITTED)
            return ()
        waiting = deque(envelope for envelope in envelopes if envelope.seq > self.cursor)
        room, size = self._room()
        pushed: list[Envelope] = []
        while waiting and len(pushed) < room and size >= waiting[0].size:
            envelope = waiting.popleft()
            self.cursor = envelope.seq
            if envelope.expires_at > now and envelope.state is not EnvelopeState.DELETING:  # acknowledged before
                size -= envelope.size
                pushed.append(envelope)
        if waiting:
            self.mailbox.unpushed.clear()  # pages will bring it
        self._step(DeliveryEvent.BEYOND_CREDIT if waiting else DeliveryEvent.COMMITTED)
        return self._push_all(pushed)

    def acknowledge(self, upto: int, singles: Sequence[int]) -> list[Envelope]:
        """What is acknowledged. Said again it names nothing. Raises WireError (BAD_ACK) beyond what was pushed."""
        if upto > self._pushed or any(number > self._pushed for number in singles):
            raise WireError(Code.BAD_ACK, "an acknowledgement names what this connection has not been given")
        numbers = []
        for number in self._unacknowledged:
            if number > upto:
                break
            numbers.append(number)
        numbers.extend({number for number in singles if number > upto and number in self._unacknowledged})
        gone = [self._unacknowledged.pop(number) for number in numbers]
        self._used -= sum(envelope.size for envelope in gone)
        if gone:
            self._starved, self._was_freed = False, True
        return gone

    def gone(self, envelopes: Sequence[Envelope]) -> None:
        """What `acknowledge` named is not in the database any more."""
        end = self._backlog_end or 0
        self._backlog_left -= sum(envelope.seq <= end for envelope in envelopes)

    def end(self) -> list[Envelope]:
        """The connection is over: what was pushed and not acknowledged."""
        left = list(self._unacknowledged.values())
        self._unacknowledged.clear()
        return left

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

    def _room(self) -> tuple[int, int]:
        """How many envelopes may be pushed now, and how many bytes of bodies."""
        return self._count - len(self._unacknowledged), min(self._size - self._used, MAX_PUSH)

    def _is_leaving(self, envelope: Envelope) -> bool:
        """Whether it was acknowledged on the connection before, and its deletion is under way."""
        if envelope.seq in self.mailbox.leaving:
            return True
        known = self.mailbox.known.get(envelope.name)
        return known is not None and known.seq == envelope.seq and known.state is EnvelopeState.DELETING

    def _push_all(self, envelopes: Sequence[Envelope]) -> Sequence[Item]:
        if envelopes:
            self._note(envelopes)
        items = []
        for number, envelope in enumerate(envelopes, self._pushed + 1):
            items.append(Item(number, envelope.key_class, envelope.body))
            self._unacknowledged[number] = envelope
            envelope.pushed()
            self.mailbox.know(envelope)
        self._pushed += len(envelopes)
        self._used += sum([envelope.size for envelope in envelopes])
        end = self._backlog_end or 0
        self._backlog_left += sum([envelope.seq <= end for envelope in envelopes])
        return items
