"""A store on a disk that loses power between any two writes: what was reported durable is there, no key comes twice.

At each moment the files are looked at as a cut would leave them, in several ways, and opened as a store.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sottovoce import errors
from sottovoce.crypto.message_key import MessageKey
from sottovoce.protocol import contacts, sessions
from sottovoce.protocol.content import Text
from sottovoce.protocol.opening import Opener
from sottovoce.protocol.state import Outgoing
from sottovoce.registration import own_of, prepare
from sottovoce.store import database
from sottovoce.store.database import open_store
from sottovoce.store.keyfile import key_path
from sottovoce_wire.frames import Ttl
from sottovoce_wire.ids import MessageId
from tests.faults import scale
from tests.sottovoce.people import ORIGIN, Person, make_person
from tests.sottovoce.store.power import Cut, Disk, disk_at

NOW = 1_800_000_000
#: Every so many moments are looked at; each in the full run.
STRIDE = 1 if scale.FULL else 29
PAGE = 3


def send(person: Person, other: Person, text: str) -> Outgoing:
    """As a client sends: the message and the state that it used, in one transaction."""
    person.sent += 1
    content = Text(MessageId(person.sent.to_bytes(16, "big")), NOW * 1000, text)
    with person.store.transaction() as tables:
        (envelope,) = sessions.fan_out(tables, person.own, other.own.account_id, content, Ttl.MONTH, NOW)
        tables.outbox.add(envelope, NOW)
    return envelope


def take_in(person: Person, page: list[bytes]) -> None:
    """As a client receives: a page in one transaction."""
    with person.store.transaction() as tables:
        for envelope in page:
            person.opener.receive(tables, envelope, NOW * 1000, sealed_only=False)


def befriend(person: Person, other: Person) -> None:
    with person.store.transaction() as tables:
        tables.peers.put(other.peer())
        contacts.accept(tables, other.own.account_id)


@dataclass
class Said:
    """What was reported durable until now: bodies in the outbox, the keys that they used, envelopes received."""

    sent: list[bytes] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)


class Conversation:
    """Alice on the disk, Bob on another; each writes, and Alice says what she was told is durable."""

    def __init__(self, alice: Person, bob: Person, keys: list[bytes]) -> None:
        self.alice, self.bob, self.keys = alice, bob, keys
        self.said = Said()
        self.coming: list[bytes] = []  # all that Bob ever sent, also what Alice has not confirmed
        befriend(alice, bob)
        befriend(bob, alice)
        alice.meet(bob, NOW)

    def turn(self, number: int) -> None:
        for half in ("first", "second"):
            envelope = send(self.alice, self.bob, f"to Bob {number}, {half} half")
            self.said.sent.append(envelope.body)
            self.said.keys.append(self.keys[-1])
            self.bob.read(envelope, NOW)
            if half == "first" and number % 4 == 1:  # in the middle of a chain, whose next key is then decided
                self.alice.store.tidy()
        page = [self.bob.write(self.alice, f"to Alice {number}.{n}", NOW).body for n in range(PAGE)]
        self.coming += page
        take_in(self.alice, page)
        self.said.received += page


@pytest.fixture
def keys_used(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The message keys that anybody encrypts under, in order."""
    used: list[bytes] = []
    genuine = MessageKey.encrypt

    def encrypt(self: MessageKey, nonce: bytes, plaintext: bytes, associated_data: bytes) -> bytes:
        used.append(self.key)
        return genuine(self, nonce, plaintext, associated_data)

    monkeypatch.setattr(MessageKey, "encrypt", encrypt)
    return used


def restore(disk: Disk, folder: Path, left: dict[str, bytes]) -> Path:
    """Put what a cut has left into a folder of its own."""
    folder.mkdir()
    for name, content in left.items():
        (folder / name).write_bytes(content)
    path = folder / "alice.db"
    key = key_path(disk.folder / "alice.db")
    if key.exists():
        key_path(path).write_bytes(key.read_bytes())
        key_path(path).chmod(0o600)
    return path


def reopen(path: Path) -> Person:
    store = open_store(path)
    assert store.pragma("integrity_check") == "ok"
    with store.transaction() as tables:
        own = own_of(tables, prepare(tables, ORIGIN, ORIGIN))
    return Person(store, own, Opener(own))


