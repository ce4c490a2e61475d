"""The tables, as the steps that made them. A step, once released, is never changed; a new version appends one."""

from typing import Final

#: Step n brings a store of version n - 1 to version n (`PRAGMA user_version`).
STEPS: Final = (
    """
    CREATE TABLE account (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        server TEXT NOT NULL,
        root_entropy BLOB NOT NULL,
        device BLOB NOT NULL,
        device_list BLOB NOT NULL,
        registered INTEGER NOT NULL,          -- the keyserver has confirmed the account
        username TEXT,
        relay TEXT,                           -- origin of the relay that holds the queues
        request_counter INTEGER NOT NULL,     -- last counter used in a signed directory request
        contact_sequence INTEGER NOT NULL,    -- last sequence used in a contact record
        published_at INTEGER NOT NULL         -- unix seconds of the last accepted publish
    );
    CREATE TABLE own_queues (
        kind TEXT PRIMARY KEY CHECK (kind IN ('intake', 'contact')),
        owner_seed BLOB NOT NULL,
        send_key BLOB NOT NULL,
        key_class INTEGER NOT NULL
    );
    CREATE TABLE prekeys (
        record_id INTEGER PRIMARY KEY,
        state BLOB NOT NULL,
        created INTEGER NOT NULL,
        replaced INTEGER                      -- unix seconds when a newer record was accepted; NULL for the current one
    );
    CREATE TABLE one_time_prekeys (
        id INTEGER PRIMARY KEY AUTOINCREMENT, -- an id is never used again
        state BLOB,
        published INTEGER NOT NULL DEFAULT 0  -- the keyserver has it: it is not uploaded again, even if handed out
    );
    CREATE TABLE peers (
        account_id BLOB PRIMARY KEY,
        root_public BLOB NOT NULL,
        device_list BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE peer_names (
        username TEXT PRIMARY KEY,
        account_id BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE peer_addresses (
        account_id BLOB NOT NULL,
        device_id BLOB NOT NULL,
        origin TEXT NOT NULL,
        queue BLOB NOT NULL,
        send_key BLOB NOT NULL,
        key_class INTEGER NOT NULL,
        PRIMARY KEY (account_id, device_id)
    ) WITHOUT ROWID;
    CREATE TABLE sessions (
        session_id BLOB PRIMARY KEY,
        account_id BLOB NOT NULL,
        device_id BLOB NOT NULL,
        generation INTEGER NOT NULL,
        ratchet BLOB NOT NULL,
        handshake BLOB,                       -- with prekey_record: repeated until the peer answers
        prekey_record BLOB,
        address_confirmed INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX sessions_of_device ON sessions (account_id, device_id, generation, session_id);
    CREATE TABLE skipped_keys (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        session_id BLOB NOT NULL,
        ratchet_key BLOB NOT NULL,
        number INTEGER NOT NULL,
        key BLOB NOT NULL,
        UNIQUE (session_id, ratchet_key, number)
    );
    CREATE INDEX skipped_keys_of_session ON skipped_keys (session_id, position);
    CREATE TABLE accepted_handshakes (
        digest BLOB PRIMARY KEY,
        session_id BLOB NOT NULL,
        record_id INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX accepted_handshakes_of_record ON accepted_handshakes (record_id);
    CREATE TABLE messages (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        message_id BLOB NOT NULL,
        account_id BLOB NOT NULL,
        device_id BLOB NOT NULL,
        text TEXT NOT NULL,
        sent_at INTEGER NOT NULL,
        received_at INTEGER NOT NULL,
        handled INTEGER NOT NULL DEFAULT 0,
        UNIQUE (account_id, message_id)
    );
    CREATE INDEX messages_unhandled ON messages (position) WHERE handled = 0;
    CREATE TABLE envelopes_seen (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        digest BLOB NOT NULL UNIQUE
    );
    CREATE TABLE undecryptable (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        digest BLOB NOT NULL,
        reason TEXT NOT NULL,
        received_at INTEGER NOT NULL
    );
    CREATE TABLE outbox (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        message_id BLOB NOT NULL,
        account_id BLOB NOT NULL,
        device_id BLOB NOT NULL,
        envelope_id BLOB NOT NULL,
        origin TEXT NOT NULL,
        queue BLOB NOT NULL,
        send_key BLOB NOT NULL,
        key_class INTEGER NOT NULL,
        ttl INTEGER NOT NULL,
        expires INTEGER NOT NULL,             -- unix seconds; nothing waits longer than a relay would keep it
        body BLOB NOT NULL
    );
    CREATE INDEX outbox_of_origin ON outbox (origin, position);
    CREATE INDEX outbox_of_message ON outbox (message_id);
    CREATE TABLE failed_deliveries (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        message_id BLOB NOT NULL,
        account_id BLOB NOT NULL,
        device_id BLOB NOT NULL,
        code INTEGER NOT NULL                 -- the relay's reason
    );
    CREATE INDEX failed_deliveries_of_message ON failed_deliveries (message_id);
    """,
)
VERSION: Final = len(STEPS)
