"""Who receives which queue, and how the rest of the relay reaches them: the seam behind which queues live on several
machines.

In one process a call is enough. Nothing here waits, stores or knows frames.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from sottovoce_wire.frames import KeyClass
from sottovoce_wire.ids import QueueId

from .envelopes import Envelope, Loss
from .mailboxes import Mailbox


class Listener(Protocol):
    """A connection that receives queues. It is called between two awaits and must not raise."""

    def follows(self, queue: QueueId) -> bool:
        """Whether an envelope that arrives now comes right after what is pushed, or waits in memory to be."""

    def push(self, mailbox: Mailbox) -> None:
        """Give the owner what is unpushed there, although it may not be written yet, as far as credit and room go."""

    def pass_on(self, queue: QueueId, key_class: KeyClass, body: bytes) -> None:
        """Give this to the owner, or drop it: nobody keeps it."""

    def committed(self, queue: QueueId, envelopes: Sequence[Envelope]) -> None:
        """These envelopes are in the database, in this order, and none before them is still to come."""

    def unsure(self, queue: QueueId) -> None:
        """Something may be in the database that was not told."""

    def lost(self, loss: Loss) -> None:
        """Envelopes expired."""

    def made(self, queue: QueueId, number: int) -> None:
        """The queue of this id has this number now, in the database."""

    def deleted(self) -> None:
        """One of the queues is no more."""

    def displaced(self) -> None:
        """Another connection receives one of the queues now."""


class Bus:
    """The listeners of this process: at most one for each queue, the newest."""

    def __init__(self) -> None:
        self._listeners: dict[QueueId, Listener] = {}

    def __len__(self) -> int:
        return len(self._listeners)

    def listen(self, queue: QueueId, listener: Listener) -> None:
        """Receive `queue`. Whoever did so before is displaced."""
        before = self._listeners.get(queue)
        if before is not None and before is not listener:
            before.displaced()
        self._listeners[queue] = listener

    def stop(self, queue: QueueId, listener: Listener) -> None:
        """Receive `queue` no longer, if `listener` still did."""
        if self._listeners.get(queue) is listener:
            del self._listeners[queue]

    def listener(self, queue: QueueId) -> Listener | None:
        """Who receives `queue`."""
        return self._listeners.get(queue)

    def committed(self, envelopes: Iterable[Envelope]) -> None:
        """Tell the listeners what was committed."""
        by_queue: dict[QueueId, list[Envelope]] = {}
        for envelope in envelopes:
            if envelope.queue in self._listeners:
                by_queue.setdefault(envelope.queue, []).append(envelope)
        for queue, news in by_queue.items():
            if listener := self._listeners.get(queue):
                listener.committed(queue, news)

    def unsure(self, queues: Iterable[QueueId]) -> None:
        """Tell the listeners that a write to these queues failed."""
        for queue in queues:
            if listener := self._listeners.get(queue):
                listener.unsure(queue)

    def lost(self, losses: Iterable[Loss]) -> None:
        """Tell the listeners what expired."""
        for loss in losses:
            if listener := self._listeners.get(loss.queue):
                listener.lost(loss)
