"""People for the SDK's tests: each with a real encrypted store, and no network between them."""

from dataclasses import dataclass
from pathlib import Path

from sottovoce.crypto import identity
from sottovoce.crypto.prekeys import OwnPrekeys, open_prekeys
from sottovoce.local import now_ms
from sottovoce.protocol import contacts, healing, sessions
from sottovoce.protocol.content import Text
from sottovoce.protocol.opening import Opener
from sottovoce.protocol.reading import Outcome
from sottovoce.protocol.routing import Found
from sottovoce.protocol.state import Address, Outgoing, Own, Peer, Session
from sottovoce.registration import ROTATE_AFTER, own_of, prepare
from sottovoce.store.account import INTAKE
from sottovoce.store.database import Store, Tables, open_store
from sottovoce_wire.frames import KeyClass, Ttl
from sottovoce_wire.ids import MessageId

ORIGIN = "http://127.0.0.1:8480"


@dataclass
class Person:
    """One device on a store of its own. `now` is unix seconds."""

    store: Store
    own: Own
    opener: Opener
    sent: int = 0

    def peer(self) -> Peer:
        return Peer(self.own.account_id, self.own.root_public, self.own.device_list)

    def bundle(self, now: int, *, one_time: bool = True) -> sessions.Bundle:
        """What a keyserver would hand out; the one-time prekey is handed out once."""
        with self.store.transaction() as tables:
            current = tables.prekeys.current()
            assert current is not None
            if now - current.created >= ROTATE_AFTER:
                current = OwnPrekeys.generate(self.own.device, self.own.account_id, current.record_id + 1, now)
                tables.prekeys.add(current)
            prekeys = tables.prekeys.unpublished(1)
            tables.prekeys.mark_published(prekeys[0].id)
            intake = tables.account.queue(INTAKE)
        entry = identity.open_device_list(self.own.root_public, self.own.device_list).devices[0]
        return sessions.Bundle(
            self.own.account_id,
            entry,
            current.record,
            open_prekeys(entry, self.own.account_id, current.record, now),
            (prekeys[0].id, prekeys[0].public) if one_time else None,
            Address(ORIGIN, intake.owner.queue_id, intake.send_key, KeyClass.STRANGER),
        )

    def meet(self, other: "Person", now: int, *, one_time: bool = True) -> None:
        """Start a session with `other` from its bundle."""
        bundle = other.bundle(now, one_time=one_time)
        with self.store.transaction() as tables:
            tables.peers.put(other.peer())
            sessions.start(tables, self.own, bundle, now)

    def write(self, other: "Person", text: str, now: int) -> Outgoing:
        """Encrypt a text for the other's one device."""
        self.sent += 1
        content = Text(MessageId(self.sent.to_bytes(16, "big")), now * 1000, text)
        with self.store.transaction() as tables:
            contacts.accept(tables, other.own.account_id)
            found = sessions.fan_out(tables, self.own, other.own.account_id, content, Ttl.MONTH, now)
        assert len(found) == 1
        return found[0]

    def skip(self, other: "Person", count: int, now: int, *, typing: int = 0) -> None:
        """Use up numbers for messages that nobody gets: `count` ordinary ones, `typing` ephemeral ones."""
        with self.store.transaction():
            self.skip_within(other, now, count, typing)

    def skip_within(self, other: "Person", now: int, count: int = 1, typing: int = 0) -> None:
        """The same within a transaction."""
        session = self.sending(other)
        for _ in range(count):
            session.ratchet.encrypt(b"never", now)
        for _ in range(typing):
            session.ratchet.encrypt_ephemeral(b"typing")
        self.store._tables.sessions.put(session)

    def sending(self, other: "Person") -> Session:
        """The session that sends to the other's device. Within or without a transaction; only to look at, without."""
        found = self.store._tables.sessions.sending(other.own.account_id, other.own.device.device_id)
        assert found is not None
        return found

    def mend(self, other: "Person", now: int) -> list[Outgoing]:
        """Make the handshakes that are wanted, and give the answers that are due."""
        device = other.own.account_id, other.own.device.device_id
        with self.store.transaction() as tables:
            self.opener.tend(tables, now * 1000)
            healing.notice_silence(tables, now)
            wanted = device in tables.wants.of_contacts()
        if wanted:
            self.meet(other, now)
        with self.store.transaction() as tables:
            due = [*([device] if wanted else []), *healing.answers_due(tables, now)]
            found = [sessions.acknowledge(tables, self.own, *each, now) for each in due]
        return [envelope for envelope in found if envelope is not None]

    def lose_sessions(self) -> None:
        """What a store is like that was put back from before it had any session."""
        with self.store.transaction() as tables:
            for name in ("sessions", "skipped_keys", "accepted_handshakes", "held_messages", "wanted_handshakes"):
                tables.sessions._execute(f"DELETE FROM {name}")  # noqa: S608 - fixed names
        self.store._tables.sessions._unpacked.clear()
        self.store._routing = None

    def tags(self) -> dict[bytes, Found | None]:
        """The table of tags, as it stands."""
        routing = self.store._derive()
        return {tag: routing.find(tag) for tag in routing._tags}

    def derived_tags(self) -> dict[bytes, Found | None]:
        """The table of tags, made from the rows again."""
        self.store._routing = None
        return self.tags()

    def read(self, envelope: Outgoing | bytes, now: int, *, intake: bool = False) -> Outcome:
        """Take in an envelope, from the queue that it was sent to; bare bytes from the contact queue or the intake."""
        body = envelope.body if isinstance(envelope, Outgoing) else envelope
        if isinstance(envelope, Outgoing):
            intake = envelope.address.key_class is KeyClass.STRANGER
        with self.store.transaction() as tables:
            return self.opener.receive(tables, body, now * 1000, sealed_only=intake)

    def texts(self) -> list[str]:
        """Every text received so far, in order, accepted or not."""
        with self.store.transaction() as tables:
            return [text for (text,) in tables.inbox._execute("SELECT text FROM messages ORDER BY position")]

    def undecryptable(self) -> list[str]:
        """The reasons of what could not be read."""
        with self.store.transaction() as tables:
            return [reason for reason, _ in tables.inbox.undecryptable()]

    def dump(self) -> list[tuple[object, ...]]:
        """Every row of every table that a refused envelope must not touch."""
        with self.store.transaction() as tables:
            return _rows(tables)


_UNTOUCHED = (
    "account",
    "own_queues",
    "prekeys",
    "one_time_prekeys",
    "peers",
    "peer_addresses",
    "sessions",
    "skipped_keys",
    "accepted_handshakes",
    "messages",
    "outbox",
)
#: Where the failures stand in a row of `sessions` that begins with the table's name.
_FAILURES = 11


def _rows(tables: Tables) -> list[tuple[object, ...]]:
    """All but the count of failures, which is what a message that does not open may change."""
    execute = tables.sessions._execute
    rows = [
        (name, *row)
        for name in _UNTOUCHED
        for row in execute(f"SELECT * FROM {name} ORDER BY 1")  # noqa: S608 - fixed names
    ]
    return [(*row[:_FAILURES], *row[_FAILURES + 1 :]) if row[0] == "sessions" else row for row in rows]


def make_person(path: Path) -> Person:
    """A new device with a new account on a new store."""
    store = open_store(path)
    with store.transaction() as tables:
        own = own_of(tables, prepare(tables, ORIGIN, ORIGIN, now_ms() // 1000))
    return Person(store, own, Opener(own))
