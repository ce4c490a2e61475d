"""What owners do: make queues and send keys, take them away, prove that they are there.

Who may is the connection's matter.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, Integer, bindparam, delete, insert, select, update

from sottovoce_wire import limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import KeyClass, NewSendKey
from sottovoce_wire.ids import QueueId, SendKeyHash

from .tables import queues, send_keys

_SELECT_OWNER: Final = select(queues.c.number, queues.c.owner_key, queues.c.seen_day).where(
    queues.c.id == bindparam("queue")
)
_SELECT_ID: Final = select(queues.c.id).where(queues.c.number == bindparam("number"))
_SELECT_KEYS: Final = select(send_keys.c.door).where(send_keys.c.queue == bindparam("number"))
DELETE_KEY: Final = delete(send_keys).where(send_keys.c.door == bindparam("door"))
_DELETE_KEYS: Final = delete(send_keys).where(send_keys.c.queue == bindparam("number"))
_DEMOTE_KEY: Final = (
    update(send_keys)
    .where(send_keys.c.door == bindparam("which"), send_keys.c.dies_at.is_(None))
    .values(dies_at=bindparam("dies_at"))
)
_UPDATE_TOLD: Final = (
    update(queues)
    .where(queues.c.id == bindparam("queue"), queues.c.expired_told < bindparam("told"))
    .values(expired_told=bindparam("told"))
)
_UPDATE_SEEN: Final = (
    update(queues)
    .where(queues.c.number == bindparam("which"), queues.c.seen_day < bindparam("day"))
    .values(seen_day=bindparam("day", type_=Integer))
)
_BURY: Final = update(queues).where(queues.c.number == bindparam("which")).values(id=None, seen_day=0)


class Owned(NamedTuple):
    """What became of a proof: ACCEPTED with the queue's number, or another code and 0."""

    code: Code
    number: int = 0
    is_current: bool = False  # it has the send keys that were named, and its owner was seen today


def find_queue(connection: Connection, queue: QueueId, owner_key: bytes, keys: Sequence[NewSendKey], day: int) -> Owned:
    """The queue, if it exists and belongs to this key: ACCEPTED or UNKNOWN_QUEUE."""
    row = connection.execute(_SELECT_OWNER, {"queue": queue}).first()
    if row is None or row.owner_key != owner_key:
        return Owned(Code.UNKNOWN_QUEUE)
    missing, _ = _missing_keys(connection, queue, row.number, keys)
    return Owned(Code.ACCEPTED, row.number, row.seen_day >= day and not missing)


def create_queue(
    connection: Connection, queue: QueueId, owner_key: bytes, keys: Sequence[NewSendKey], day: int
) -> Owned:
    """Create the queue unless it is there, and add the keys that are missing: ACCEPTED or TOO_MANY_SEND_KEYS."""
    row = connection.execute(_SELECT_OWNER, {"queue": queue}).first()
    if row is not None:
        number = row.number
    else:
        new = {"id": queue, "owner_key": owner_key, "seen_day": day, "expired": 0, "expired_told": 0}
        made = connection.execute(insert(queues), new).inserted_primary_key
        number = made[0] if made else 0
    return Owned(refresh_queue(connection, queue, number, keys, day), number, is_current=True)


def refresh_queue(connection: Connection, queue: QueueId, number: int, keys: Sequence[NewSendKey], day: int) -> Code:
    """Its owner was here today, and it has these keys: ACCEPTED, or why not, as `add_send_keys` says."""
    seen_all(connection, [number], day)
    return add_send_keys(connection, queue, number, keys)


def seen_all(connection: Connection, numbers: Sequence[int], day: int) -> None:
    """Their owners were here on this day."""
    if numbers:
        connection.execute(_UPDATE_SEEN, [{"which": number, "day": day} for number in numbers])


def add_send_keys(connection: Connection, queue: QueueId, number: int, keys: Sequence[NewSendKey]) -> Code:
    """Add the keys that are missing; one that is there keeps its class. ACCEPTED, or TOO_MANY_SEND_KEYS for all.

    UNKNOWN_QUEUE if it was deleted meanwhile.
    """
    if connection.execute(_SELECT_ID, {"number": number}).scalar() != queue:
        return Code.UNKNOWN_QUEUE
    missing, known = _missing_keys(connection, queue, number, keys)
    if known + len(missing) > limits.MAX_SEND_KEYS:
        return Code.TOO_MANY_SEND_KEYS
    if missing:
        rows = [{"door": door, "queue": number, "key_class": key_class} for door, key_class in missing.items()]
        connection.execute(insert(send_keys), rows)
    return Code.ACCEPTED


def _missing_keys(
    connection: Connection, queue: QueueId, number: int, keys: Sequence[NewSendKey]
) -> tuple[dict[bytes, KeyClass], int]:
    """Those of these keys that the queue does not have, by door, and how many it has."""
    known = set(connection.execute(_SELECT_KEYS, {"number": number}).scalars())
    named = {queue + key.key_hash: key.key_class for key in reversed(keys)}
    return {door: key_class for door, key_class in named.items() if door not in known}, len(known)


def revoke_send_key(connection: Connection, queue: QueueId, key_hash: SendKeyHash) -> Code:
    """Forget a send key. ACCEPTED, also when it was not there."""
    connection.execute(DELETE_KEY, {"door": queue + key_hash})
    return Code.ACCEPTED


def demote_send_key(connection: Connection, queue: QueueId, key_hash: SendKeyHash, dies_at: int) -> Code:
    """Give a send key a stranger's quota and a time to die. ACCEPTED, also if it was demoted before or is not there."""
    connection.execute(_DEMOTE_KEY, {"which": queue + key_hash, "dies_at": dies_at})
    return Code.ACCEPTED


def delete_queue(connection: Connection, number: int) -> Code:
    """Make the queue unknown; its envelopes are swept afterwards. ACCEPTED."""
    connection.execute(_DELETE_KEYS, {"number": number})
    connection.execute(_BURY, {"which": number})
    return Code.ACCEPTED


def delete_queue_of(connection: Connection, queue: QueueId) -> Code:
    """The same for whichever queue has this id now: it may have been deleted and made anew since its owner proved it.
    ACCEPTED, also when there is none."""
    row = connection.execute(_SELECT_OWNER, {"queue": queue}).first()
    return Code.ACCEPTED if row is None else delete_queue(connection, row.number)


def told_expired(connection: Connection, queue: QueueId, total: int) -> Code:
    """The owner knows of `total` expired envelopes. ACCEPTED."""
    connection.execute(_UPDATE_TOLD, {"queue": queue, "told": total})
    return Code.ACCEPTED
