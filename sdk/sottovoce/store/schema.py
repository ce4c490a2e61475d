"""The tables, as the steps that made them. A step, once released, is never changed; a new version appends one."""

from typing import Final

#: Stores of this version and below were written before the first release, with other tables. They cannot be read.
UNRELEASED: Final = 1
#: The first makes the tables of version UNRELEASED + 1 in an empty store (`PRAGMA user_version` 0), each further one
#: brings a store to the next version.
STEPS: Final = (
    """
    CREATE TABLE account (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        server TEXT NOT NULL,
        root_public BLOB NOT NULL,
        wrapped_root BLOB NOT NULL,           -- under a key that is not in this database
        device BLOB NOT NULL,
        device_list BLOB NOT NULL,
        registered INTEGER NOT NULL,          -- the keyserver has confirmed the account
        username TEXT,
        relay TEXT,                           -- origin of the relay that holds the queues
        request_counter INTEGER NOT NULL,     -- last counter used in a signed directory request
        contact_sequence INTEGER NOT NULL,    -- last sequence used in a contact record
        one_time_from INTEGER NOT NULL,       -- the keyserver is to hand out no one-time prekey with a smaller id
        published_at INTEGER NOT NULL         -- unix seconds of the last accepted publish
    );
    CREATE TABLE counter (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        store_id BLOB NOT NULL,               -- of the store and of every copy of it; names its witness
        count INTEGER NOT NULL,               -- openings, and times that the log was emptied
        is_witnessed INTEGER NOT NULL         -- the last opening left a witness
    );
    CREATE TABLE own_queues (
        kind TEXT PRIMARY KEY CHECK (kind IN ('intake', 'contact')),
        owner_seed BLOB NOT NULL,
        send_key BLOB NOT NULL,               -- that is handed out; the relay knows it
        key_class INTEGER NOT NULL,
        next_key BLOB                         -- that is to take its place, once the relay knows it
    );
    CREATE TABLE contact_keys_replaced (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        replaced_at INTEGER NOT NULL          -- unix seconds; a row as long as the relay may keep the old key
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
        device_list BLOB NOT NULL,
        is_contact INTEGER NOT NULL DEFAULT 0, -- the person has written to this account, or accepted its request
        is_blocked INTEGER NOT NULL DEFAULT 0, -- nothing of it is shown; never together with is_contact
        verified_at INTEGER,                  -- unix seconds when the person compared safety numbers
        forked_list BLOB,                     -- a second signed list for one place in the chain: nothing is sent
        announced INTEGER                     -- a newer version of its list, which the account itself has named
    ) WITHOUT ROWID;
    CREATE INDEX peers_blocked ON peers (account_id) WHERE is_blocked;
    CREATE INDEX peers_behind ON peers (announced) WHERE announced IS NOT NULL;
    CREATE TABLE peer_names (
        username TEXT PRIMARY KEY,
        account_id BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX peer_names_of_account ON peer_names (account_id, username);
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
        address_confirmed INTEGER NOT NULL,
        replaced_at INTEGER,                  -- unix seconds; NULL for the one that sends. The other times likewise
        heard_at INTEGER NOT NULL,            -- when something came last, or when it was made
        failures INTEGER NOT NULL,            -- messages under known tags that did not open since the last that did
        owed INTEGER NOT NULL,                -- messages that came since this side's last, and when the answer is due
        answer_by INTEGER,
        silent INTEGER NOT NULL,              -- messages sent since the last that came, and when the first of them was
        silent_since INTEGER,
        told_from INTEGER                     -- the peer's chain from which on it knows this address; NULL: not told
    ) WITHOUT ROWID;
    CREATE INDEX sessions_of_device ON sessions (account_id, device_id, generation, session_id);
    CREATE INDEX sessions_heard ON sessions (heard_at);
    CREATE INDEX sessions_owing ON sessions (answer_by, owed) WHERE answer_by IS NOT NULL;
    CREATE TABLE skipped_keys (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        session_id BLOB NOT NULL,
        chain INTEGER NOT NULL,
        number INTEGER NOT NULL,
        tag BLOB NOT NULL,
        header_key BLOB NOT NULL,
        key BLOB NOT NULL,
        stored_at INTEGER NOT NULL,           -- unix seconds
        UNIQUE (session_id, chain, number)
    );
    CREATE INDEX skipped_keys_of_session ON skipped_keys (session_id, position);
    CREATE INDEX skipped_keys_by_age ON skipped_keys (stored_at);
    CREATE TABLE skipped_given_up (
        session_id BLOB PRIMARY KEY,
        chain INTEGER NOT NULL,               -- the newest chain of which keys were given up,
        number INTEGER NOT NULL               -- and the greatest number
    ) WITHOUT ROWID;
    CREATE TABLE wanted_handshakes (
        account_id BLOB NOT NULL,
        device_id BLOB NOT NULL,
        reason TEXT NOT NULL,
        wanted INTEGER NOT NULL,
        last_at INTEGER,                      -- unix seconds of the last handshake for this reason
        PRIMARY KEY (account_id, device_id, reason)
    ) WITHOUT ROWID;
    CREATE INDEX wanted_handshakes_open ON wanted_handshakes (account_id) WHERE wanted = 1;
    CREATE TABLE held_messages (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        digest BLOB NOT NULL,
        size INTEGER NOT NULL,
        tag BLOB NOT NULL,
        held_at INTEGER NOT NULL,             -- unix seconds
        searched INTEGER NOT NULL,            -- every session's header keys were tried
        session_id BLOB,                      -- whose budget of steps it waits for
        retry_at INTEGER NOT NULL             -- unix seconds, and until then
    );
    CREATE TABLE held_bodies (                -- apart, so that a look at all that is held reads none of them
        position INTEGER PRIMARY KEY,
        message BLOB NOT NULL
    );
    CREATE TRIGGER held_message_gone AFTER DELETE ON held_messages
        BEGIN DELETE FROM held_bodies WHERE position = old.position; END;
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
        is_request INTEGER NOT NULL,          -- from somebody whom the person has not accepted yet
        attempts INTEGER NOT NULL DEFAULT 0,  -- how often it was handed to the application
        handled INTEGER NOT NULL DEFAULT 0,
        UNIQUE (account_id, message_id)
    );
    CREATE INDEX messages_unhandled ON messages (position) WHERE handled = 0 AND is_request = 0;
    CREATE INDEX messages_requests ON messages (account_id, position) WHERE is_request = 1;
    CREATE TABLE requests (
        account_id BLOB PRIMARY KEY,
        messages INTEGER NOT NULL,            -- of it in `messages` that wait to be accepted, and their text's bytes
        bytes INTEGER NOT NULL,
        dropped INTEGER NOT NULL              -- messages that were not kept, for there were too many
    ) WITHOUT ROWID;
    CREATE TABLE events (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        subject TEXT NOT NULL,                -- the account or message that it is about, or nothing
        event BLOB NOT NULL,
        is_told INTEGER NOT NULL DEFAULT 0    -- the application has it in hand: it says no more than it has said
    );
    CREATE UNIQUE INDEX events_untold ON events (kind, subject) WHERE is_told = 0;
    CREATE INDEX events_of_kind ON events (kind, position);
    CREATE TABLE sent_messages (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        message_id BLOB NOT NULL UNIQUE,
        account_id BLOB NOT NULL,
        devices BLOB NOT NULL,                -- the ids of those that it was encrypted for, one after the other
        text TEXT,                            -- until the first receipt, or a week: it may be sent once more
        ttl INTEGER NOT NULL,
        sent_at INTEGER NOT NULL,             -- milliseconds, as in the message; the other times likewise
        delivered_at INTEGER,                 -- of the first receipt
        read_at INTEGER,
        failure TEXT,                         -- why a device will not get it
        repeats INTEGER NOT NULL DEFAULT 0    -- how often it was sent once more
    );
    CREATE INDEX sent_messages_by_age ON sent_messages (sent_at);
    CREATE INDEX sent_messages_with_text ON sent_messages (account_id, position) WHERE text IS NOT NULL;
    CREATE TABLE wanted_repeats (
        account_id BLOB NOT NULL,
        device_id BLOB NOT NULL,
        after INTEGER NOT NULL,               -- of sent_messages those behind this position,
        upto INTEGER NOT NULL,                -- and up to this one
        due_at INTEGER,                       -- unix seconds; NULL until the device is heard
        PRIMARY KEY (account_id, device_id)
    ) WITHOUT ROWID;
    CREATE TABLE receipts_due (
        position INTEGER PRIMARY KEY,
        account_id BLOB NOT NULL,
        message_id BLOB NOT NULL,
        kind INTEGER NOT NULL,                -- content.ReceiptKind
        due_at INTEGER NOT NULL,              -- milliseconds
        UNIQUE (message_id, account_id)
    );
    CREATE INDEX receipts_due_of_account ON receipts_due (account_id, position); -- not of kind, which changes
    CREATE TABLE envelopes_seen (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        digest BLOB NOT NULL UNIQUE
    );
    CREATE TABLE messages_opened (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        digest BLOB NOT NULL UNIQUE           -- of the message's first bytes, which no two share
    );
    CREATE TABLE undecryptable (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        digest BLOB NOT NULL,
        reason TEXT NOT NULL,
        received_at INTEGER NOT NULL
    );
    CREATE INDEX undecryptable_of_reason ON undecryptable (reason, position);
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
        refused INTEGER NOT NULL DEFAULT 0,   -- the relay does not know the address: it waits for another
        body BLOB NOT NULL
    );
    CREATE INDEX outbox_refused ON outbox (account_id, device_id) WHERE refused = 1;
    CREATE INDEX outbox_of_origin ON outbox (origin, position);
    CREATE INDEX outbox_of_message ON outbox (message_id);
    CREATE INDEX outbox_of_device ON outbox (account_id, device_id, position) WHERE refused = 0;
    """,
)
VERSION: Final = UNRELEASED + len(STEPS)
