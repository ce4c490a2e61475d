"""Two people on real stores: what sessions carry, what is refused, and that a refusal changes nothing."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from sottovoce.crypto.ratchet import SkippedKey
from sottovoce.protocol import opening, sessions
from sottovoce.protocol.content import ContactAddress
from sottovoce.protocol.opening import Opener, Outcome
from sottovoce.protocol.state import Outgoing
from sottovoce.store import inbox
from sottovoce_wire.frames import KeyClass
from sottovoce_wire.ids import QueueId, SendKey
from tests.sottovoce.people import ORIGIN, Person

NOW = int(time.time())


@pytest.fixture
def talking(alice: Person, bob: Person) -> tuple[Person, Person]:
    """Alice has written, Bob has answered: both know where the other's contact queue is."""
    alice.meet(bob, NOW)
    assert bob.read(alice.write(bob, "hello", NOW), NOW) is Outcome.NEW
    assert alice.read(bob.write(alice, "hello back", NOW), NOW) is Outcome.NEW
    return alice, bob


def flip(envelope: bytes, at: int) -> bytes:
    return envelope[:at] + bytes([envelope[at] ^ 1]) + envelope[at + 1 :]


def test_every_message_before_the_first_answer_is_sealed_and_opens_one_session(alice: Person, bob: Person) -> None:
    alice.meet(bob, NOW)
    for number in range(5):
        envelope = alice.write(bob, f"line {number}", NOW)
        assert envelope.body[0] == 0x02
        assert envelope.address.key_class is KeyClass.STRANGER
        assert bob.read(envelope, NOW) is Outcome.NEW
    assert bob.texts() == [f"line {number}" for number in range(5)]
    with bob.store.transaction() as tables:
        assert len(tables.sessions.of_device(alice.own.account_id, alice.own.device.device_id)) == 1


def test_sealed_messages_arrive_in_any_order(alice: Person, bob: Person) -> None:
    alice.meet(bob, NOW)
    envelopes = [alice.write(bob, f"line {number}", NOW) for number in range(5)]
    for envelope in reversed(envelopes):
        assert bob.read(envelope, NOW) is Outcome.NEW
    assert sorted(bob.texts()) == [f"line {number}" for number in range(5)]


