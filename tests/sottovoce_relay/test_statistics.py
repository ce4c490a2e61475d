"""The statistics count what is there."""

from sqlalchemy import create_engine, insert

from sottovoce_relay.statistics import statistics
from sottovoce_relay.storage import bodies, envelopes, metadata, queues, send_keys

QUEUE = {"owner_key": bytes(32), "seen_day": 0, "expired": 0, "expired_told": 0}
ENVELOPE = {"queue": 1, "key_class": 1, "is_limited": 0, "expires_at": 0}


def test_queues_keys_envelopes_and_bytes_are_counted_and_deleted_queues_are_not() -> None:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        metadata.create_all(connection)
        nothing = dict.fromkeys(("queues", "send_keys", "envelopes", "envelope_bytes", "shared_bodies"), 0)
        assert statistics(connection) == nothing
        connection.execute(insert(queues), [{**QUEUE, "id": bytes([n]) * 16} for n in range(3)])
        connection.execute(insert(queues), [{**QUEUE, "id": None}])
        connection.execute(insert(send_keys), [{"door": bytes([n]) * 48, "queue": 1, "key_class": 1} for n in range(5)])
        connection.execute(insert(bodies), [{"id": 7, "body": bytes(500)}])
        connection.execute(
            insert(envelopes),
            [
                {**ENVELOPE, "seq": 1, "name": bytes(16), "size": 300, "body": bytes(300), "shared": None},
                {**ENVELOPE, "seq": 2, "name": bytes([1]) * 16, "size": 500, "body": None, "shared": 7},
            ],
        )
        assert statistics(connection) == {
            "queues": 3,
            "send_keys": 5,
            "envelopes": 2,
            "envelope_bytes": 800,
            "shared_bodies": 1,
        }
    engine.dispose()
