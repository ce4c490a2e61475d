"""Two people without a network whose stores are put to the test: one writes and receives as a client does, and knows
what it was told is durable.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from sottovoce.crypto import primitives
from sottovoce.protocol import contacts, sessions
from sottovoce.protocol.content import Text
from sottovoce.protocol.opening import Opener
from sottovoce.protocol.state import Own
from sottovoce.store.database import open_store
from sottovoce_wire.frames import Ttl
from sottovoce_wire.ids import MessageId
from tests.sottovoce.people import Person

NOW: Final = 1_800_000_000
PAGE: Final = 3


@contextmanager
def keys_used() -> Iterator[list[bytes]]:
    """The message keys that anybody encrypts under while the block runs, in order."""
    used: list[bytes] = []
    genuine = primitives.encrypt

    def encrypt(key: bytes, nonce: bytes, plaintext: bytes, associated_data: bytes) -> bytes:
        used.append(key)
        return genuine(key, nonce, plaintext, associated_data)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(primitives, "encrypt", encrypt)
        yield used


@dataclass
class Said:
    """What was reported durable until now: bodies in the outbox, the keys that they used, envelopes received, and how
    many messages are handled."""

    sent: list[bytes] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)
    handled: int = 0


class Conversation:
    """Alice, who is put to the test, and Bob; `keys` are those used. `coming` is all that Bob ever sent."""

    def __init__(self, alice: Person, bob: Person, keys: list[bytes]) -> None:
        self.alice, self.bob, self.keys = alice, bob, keys
        self.said = Said()
        self.coming: list[bytes] = []
        befriend(alice, bob)
        befriend(bob, alice)
        alice.meet(bob, NOW)

    def write(self) -> None:
        """Alice writes: the message and the state that it used, in one transaction. Bob reads it at once."""
        self.alice.sent += 1
        content = Text(MessageId(self.alice.sent.to_bytes(16, "big")), NOW * 1000, "to Bob")
        own, account_id = self.alice.own, self.bob.own.account_id
        with self.alice.store.transaction() as tables:
            (envelope,) = sessions.fan_out(tables, own, account_id, content, Ttl.MONTH, NOW)
            tables.outbox.add(envelope, NOW)
        self.said.sent.append(envelope.body)
        self.said.keys.append(self.keys[-1])
        self.bob.read(envelope, NOW)

    def answer(self) -> None:
        """Bob writes a page."""
        start = len(self.coming)
        self.coming += [self.bob.write(self.alice, f"to Alice {start + n}", NOW).body for n in range(PAGE)]

    def receive(self) -> None:
        """Alice takes in what has come since, in one transaction."""
        take_in(self.alice, self.coming[len(self.said.received) :])
        self.said.received = self.coming.copy()

    def mark(self) -> None:
        """Alice marks the next message as handled."""
        with self.alice.store.transaction() as tables:
            tables.inbox.mark_handled(tables.inbox.unhandled(1)[0].position)
        self.said.handled += 1

    def complaints(self, alice: Person) -> list[str]:
        """What is wrong with Alice's store, as it stands now or was left behind."""
        said, kept = self.said, self.keys.copy()
        found = ["it is taken for a copy"] if alice.store.is_restored else []
        bodies = outbox(alice)
        if bodies[: len(said.sent)] != said.sent or len(bodies) > len(said.sent) + 1:
            found.append(f"{len(said.sent)} messages were safe in the outbox, {len(bodies)} are there")
        if alice.texts()[: len(said.received)] != texts(len(said.received)):
            found.append("what was confirmed to the relay is not there")
        if handled(alice) < said.handled:
            found.append("what was marked as handled is not")
        if not write_on(alice, self.bob):
            found.append("a session is gone")
        elif self.keys[-1] in said.keys:
            found.append("a key that was used on the wire is used again")
        take_in(alice, self.coming)  # the relay says all of it again
        if alice.texts() != texts(len(self.coming)) or alice.undecryptable():
            found.append(f"of {len(self.coming)} messages {len(alice.texts())} are there")
        self.keys[:] = kept
        return found


def texts(count: int) -> list[str]:
    """What Bob has said in so many envelopes."""
    return [f"to Alice {number}" for number in range(count)]


def befriend(person: Person, other: Person) -> None:
    with person.store.transaction() as tables:
        tables.peers.put(other.peer())
        contacts.accept(tables, other.own.account_id)


def take_in(person: Person, page: list[bytes]) -> None:
    with person.store.transaction() as tables:
        for envelope in page:
            person.opener.receive(tables, envelope, NOW * 1000, sealed_only=False)


def outbox(person: Person) -> list[bytes]:
    """The bodies that wait, in order."""
    with person.store.transaction() as tables:
        return [body for (body,) in tables.outbox._execute("SELECT body FROM outbox ORDER BY position")]


def handled(person: Person) -> int:
    """How many messages are marked as handled."""
    with person.store.transaction() as tables:
        return len(tables.inbox._execute("SELECT 1 FROM messages WHERE handled").fetchall())


def write_on(person: Person, other: Person) -> bool:
    """Write a message more, for nobody; False if there is no session to write it on."""
    with person.store.transaction() as tables:
        text = Text(MessageId(bytes(16)), NOW * 1000, "the next")
        return bool(sessions.fan_out(tables, person.own, other.own.account_id, text, Ttl.MONTH, NOW))


def reopen(path: Path, own: Own, state: Path | None = None) -> Person:
    """Whoever has the intact store at `path`, with its witness in `state`."""
    store = open_store(path, state=state)
    assert store.pragma("integrity_check") == "ok"
    return Person(store, own, Opener(own))
