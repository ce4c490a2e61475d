"""What a relay keeps of queues and envelopes: these columns and no others."""

from sottovoce_relay import storage

#: A column that is not here tells a thief of the disk more than `protocol-spec/relay.md` says.
KEPT = {
    "queues": {"number", "id", "owner_key", "seen_day", "expired", "expired_told"},
    "send_keys": {"door", "queue", "key_class", "dies_at"},
    "bodies": {"id", "body"},
    "envelopes": {
        "seq", "queue", "name", "key_class", "is_limited", "invite", "expires_at", "size", "shared", "body",
    },
}  # fmt: skip


def test_nothing_else_is_kept_of_queues_and_envelopes() -> None:
    tables = {table.name: {column.name for column in table.columns} for table in storage.metadata.tables.values()}
    assert tables == KEPT
