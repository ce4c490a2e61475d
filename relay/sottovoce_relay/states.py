"""The relay's states and every step between them, as tables: of a connection, of a queue's delivery, of an envelope.

A step that is not in a table does not exist. protocol-spec/relay.md shows the same tables and a test compares the two.
No code that acts on a step stands here.
"""

import enum
from collections.abc import Mapping
from typing import Final


class _Name(enum.Enum):
    __hash__ = object.__hash__  # Enum's own is Python code, and the tables below are looked up all the time


@enum.unique
class ConnectionState(_Name):
    """Where a connection is in its life."""

    GREETING = "greeting"  # nothing heard yet; Hello is due
    OPEN = "open"
    CLOSING = "closing"  # Goodbye was said; nothing is heard any more


@enum.unique
class ConnectionEvent(_Name):
    """What moves a connection."""

    HELLO = "hello"
    REQUEST = "request"
    REFUSAL = "refusal"  # a malformed, unexpected or false frame, or none in time
    DISPLACED = "displaced"
    DRAIN = "drain"


CONNECTION: Final[Mapping[tuple[ConnectionState, ConnectionEvent], ConnectionState]] = {
    (ConnectionState.GREETING, ConnectionEvent.HELLO): ConnectionState.OPEN,
    (ConnectionState.GREETING, ConnectionEvent.REFUSAL): ConnectionState.CLOSING,
    (ConnectionState.GREETING, ConnectionEvent.DRAIN): ConnectionState.CLOSING,
    (ConnectionState.OPEN, ConnectionEvent.REQUEST): ConnectionState.OPEN,
    (ConnectionState.OPEN, ConnectionEvent.REFUSAL): ConnectionState.CLOSING,
    (ConnectionState.OPEN, ConnectionEvent.DISPLACED): ConnectionState.CLOSING,
    (ConnectionState.OPEN, ConnectionEvent.DRAIN): ConnectionState.CLOSING,
}


@enum.unique
class DeliveryState(_Name):
    """Where a connection's envelopes of one queue come from."""

    IDLE = "idle"  # proven, and Receive was not said
    PAGING = "paging"  # read from the database, page by page
    LIVE = "live"  # pushed from memory as they are committed


@enum.unique
class DeliveryEvent(_Name):
    """What moves a delivery."""

    RECEIVE = "receive"
    PAGE = "page"  # a page had envelopes, or stopped at the end of the credit
    EMPTY_BEHIND = "empty page, behind"  # something was committed since that page was read
    EMPTY_AT_HEAD = "empty page, at the head"  # the cursor equals the queue's highest committed number
    COMMITTED = "committed"  # within the credit, or while paging
    BEYOND_CREDIT = "committed beyond credit"
    UNSURE = "unsure"  # a write failed: what it left is in the database alone


DELIVERY: Final[Mapping[tuple[DeliveryState, DeliveryEvent], DeliveryState]] = {
    (DeliveryState.IDLE, DeliveryEvent.RECEIVE): DeliveryState.PAGING,
    (DeliveryState.PAGING, DeliveryEvent.PAGE): DeliveryState.PAGING,
    (DeliveryState.PAGING, DeliveryEvent.EMPTY_BEHIND): DeliveryState.PAGING,
    (DeliveryState.PAGING, DeliveryEvent.EMPTY_AT_HEAD): DeliveryState.LIVE,
    (DeliveryState.PAGING, DeliveryEvent.COMMITTED): DeliveryState.PAGING,
    (DeliveryState.PAGING, DeliveryEvent.UNSURE): DeliveryState.PAGING,
    (DeliveryState.LIVE, DeliveryEvent.COMMITTED): DeliveryState.LIVE,
    (DeliveryState.LIVE, DeliveryEvent.BEYOND_CREDIT): DeliveryState.PAGING,
    (DeliveryState.LIVE, DeliveryEvent.UNSURE): DeliveryState.PAGING,
}


@enum.unique
class EnvelopeState(_Name):
    """Where an envelope is on its way through the relay."""

    NEW = "new"
    HELD = "held"  # pushed to its owner and kept from the writer for a moment
    QUEUED = "queued"  # waits for the writer
    WRITING = "writing"  # in the transaction that is running
    STORED = "stored"  # committed; the sender was told so
    DELETING = "deleting"  # acknowledged; the deletion waits for the writer, or is running
    GONE = "gone"


@enum.unique
class EnvelopeEvent(_Name):
    """What moves an envelope."""

    PUSHED = "follows what a live connection is given"  # under a contact or group key
    WAITS = "must be written first"
    TIME_UP = "held long enough"
    FOLLOWED = "followed by one that must be written"
    LEFT = "the connection ended or was displaced"
    TAKEN = "writer takes its batch"
    COMMITTED = "committed"
    REFUSED = "refused"  # a repeat, as the transaction found
    FAILED = "failed"
    OUTCOME_UNKNOWN = "outcome unknown"
    ACK = "ack"
    DELETED = "deletion committed"
    EXPIRED = "expired"


ENVELOPE: Final[Mapping[tuple[EnvelopeState, EnvelopeEvent], EnvelopeState]] = {
    (EnvelopeState.NEW, EnvelopeEvent.PUSHED): EnvelopeState.HELD,
    (EnvelopeState.NEW, EnvelopeEvent.WAITS): EnvelopeState.QUEUED,
    (EnvelopeState.HELD, EnvelopeEvent.ACK): EnvelopeState.GONE,
    (EnvelopeState.HELD, EnvelopeEvent.TIME_UP): EnvelopeState.QUEUED,
    (EnvelopeState.HELD, EnvelopeEvent.FOLLOWED): EnvelopeState.QUEUED,
    (EnvelopeState.HELD, EnvelopeEvent.LEFT): EnvelopeState.QUEUED,
    (EnvelopeState.QUEUED, EnvelopeEvent.ACK): EnvelopeState.GONE,
    (EnvelopeState.QUEUED, EnvelopeEvent.FAILED): EnvelopeState.GONE,
    (EnvelopeState.QUEUED, EnvelopeEvent.TAKEN): EnvelopeState.WRITING,
    (EnvelopeState.WRITING, EnvelopeEvent.ACK): EnvelopeState.DELETING,
    (EnvelopeState.WRITING, EnvelopeEvent.COMMITTED): EnvelopeState.STORED,
    (EnvelopeState.WRITING, EnvelopeEvent.REFUSED): EnvelopeState.GONE,
    (EnvelopeState.WRITING, EnvelopeEvent.FAILED): EnvelopeState.GONE,
    (EnvelopeState.WRITING, EnvelopeEvent.OUTCOME_UNKNOWN): EnvelopeState.WRITING,
    (EnvelopeState.STORED, EnvelopeEvent.ACK): EnvelopeState.DELETING,
    (EnvelopeState.STORED, EnvelopeEvent.EXPIRED): EnvelopeState.GONE,
    (EnvelopeState.DELETING, EnvelopeEvent.COMMITTED): EnvelopeState.DELETING,
    (EnvelopeState.DELETING, EnvelopeEvent.REFUSED): EnvelopeState.DELETING,
    (EnvelopeState.DELETING, EnvelopeEvent.DELETED): EnvelopeState.GONE,
    (EnvelopeState.DELETING, EnvelopeEvent.FAILED): EnvelopeState.GONE,
    (EnvelopeState.DELETING, EnvelopeEvent.OUTCOME_UNKNOWN): EnvelopeState.DELETING,
    (EnvelopeState.DELETING, EnvelopeEvent.EXPIRED): EnvelopeState.GONE,
}
