"""What a relay's database holds, in numbers that name nobody: for whoever runs the relay."""

from sqlalchemy import Connection, func, select

from .storage import bodies, envelopes, queues, send_keys


def statistics(connection: Connection) -> dict[str, int]:
    """Counts of queues, send keys and envelopes; the bytes of all envelopes; and how many bodies several of them
    share."""
    counts = {
        "queues": select(func.count()).select_from(queues).where(queues.c.id.is_not(None)),
        "send_keys": select(func.count()).select_from(send_keys),
        "envelopes": select(func.count()).select_from(envelopes),
        "envelope_bytes": select(func.coalesce(func.sum(envelopes.c.size), 0)),
        "shared_bodies": select(func.count()).select_from(bodies),
    }
    return {name: int(connection.execute(query).scalar_one()) for name, query in counts.items()}
