"""Two people on real stores: what sessions carry, what is refused, and that a refusal changes nothing."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from sottovoce.crypto import identity
from sottovoce.crypto.identity import DeviceKeys
from sottovoce.protocol import budgets, contacts, healing, opening, reading, sessions
from sottovoce.protocol.budgets import StepBudget
from sottovoce.protocol.opening import Opener
from sottovoce.protocol.reading import Outcome
from sottovoce.protocol.state import ContactQueue, Outgoing, Peer
from sottovoce.store import inbox
from sottovoce_wire import records
from sottovoce_wire.frames import KeyClass
from sottovoce_wire.ids import AccountId, QueueId
from sottovoce_wire.records import ListFlag
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
        assert envelope.body[0] == 0x01
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
            sessions.start(tables, sender.own, bundle, NOW)
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
    """It looks as if the sender had been copied, and cannot be told apart: nothing is done about it."""
    alice, bob = talking
    envelope = alice.write(bob, "once", NOW)
    assert bob.read(envelope, NOW) is Outcome.NEW
    with bob.store.transaction() as tables:
        tables.inbox._execute("DELETE FROM envelopes_seen; DELETE FROM messages_opened")
    before = bob.dump()
    assert bob.read(envelope, NOW) is Outcome.UNDECRYPTABLE
    assert bob.undecryptable() == ["clone_suspected"]
    assert bob.dump() == before
    assert bob.sending(alice).failures == 0


def test_a_replayed_handshake_finds_its_session_and_makes_no_other(alice: Person, bob: Person) -> None:
    alice.meet(bob, NOW)
    first = alice.write(bob, "one", NOW)
    assert bob.read(first, NOW) is Outcome.NEW
    with bob.store.transaction() as tables:
        tables.inbox._execute("DELETE FROM envelopes_seen; DELETE FROM messages_opened")
    before = bob.dump()
    assert bob.read(first, NOW) is Outcome.UNDECRYPTABLE
    assert bob.dump() == before
    assert bob.read(alice.write(bob, "two", NOW), NOW) is Outcome.NEW


@pytest.mark.parametrize("at", [0, 9, 10, 40, 70, 81, -1])
def test_an_altered_message_is_recorded_and_changes_nothing_else(talking: tuple[Person, Person], at: int) -> None:
    alice, bob = talking
    envelope = alice.write(bob, "genuine", NOW)
    before, tags = bob.dump(), bob.tags()
    assert bob.read(flip(envelope.body, at % len(envelope.body)), NOW) is Outcome.UNDECRYPTABLE
    assert bob.undecryptable() == ["damaged" if at else "malformed"]
    assert (bob.dump(), bob.tags()) == (before, tags)
    assert bob.read(envelope, NOW) is Outcome.NEW


def test_a_message_with_another_tag_is_held_and_changes_nothing_else(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    envelope = alice.write(bob, "genuine", NOW)
    before = bob.dump()
    assert bob.read(flip(envelope.body, 1), NOW) is Outcome.HELD
    assert (bob.dump(), bob.undecryptable()) == (before, [])
    assert bob.read(envelope, NOW) is Outcome.NEW


@pytest.mark.parametrize("at", [0, 1, 2, 1200, 3000, -1])
def test_an_altered_sealed_message_changes_nothing_but_a_record(alice: Person, bob: Person, at: int) -> None:
    alice.meet(bob, NOW)
    envelope = alice.write(bob, "genuine", NOW)
    before = bob.dump()
    outcome = bob.read(flip(envelope.body, at % len(envelope.body)), NOW, intake=True)
    assert outcome is (Outcome.UNDECRYPTABLE if at else Outcome.DROPPED)
    assert bob.dump() == before
    assert bob.read(envelope, NOW) is Outcome.NEW


@pytest.mark.parametrize("junk", [b"", b"\x00", b"\x01", b"\x02", b"\x03", b"\x02" + bytes(5000), b"\x03" + bytes(200)])
@pytest.mark.parametrize("intake", [False, True])
def test_rubbish_of_any_kind_is_recorded_and_blocks_nothing(bob: Person, junk: bytes, intake: bool) -> None:
    is_dropped = intake and junk[:1] != b"\x02"
    assert bob.read(junk, NOW, intake=intake) is (Outcome.DROPPED if is_dropped else Outcome.UNDECRYPTABLE)
    assert bob.undecryptable() != ["internal_error"]
    assert len(bob.undecryptable()) == (not is_dropped)


def test_bytes_under_a_stranger_key_are_only_ever_opened_as_sealed(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    envelope = alice.write(bob, "genuine", NOW)
    assert bob.read(envelope.body, NOW, intake=True) is Outcome.DROPPED
    assert bob.undecryptable() == []
    assert bob.read(envelope, NOW) is Outcome.NEW


def test_records_of_undecryptable_envelopes_are_bounded_and_push_out_only_their_kind(bob: Person) -> None:
    with bob.store.transaction() as tables:
        tables.inbox.add_undecryptable(bytes(32), "clone_suspected", NOW)
        for number in range(inbox.UNDECRYPTABLE + 10):
            tables.inbox.add_undecryptable(number.to_bytes(32, "big"), "unknown_prekey", NOW + number)
        assert tables.inbox.undecryptable() == [
            ("clone_suspected", NOW),
            *[("unknown_prekey", NOW + number) for number in range(10, inbox.UNDECRYPTABLE + 10)],
        ]


@pytest.mark.parametrize("ring", ["remember", "remember_opened"])
def test_the_rings_of_digests_are_bounded(bob: Person, ring: str) -> None:
    with bob.store.transaction() as tables:
        for number in range(inbox.SEEN + 1):
            getattr(tables.inbox, ring)(number.to_bytes(32, "big"))
        assert not tables.inbox.seen((0).to_bytes(32, "big"))
        assert tables.inbox.seen((1).to_bytes(32, "big"))


def test_what_nobody_can_open_makes_no_opened_message_forgotten(
    talking: tuple[Person, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a stranger's rubbish makes the relay's next redelivery look like a copied device."""
    monkeypatch.setattr(inbox, "SEEN", 3)
    alice, bob = talking
    envelope = alice.write(bob, "once", NOW)
    assert bob.read(envelope, NOW) is Outcome.NEW
    for number in range(4):
        rubbish = b"\x02" + bytes(5_200) + bytes([number]) + bytes(32)
        assert bob.read(rubbish, NOW, intake=True) is Outcome.UNDECRYPTABLE
    assert bob.read(envelope, NOW) is Outcome.REPEAT


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