def complaints(conversation: Conversation, path: Path, keys: list[bytes]) -> list[str]:
    """What is wrong with the store that a cut has left at `path`."""
    said, found, kept = conversation.said, [], keys.copy()
    alice = reopen(path)
    try:
        with alice.store.transaction() as tables:
            bodies = [waiting.outgoing.body for waiting in tables.outbox.batch(ORIGIN, [])]
        if bodies[: len(said.sent)] != said.sent or len(bodies) > len(said.sent) + 1:
            found.append(f"{len(said.sent)} messages were safe in the outbox, {len(bodies)} are there")
        if alice.texts()[: len(said.received)] != texts(said.received):
            found.append("what was confirmed to the relay is not there")
        if not write_on(alice, conversation.bob):
            found.append("a session is gone")
        elif keys[-1] in said.keys:
            found.append("a key that was used on the wire is used again")
        take_in(alice, conversation.coming)  # the relay says all of it again
        if alice.texts() != texts(conversation.coming) or alice.undecryptable():
            found.append(f"of {len(conversation.coming)} messages {len(alice.texts())} are shown")
    finally:
        alice.store.close()
        keys[:] = kept
    return found


def write_on(person: Person, other: Person) -> bool:
    """Write a message more; False if there is no session to write it on."""
    with person.store.transaction() as tables:
        text = Text(MessageId(bytes(16)), NOW * 1000, "the next")
        return bool(sessions.fan_out(tables, person.own, other.own.account_id, text, Ttl.MONTH, NOW))


def texts(envelopes: list[bytes]) -> list[str]:
    """What Bob has said in so many envelopes."""
    return [f"to Alice {number // PAGE}.{number % PAGE}" for number in range(len(envelopes))]


@dataclass
class Watch:
    """Looks at the disk at every so many moments, in each of the ways in which power can go."""

    disk: Disk
    folder: Path
    look: Callable[[Path], list[str]]
    moments: int = 0
    looked: int = 0
    found: list[str] = field(default_factory=list)

    def __call__(self) -> None:
        self.moments += 1
        if self.moments % STRIDE:
            return
        seen: list[dict[str, bytes]] = []
        for cut in Cut:
            left = self.disk.after_power_cut(cut, self.moments)
            if left not in seen:
                seen.append(left)
                self._look(cut, left)

    def _look(self, cut: Cut, left: dict[str, bytes]) -> None:
        self.looked += 1
        try:
            complaints = self.look(restore(self.disk, self.folder / f"{self.looked}", left))
        except errors.StoreError as error:
            complaints = [f"the store cannot be opened: {error}"]
        self.found += [f"moment {self.moments}, {cut.value} is left: {complaint}" for complaint in complaints]


def talk_until_the_power_goes(folder: Path, keys: list[bytes], turns: int, synchronous: str | None = None) -> Watch:
    (folder / "cuts").mkdir()
    with disk_at(folder / "disk", synchronous=synchronous) as disk:
        alice, bob = make_person(disk.folder / "alice.db"), make_person(folder / "bob.db")
        conversation = Conversation(alice, bob, keys)
        watch = Watch(disk, folder / "cuts", lambda path: complaints(conversation, path, keys))
        disk.before = watch
        for number in range(turns):
            conversation.turn(number)
        disk.before = lambda: None
        alice.store.close()
        bob.store.close()
    return watch


def test_a_power_cut_between_any_two_writes_takes_back_nothing_that_was_reported(
    tmp_path: Path, keys_used: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "COMMITS_IN_LOG", 7)
    watch = talk_until_the_power_goes(tmp_path, keys_used, turns=40 if scale.FULL else 14)
    assert watch.found == []
    assert watch.looked > 2 * watch.moments // STRIDE, "most moments must have several things that a cut can leave"


@pytest.mark.parametrize(
    ("synchronous", "losses"),
    [("normal", ("are there", "confirmed", "used again")), ("off", ("are there", "confirmed", "is gone"))],
)
def test_the_watch_sees_what_a_store_loses_that_does_not_wait_for_the_disk(
    tmp_path: Path, keys_used: list[bytes], synchronous: str, losses: tuple[str, ...]
) -> None:
    watch = talk_until_the_power_goes(tmp_path, keys_used, turns=3, synchronous=synchronous)
    for loss in losses:
        assert any(loss in complaint for complaint in watch.found), loss


def test_a_power_cut_while_a_store_is_made_leaves_one_that_opens(tmp_path: Path) -> None:
    (tmp_path / "cuts").mkdir()

    def look(path: Path) -> list[str]:
        reopen(path).store.close()
        return []

    with disk_at(tmp_path / "disk") as disk:
        disk.before = watch = Watch(disk, tmp_path / "cuts", look)
        make_person(disk.folder / "alice.db").store.close()
        disk.before = lambda: None
    assert watch.looked
    assert watch.found == []
