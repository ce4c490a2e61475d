"""The relay's tables and every statement on them: plain functions of a SQLAlchemy connection, dialect-neutral Core.

Who calls them in which transaction is the writer's matter; who may ask, the connection's; whether there is room, the
intake's. No trio here, no frames.
"""

from .doors import Door, count_invites, last_seq, load_doors, load_fills
from .leaving import Expired
from .owners import (
    Owned,
    add_send_keys,
    create_queue,
    delete_queue,
    delete_queue_of,
    demote_send_key,
    find_queue,
    refresh_queue,
    revoke_send_key,
    seen_all,
    told_expired,
)
from .pages import read_page
from .sweeping import return_space, sweep, sweep_idle, sweep_keys, sweep_remains
from .tables import bodies, envelopes, metadata, queues, send_keys
from .writing import Written, write

__all__ = [
    "Door",
    "Expired",
    "Owned",
    "Written",
    "add_send_keys",
    "bodies",
    "count_invites",
    "create_queue",
    "delete_queue",
    "delete_queue_of",
    "demote_send_key",
    "envelopes",
    "find_queue",
    "last_seq",
    "load_doors",
    "load_fills",
    "metadata",
    "queues",
    "read_page",
    "refresh_queue",
    "return_space",
    "revoke_send_key",
    "seen_all",
    "send_keys",
    "sweep",
    "sweep_idle",
    "sweep_keys",
    "sweep_remains",
    "told_expired",
    "write",
]