def test_a_fault_of_the_library_in_one_envelope_is_recorded_and_taken_back(
    talking: tuple[Person, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = talking
    first, second = alice.write(bob, "one", NOW), alice.write(bob, "two", NOW)
    before = bob.dump()
    with monkeypatch.context() as patched:
        patched.setattr(reading, "_keep_skipped", lambda *_: 1 // 0)
        assert bob.read(first, NOW) is Outcome.UNDECRYPTABLE
    assert bob.undecryptable() == ["internal_error"]
    assert bob.dump() == before
    assert bob.read(second, NOW) is Outcome.NEW


def test_a_session_walks_a_bounded_number_of_steps_in_an_hour(talking: tuple[Person, Person]) -> None:
    """A message from far ahead, its body flipped again and again, costs a walk each time. What comes when the budget is
    spent waits for the next hour."""
    alice, bob = talking
    alice.skip(bob, 20_000, NOW)
    genuine = alice.write(bob, "genuine", NOW).body
    walks = budgets.STEPS_PER_HOUR // 20_000
    outcomes = [bob.read(flip(genuine, -1 - at), NOW) for at in range(walks + 2)]
    assert outcomes == [Outcome.UNDECRYPTABLE] * walks + [Outcome.HELD] * 2
    assert bob.read(genuine, NOW) is Outcome.HELD
    with bob.store.transaction() as tables:
        bob.opener.search_again(tables, NOW * 1000 + 1000)
    assert "genuine" not in bob.texts()
    with bob.store.transaction() as tables:
        bob.opener.search_again(tables, NOW * 1000 + 3_600_000)
    assert "genuine" in bob.texts()


def test_a_contact_has_one_budget_of_steps_for_all_its_sessions(
    talking: tuple[Person, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "STEPS_PER_HOUR", 500)
    alice, bob = talking
    outcomes = []
    for _ in range(6):
        alice.meet(bob, NOW)
        alice.skip(bob, 100, NOW)
        outcomes.append(bob.read(alice.write(bob, "again", NOW), NOW))
    assert outcomes == [Outcome.NEW] * 5 + [Outcome.UNDECRYPTABLE]
    assert bob.undecryptable() == ["too_far_ahead"]


def test_strangers_walk_little_each_and_together_and_leave_few_keys(
    alice: Person, bob: Person, person: Callable[[str], Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "STRANGERS_STEPS", 200)
    monkeypatch.setattr(budgets, "ALL_STRANGERS_STEPS", 350)
    outcomes = []
    for stranger, steps in ((alice, 201), (person("carol"), 200), (person("dave"), 151), (person("eve"), 150)):
        stranger.meet(bob, NOW, one_time=False)
        stranger.skip(bob, steps, NOW)
        outcomes.append(bob.read(stranger.write(bob, "hello", NOW), NOW))
    assert outcomes == [Outcome.UNDECRYPTABLE, Outcome.NEW, Outcome.UNDECRYPTABLE, Outcome.NEW]
    with bob.store.transaction() as tables:
        rows = tables.sessions._execute("SELECT count(*) FROM skipped_keys GROUP BY session_id").fetchall()
    assert rows == [(reading.STRANGERS_SKIPPED_KEYS,)] * 2
    assert bob.tags() == bob.derived_tags()


def test_no_stranger_can_use_up_the_walks_that_a_little_disorder_needs(
    alice: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "ALL_STRANGERS_STEPS", 0)
    alice.meet(bob, NOW)
    alice.skip(bob, budgets.FREE_STEPS, NOW)
    assert bob.read(alice.write(bob, "some were lost", NOW), NOW) is Outcome.NEW


def test_many_accounts_give_nobody_steps_back() -> None:
    budget = StepBudget()
    contact = AccountId(bytes(32))
    assert budget.spend(contact, budgets.STEPS_PER_HOUR, NOW, is_contact=True)
    for number in range(1, 12_000):
        budget.spend(AccountId(number.to_bytes(32, "big")), 1, NOW, is_contact=False)
    assert not budget.spend(contact, 1, NOW, is_contact=True)
    assert budget.spend(contact, 1, NOW + 3_600, is_contact=True)


@pytest.mark.parametrize("origin", ["http://127.0.0.1:22", "https://192.168.1.1", "https://router.lan"])
def test_a_contact_address_inside_a_private_network_is_not_taken(talking: tuple[Person, Person], origin: str) -> None:
    alice, bob = talking
    bob.opener = Opener(replace(bob.own, server="https://chat.example.org"))
    alice.own = replace(alice.own, contact=ContactQueue(origin, QueueId(bytes(16))))
    alice.meet(bob, NOW)
    assert bob.read(alice.write(bob, "dial this", NOW), NOW) is Outcome.NEW
    assert bob.write(alice, "where to?", NOW).address.origin == ORIGIN


def moved(person: Person, queue: bytes) -> None:
    """From now on the person has another contact queue."""
    person.own = replace(person.own, contact=ContactQueue(ORIGIN, QueueId(queue)))


def test_a_message_on_a_replaced_session_does_not_move_the_contact_address(talking: tuple[Person, Person]) -> None:
    """Who copied an old session would otherwise turn the answers away for good."""
    alice, bob = talking
    with alice.store.transaction() as tables:
        tables.sessions.put(replace(alice.sending(bob), address_confirmed=False))
        moved(alice, b"of a thief" + bytes(6))
    late = alice.write(bob, "on the old session", NOW)
    moved(alice, b"new" + bytes(13))
    alice.meet(bob, NOW)
    assert bob.read(alice.write(bob, "on the new session", NOW), NOW) is Outcome.NEW
    assert bob.read(late, NOW) is Outcome.NEW
    assert bob.write(alice, "to the new queue", NOW).address.queue == b"new" + bytes(13)


def test_a_message_that_was_kept_back_does_not_move_the_contact_address_back(alice: Person, bob: Person) -> None:
    alice.meet(bob, NOW)
    kept_back = alice.write(bob, "one", NOW)
    moved(alice, b"new" + bytes(13))
    assert bob.read(alice.write(bob, "two", NOW), NOW) is Outcome.NEW
    assert bob.read(kept_back, NOW) is Outcome.NEW
    assert bob.write(alice, "to the new queue", NOW).address.queue == b"new" + bytes(13)
    moved(alice, b"newest" + bytes(10))
    assert bob.read(alice.write(bob, "three", NOW), NOW) is Outcome.NEW
    assert bob.write(alice, "to the newest", NOW).address.queue == b"newest" + bytes(10)


def without_device(person: Person, flag: ListFlag) -> Peer:
    """The person's account after this device was taken off its list."""
    payload, _ = records.split_signed(person.own.device_list)
    with person.store.transaction() as tables:
        root = tables.account.root()
    assert root is not None
    others = [] if flag is ListFlag.FINAL else [DeviceKeys.generate().consent(root.account_id)]
    previous = records.device_list_hash(payload)
    newer = identity.make_device_list(root, others, version=2, previous=previous, time=NOW, flag=flag)
    return replace(person.peer(), device_list=newer)


@pytest.mark.parametrize(("flag", "reason"), [(ListFlag.NORMAL, "not_listed"), (ListFlag.FINAL, "account_ended")])
def test_the_sessions_of_a_device_go_when_it_goes_off_the_list(
    talking: tuple[Person, Person], person: Callable[[str], Person], flag: ListFlag, reason: str
) -> None:
    alice, bob = talking
    carol = person("carol")
    carol.meet(bob, NOW)
    assert bob.read(carol.write(bob, "I stay", NOW), NOW) is Outcome.NEW
    alice.meet(bob, NOW)
    assert bob.read(alice.write(bob, "a second session", NOW), NOW) is Outcome.NEW
    with bob.store.transaction() as tables:
        contacts.learn(tables, without_device(alice, flag), NOW)
        assert tables.sessions.of_account(alice.own.account_id) == []
        assert len(tables.sessions.of_account(carol.own.account_id)) == 1
    assert bob.tags() == bob.derived_tags()
    assert bob.read(alice.write(bob, "still there", NOW), NOW) is Outcome.UNDECRYPTABLE
    assert bob.undecryptable() == [reason]
    assert "still there" not in bob.texts()


def test_a_device_off_its_accounts_list_is_not_heard_on_a_session_that_it_has(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    with bob.store.transaction() as tables:
        tables.peers.put(without_device(alice, ListFlag.NORMAL))
    before = bob.dump()
    for _ in range(healing.FAILURES):
        assert bob.read(alice.write(bob, "still there", NOW), NOW) is Outcome.UNDECRYPTABLE
    assert set(bob.undecryptable()) == {"not_listed"}
    assert bob.dump() == before
    assert bob.sending(alice).failures == 0


def test_an_older_list_brings_no_device_back(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    newer = without_device(alice, ListFlag.NORMAL)
    with bob.store.transaction() as tables:
        contacts.learn(tables, newer, NOW)
        contacts.learn(tables, alice.peer(), NOW)
        assert tables.peers.get(alice.own.account_id) == newer


def typing(person: Person, other: Person) -> bytes:
    """An ephemeral message."""
    with person.store.transaction() as tables:
        session = person.sending(other)
        message, _ = session.ratchet.encrypt_ephemeral(b"typing")
        tables.sessions.put(session)
    return message


def test_ephemeral_messages_that_do_not_open_are_dropped_and_ask_for_nothing(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    assert bob.read(alice.write(bob, "a chain begins", NOW), NOW) is Outcome.NEW
    before, tags = bob.dump(), bob.tags()
    for _ in range(healing.FAILURES):
        assert bob.read(flip(typing(alice, bob), -1), NOW) is Outcome.DROPPED
    assert (bob.dump(), bob.tags(), bob.undecryptable()) == (before, tags, [])
    assert bob.sending(alice).failures == 0


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