def test_an_answer_goes_to_the_contact_queue_and_ends_the_sealing(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    to_bob, to_alice = alice.write(bob, "a", NOW), bob.write(alice, "b", NOW)
    for envelope, reader in ((to_bob, bob), (to_alice, alice)):
        assert envelope.address.key_class is KeyClass.CONTACT
        assert envelope.address.queue == reader.own.contact.queue
        assert envelope.body[0] == 0x03
        assert reader.read(envelope, NOW) is Outcome.NEW


def test_a_handshake_without_a_one_time_prekey_works(alice: Person, bob: Person) -> None:
    alice.meet(bob, NOW, one_time=False)
    assert bob.read(alice.write(bob, "hello", NOW), NOW) is Outcome.NEW


def test_the_one_time_prekey_is_wiped_with_the_session_that_used_it(alice: Person, bob: Person) -> None:
    alice.meet(bob, NOW)
    with bob.store.transaction() as tables:
        assert tables.prekeys.one_time(1) is not None
    bob.read(alice.write(bob, "hello", NOW), NOW)
    with bob.store.transaction() as tables:
        assert tables.prekeys.one_time(1) is None


def test_a_one_time_prekey_that_was_used_makes_no_second_session(
    alice: Person, bob: Person, person: Callable[[str], Person]
) -> None:
    """A keyserver that hands the same one-time prekey to two people."""
    carol = person("carol")
    bundle = bob.bundle(NOW)
    for sender in (alice, carol):
        with sender.store.transaction() as tables:
            tables.peers.put(bob.peer())
            sessions.start(tables, sender.own, bundle)
    assert bob.read(alice.write(bob, "first", NOW), NOW) is Outcome.NEW
    before = bob.dump()
    assert bob.read(carol.write(bob, "second", NOW), NOW) is Outcome.UNDECRYPTABLE
    assert bob.undecryptable() == ["unknown_prekey"]
    assert bob.dump() == before


def test_the_same_envelope_again_is_a_repeat(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    envelope = alice.write(bob, "once", NOW)
    assert bob.read(envelope, NOW) is Outcome.NEW
    before = bob.dump()
    assert bob.read(envelope, NOW) is Outcome.REPEAT
    assert bob.dump() == before
    assert bob.texts().count("once") == 1


def test_a_replay_beyond_the_ring_of_digests_is_refused_by_the_ratchet(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    envelope = alice.write(bob, "once", NOW)
    assert bob.read(envelope, NOW) is Outcome.NEW
    with bob.store.transaction() as tables:
        tables.inbox._execute("DELETE FROM envelopes_seen")
    before = bob.dump()
    assert bob.read(envelope, NOW) is Outcome.UNDECRYPTABLE
    assert bob.undecryptable() == ["already_used"]
    assert bob.dump() == before


def test_a_replayed_handshake_finds_its_session_and_makes_no_other(alice: Person, bob: Person) -> None:
    alice.meet(bob, NOW)
    first = alice.write(bob, "one", NOW)
    assert bob.read(first, NOW) is Outcome.NEW
    with bob.store.transaction() as tables:
        tables.inbox._execute("DELETE FROM envelopes_seen")
    before = bob.dump()
    assert bob.read(first, NOW) is Outcome.UNDECRYPTABLE
    assert bob.dump() == before
    assert bob.read(alice.write(bob, "two", NOW), NOW) is Outcome.NEW


@pytest.mark.parametrize("at", [0, 1, 10, 40, 70, 80, -1])
def test_an_altered_message_is_recorded_and_changes_nothing_else(talking: tuple[Person, Person], at: int) -> None:
    alice, bob = talking
    envelope = alice.write(bob, "genuine", NOW)
    before = bob.dump()
    assert bob.read(flip(envelope.body, at % len(envelope.body)), NOW) is Outcome.UNDECRYPTABLE
    assert len(bob.undecryptable()) == 1
    assert bob.dump() == before
    assert bob.read(envelope, NOW) is Outcome.NEW


@pytest.mark.parametrize("at", [0, 1, 2, 1200, 3000, -1])
def test_an_altered_sealed_message_is_recorded_and_changes_nothing_else(alice: Person, bob: Person, at: int) -> None:
    alice.meet(bob, NOW)
    envelope = alice.write(bob, "genuine", NOW)
    before = bob.dump()
    assert bob.read(flip(envelope.body, at % len(envelope.body)), NOW, intake=True) is Outcome.UNDECRYPTABLE
    assert bob.dump() == before
    assert bob.read(envelope, NOW) is Outcome.NEW


@pytest.mark.parametrize("junk", [b"", b"\x00", b"\x01", b"\x02", b"\x03", b"\x02" + bytes(5000), b"\x03" + bytes(200)])
@pytest.mark.parametrize("intake", [False, True])
def test_rubbish_of_any_kind_is_recorded_and_blocks_nothing(bob: Person, junk: bytes, intake: bool) -> None:
    assert bob.read(junk, NOW, intake=intake) is Outcome.UNDECRYPTABLE
    assert bob.undecryptable() != ["internal_error"]
    assert len(bob.undecryptable()) == 1


def test_bytes_under_a_stranger_key_are_only_ever_opened_as_sealed(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    envelope = alice.write(bob, "genuine", NOW)
    assert bob.read(envelope.body, NOW, intake=True) is Outcome.UNDECRYPTABLE
    assert bob.undecryptable() == ["not_sealed"]


def test_records_of_undecryptable_envelopes_are_bounded(bob: Person) -> None:
    with bob.store.transaction() as tables:
        for number in range(inbox.UNDECRYPTABLE + 10):
            tables.inbox.add_undecryptable(number.to_bytes(32, "big"), "rubbish", NOW)
    assert len(bob.undecryptable()) == inbox.UNDECRYPTABLE


def test_the_ring_of_digests_is_bounded(bob: Person) -> None:
    with bob.store.transaction() as tables:
        for number in range(inbox.SEEN + 1):
            tables.inbox.remember(number.to_bytes(32, "big"))
        assert not tables.inbox.seen((0).to_bytes(32, "big"))
        assert tables.inbox.seen((1).to_bytes(32, "big"))


def test_both_starting_at_once_end_on_one_session(alice: Person, bob: Person) -> None:
    alice.meet(bob, NOW)
    bob.meet(alice, NOW)
    crossing = [(bob, alice.write(bob, "from alice", NOW)), (alice, bob.write(alice, "from bob", NOW))]
    for reader, envelope in crossing:
        assert reader.read(envelope, NOW) is Outcome.NEW
    for _ in range(2):
        assert bob.read(alice.write(bob, "again", NOW), NOW) is Outcome.NEW
        assert alice.read(bob.write(alice, "again", NOW), NOW) is Outcome.NEW
    assert _sending(alice, bob) == _sending(bob, alice)


def test_a_newer_handshake_takes_over_and_the_old_session_still_receives(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    late = alice.write(bob, "on the old session", NOW)
    alice.meet(bob, NOW)
    assert bob.read(alice.write(bob, "on the new session", NOW), NOW) is Outcome.NEW
    assert bob.read(late, NOW) is Outcome.NEW
    assert _sending(bob, alice) == _sending(alice, bob)


def test_sessions_with_one_device_are_bounded_and_the_newest_stay(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    for _ in range(7):
        alice.meet(bob, NOW)
        assert bob.read(alice.write(bob, "hello again", NOW), NOW) is Outcome.NEW
    for one, other in ((alice, bob), (bob, alice)):
        with one.store.transaction() as tables:
            found = tables.sessions.of_device(other.own.account_id, other.own.device.device_id)
        assert [session.generation for session in found] == [8, 7, 6, 5, 4]


def test_a_generation_too_far_ahead_is_refused(alice: Person, bob: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "GENERATIONS_AHEAD", 0)
    alice.meet(bob, NOW)
    assert bob.read(alice.write(bob, "hello", NOW), NOW) is Outcome.UNDECRYPTABLE
    assert bob.undecryptable() == ["generation_too_far_ahead"]


def test_when_too_many_handshakes_are_remembered_those_without_a_one_time_prekey_are_refused(
    alice: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "ACCEPTED_HANDSHAKES", 0)
    alice.meet(bob, NOW, one_time=False)
    assert bob.read(alice.write(bob, "hello", NOW), NOW) is Outcome.UNDECRYPTABLE
    alice.meet(bob, NOW, one_time=True)
    assert bob.read(alice.write(bob, "hello", NOW), NOW) is Outcome.NEW


def test_a_message_for_somebody_else_is_refused(alice: Person, bob: Person, person: Callable[[str], Person]) -> None:
    carol = person("carol")
    alice.meet(bob, NOW)
    assert carol.read(alice.write(bob, "for bob", NOW), NOW) is Outcome.UNDECRYPTABLE
    assert carol.texts() == []


def test_skipped_messages_are_read_when_they_come(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    envelopes: list[Outgoing] = [alice.write(bob, str(number), NOW) for number in range(50)]
    for envelope in envelopes[::2] + envelopes[1::2]:
        assert bob.read(envelope, NOW) is Outcome.NEW
    assert len(bob.texts()) == 51
    with bob.store.transaction() as tables:
        assert tables.sessions._execute("SELECT count(*) FROM skipped_keys").get == 0


def _sending(one: Person, other: Person) -> bytes:
    with one.store.transaction() as tables:
        return tables.sessions.of_device(other.own.account_id, other.own.device.device_id)[0].session_id


def test_a_message_that_comes_again_on_another_session_is_shown_once(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    assert bob.read(alice.write(bob, "resent", NOW), NOW) is Outcome.NEW
    alice.meet(bob, NOW)
    alice.sent -= 1  # the same message id
    assert bob.read(alice.write(bob, "resent", NOW), NOW) is Outcome.REPEAT
    assert bob.texts().count("resent") == 1


def test_a_hostile_contact_that_uses_a_ratchet_key_again_blocks_nothing(talking: tuple[Person, Person]) -> None:
    """Rows of skipped keys collide; the page with the envelope must still be stored and acknowledged."""
    alice, bob = talking
    envelopes = [alice.write(bob, str(number), NOW) for number in range(2)]
    with bob.store.transaction() as tables:
        session = tables.sessions.of_device(alice.own.account_id, alice.own.device.device_id)[0]
        key = envelopes[0].body[33:65]
        tables.sessions.add_skipped(session.session_id, [SkippedKey(key, 0, bytes(32))], keep=10)
        tables.sessions.add_skipped(session.session_id, [SkippedKey(key, 0, bytes(32))], keep=10)
    assert bob.read(envelopes[1], NOW) is Outcome.NEW


def test_a_fault_of_the_library_in_one_envelope_is_recorded_and_taken_back(
    talking: tuple[Person, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = talking
    first, second = alice.write(bob, "one", NOW), alice.write(bob, "two", NOW)
    before = bob.dump()
    with monkeypatch.context() as patched:
        patched.setattr(opening, "_keep_skipped", lambda *_: 1 // 0)
        assert bob.read(first, NOW) is Outcome.UNDECRYPTABLE
    assert bob.undecryptable() == ["internal_error"]
    assert bob.dump() == before
    assert bob.read(second, NOW) is Outcome.NEW


def test_a_session_walks_a_bounded_number_of_steps_in_an_hour(talking: tuple[Person, Person]) -> None:
    """Forged numbers cost a walk each: the budget is spent by those that fail, too, and comes back."""
    alice, bob = talking
    genuine = alice.write(bob, "genuine", NOW)
    at = 1 + 32 + 32 + 4
    for n in range(10):
        forged = genuine.body[:at] + (20_000 + n).to_bytes(4, "big") + genuine.body[at + 4 :]
        assert bob.read(forged, NOW) is Outcome.UNDECRYPTABLE
    reasons = bob.undecryptable()
    assert reasons[0] == "not_authentic"
    assert reasons[-1] == "too_far_ahead"
    assert reasons.count("not_authentic") <= opening.STEPS_PER_HOUR // 20_000
    assert bob.read(genuine, NOW) is Outcome.NEW
    later = alice.write(bob, "later", NOW)
    forged = later.body[:at] + (20_000).to_bytes(4, "big") + later.body[at + 4 :]
    assert bob.read(forged, NOW + 3600) is Outcome.UNDECRYPTABLE
    assert bob.undecryptable()[-1] == "not_authentic"


@pytest.mark.parametrize("origin", ["http://127.0.0.1:22", "https://192.168.1.1", "https://router.lan"])
def test_a_contact_address_inside_a_private_network_is_not_taken(talking: tuple[Person, Person], origin: str) -> None:
    alice, bob = talking
    bob.opener = Opener(replace(bob.own, server="https://chat.example.org"))
    alice.own = replace(alice.own, contact=ContactAddress(origin, QueueId(bytes(16)), SendKey(bytes(32))))
    alice.meet(bob, NOW)
    assert bob.read(alice.write(bob, "dial this", NOW), NOW) is Outcome.NEW
    assert bob.write(alice, "where to?", NOW).address.origin == ORIGIN


def test_a_fresh_bundle_renews_an_intake_address_and_leaves_a_contact_address(alice: Person, bob: Person) -> None:
    alice.meet(bob, NOW)
    old = alice.write(bob, "first", NOW)
    with bob.store.transaction() as tables:
        tables.account._execute("UPDATE own_queues SET send_key = ? WHERE kind = 'intake'", (bytes(32),))
    alice.meet(bob, NOW)
    assert alice.write(bob, "second", NOW).address.send_key == bytes(32)
    assert bob.read(old, NOW) is Outcome.NEW
    assert alice.read(bob.write(alice, "answer", NOW), NOW) is Outcome.NEW
    alice.meet(bob, NOW)
    assert alice.write(bob, "third", NOW).address.key_class is KeyClass.CONTACT
