"""Who may reach the person: requests, contacts, blocked accounts, and what a new device list tells."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from sottovoce import events
from sottovoce.crypto import identity
from sottovoce.crypto.errors import CryptoRefusal, Reason
from sottovoce.crypto.identity import DeviceKeys
from sottovoce.events import Event
from sottovoce.protocol import contacts
from sottovoce.protocol.opening import Opener
from sottovoce.protocol.reading import Outcome
from sottovoce.protocol.state import Peer
from sottovoce.store import events as event_rows
from sottovoce.store.database import Tables
from sottovoce_wire import records
from sottovoce_wire.ids import AccountId, account_id_text
from sottovoce_wire.records import ListFlag
from tests.sottovoce.people import Person

NOW = 1_800_000_000


def told(person: Person) -> list[Event]:
    """Every event that waits for the application, oldest first; they are taken away."""
    found = []
    with person.store.transaction() as tables:
        while (first := tables.events.first()) is not None:
            found.append(first[1])
            tables.events.remove(first[0])
    return found


def shown(person: Person) -> list[str]:
    """What the application is shown."""
    with person.store.transaction() as tables:
        return [unhandled.message.text for unhandled in tables.inbox.unhandled(1_000)]


def requested(person: Person) -> list[list[str]]:
    """What waits to be accepted, account by account."""
    with person.store.transaction() as tables:
        return [[message.text for message in messages] for _, messages, _ in tables.inbox.waiting()]


def name(person: Person) -> str:
    return account_id_text(person.own.account_id)


@pytest.fixture
def asked(alice: Person, bob: Person) -> tuple[Person, Person]:
    """Alice has written to Bob, who does not know her."""
    alice.meet(bob, NOW)
    assert bob.read(alice.write(bob, "may I", NOW), NOW) is Outcome.NEW
    return alice, bob


def test_a_strangers_message_is_a_request_and_is_told_of_once(asked: tuple[Person, Person]) -> None:
    alice, bob = asked
    bob.read(alice.write(bob, "ask you", NOW), NOW)
    assert shown(bob) == []
    assert requested(bob) == [["may I", "ask you"]]
    (event,) = told(bob)
    assert isinstance(event, events.RequestArrived)
    assert event.account_id == name(alice)


def test_an_accepted_request_is_shown_in_order_and_what_follows_too(asked: tuple[Person, Person]) -> None:
    alice, bob = asked
    with bob.store.transaction() as tables:
        contacts.accept(tables, alice.own.account_id)
    bob.read(alice.write(bob, "ask you", NOW), NOW)
    assert shown(bob) == ["may I", "ask you"]
    assert requested(bob) == []


def test_whoever_is_written_to_is_a_contact(asked: tuple[Person, Person]) -> None:
    alice, bob = asked
    bob.write(alice, "who are you", NOW)
    assert shown(bob) == ["may I"]


def test_a_declined_request_is_gone_and_can_be_made_again(asked: tuple[Person, Person]) -> None:
    alice, bob = asked
    with bob.store.transaction() as tables:
        contacts.decline(tables, alice.own.account_id)
    assert bob.texts() == []
    bob.read(alice.write(bob, "please", NOW), NOW)
    assert requested(bob) == [["please"]]


def test_nothing_of_a_blocked_account_is_shown_and_its_session_stays_whole(asked: tuple[Person, Person]) -> None:
    alice, bob = asked
    bob.write(alice, "hello", NOW)
    told(bob)
    with bob.store.transaction() as tables:
        contacts.block(tables, alice.own.account_id)
    assert bob.read(alice.write(bob, "unseen", NOW), NOW) is Outcome.DROPPED
    assert shown(bob) == ["may I"]  # what was accepted before stays
    assert requested(bob) == []
    assert told(bob) == []
    with bob.store.transaction() as tables:
        tables.peers.unblock(alice.own.account_id)
    assert bob.read(alice.write(bob, "seen", NOW), NOW) is Outcome.NEW
    assert requested(bob) == [["seen"]]


def test_a_blocked_account_is_owed_no_answer_and_walks_like_a_stranger(asked: tuple[Person, Person]) -> None:
    alice, bob = asked
    bob.write(alice, "hello", NOW)
    session = bob.sending(alice).session_id
    with bob.store.transaction() as tables:
        contacts.block(tables, alice.own.account_id)
        assert tables.sessions.owing(1, NOW + 2 * 86_400) == []
        assert tables.routing.newest(10, 0) == []
        assert session in tables.routing.newest(0, 10)
    assert bob.tags() == bob.derived_tags()


def test_who_accepts_everyone_is_shown_a_strangers_first_message(alice: Person, bob: Person) -> None:
    bob.opener = Opener(replace(bob.own, accepts_everyone=True))
    alice.meet(bob, NOW)
    bob.read(alice.write(bob, "hello", NOW), NOW)
    assert shown(bob) == ["hello"]
    assert told(bob) == []
    with bob.store.transaction() as tables:
        contacts.block(tables, alice.own.account_id)
    bob.read(alice.write(bob, "unseen", NOW), NOW)
    assert shown(bob) == ["hello"], "blocked is blocked"


@pytest.mark.parametrize(("limit", "value"), [("REQUEST_MESSAGES", 2), ("REQUEST_BYTES", 9), ("REQUESTS_BYTES", 9)])
def test_one_stranger_leaves_a_bounded_request_and_what_is_not_kept_is_counted(
    asked: tuple[Person, Person], monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    alice, bob = asked
    monkeypatch.setattr(contacts, limit, value)
    assert bob.read(alice.write(bob, "asks", NOW), NOW) is Outcome.NEW
    for _ in range(2):
        assert bob.read(alice.write(bob, "asks again", NOW), NOW) is Outcome.DROPPED
    with bob.store.transaction() as tables:
        ((_, messages, dropped),) = tables.inbox.waiting()
    assert ([message.text for message in messages], dropped) == (["may I", "asks"], 2)


def test_many_strangers_leave_a_bounded_number_of_requests(
    asked: tuple[Person, Person], person: Callable[[str], Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = asked
    monkeypatch.setattr(contacts, "REQUESTS", 2)
    for who, outcome in (("carol", Outcome.NEW), ("dave", Outcome.DROPPED)):
        stranger = person(who)
        stranger.meet(bob, NOW)
        assert bob.read(stranger.write(bob, "me too", NOW), NOW) is outcome
    assert bob.read(alice.write(bob, "still here", NOW), NOW) is Outcome.NEW
    assert events.RequestsFull in [type(event) for event in told(bob)]


# --- Device lists -----------------------------------------------------------------------------------------------------


def list_after(
    person: Person, version: int, flag: ListFlag = ListFlag.NORMAL, *, devices: Sequence[DeviceKeys] | None = None
) -> Peer:
    """The person's account with another list, by default of the same device, that claims to follow the present one."""
    with person.store.transaction() as tables:
        root = tables.account.root()
    assert root is not None
    payload, _ = records.split_signed(person.own.device_list)
    named = [person.own.device] if devices is None else devices
    entries = [device.consent(person.own.account_id) for device in named]
    device_list = identity.make_device_list(
        root, entries, version=version, previous=records.device_list_hash(payload), time=NOW, flag=flag
    )
    return Peer(person.own.account_id, person.own.root_public, device_list)


def test_a_new_list_is_told_with_what_it_adds_and_removes(asked: tuple[Person, Person]) -> None:
    alice, bob = asked
    told(bob)
    with bob.store.transaction() as tables:
        contacts.learn(tables, list_after(alice, 2, devices=[DeviceKeys.generate()]), NOW)
    (event,) = told(bob)
    assert isinstance(event, events.DevicesChanged)
    assert (event.account_id, event.added, event.removed, event.is_recovery) == (name(alice), 1, 1, False)


def test_after_a_recovery_every_device_counts_as_new(asked: tuple[Person, Person]) -> None:
    alice, bob = asked
    told(bob)
    with bob.store.transaction() as tables:
        contacts.learn(tables, list_after(alice, NOW + 1, ListFlag.RECOVERY), NOW)
    (event,) = told(bob)
    assert isinstance(event, events.DevicesChanged)
    assert (event.added, event.removed, event.is_recovery) == (1, 0, True)


def test_an_account_that_ends_is_told(asked: tuple[Person, Person]) -> None:
    alice, bob = asked
    told(bob)
    with bob.store.transaction() as tables:
        contacts.learn(tables, list_after(alice, 2, ListFlag.FINAL, devices=[]), NOW)
    assert isinstance(told(bob)[0], events.AccountEnded)


def test_an_account_met_for_the_first_time_is_no_change(asked: tuple[Person, Person]) -> None:
    _, bob = asked
    assert [type(event) for event in told(bob)] == [events.RequestArrived]


def forked(tables: Tables, alice: Person) -> bytes | None:
    return tables.peers.forked_list(alice.own.account_id)


def test_a_second_list_for_one_version_is_kept_and_told_until_the_person_decides(asked: tuple[Person, Person]) -> None:
    alice, bob = asked
    told(bob)
    other = list_after(alice, 1, devices=[DeviceKeys.generate()])
    with bob.store.transaction() as tables:
        with pytest.raises(CryptoRefusal) as refused:
            contacts.learn(tables, other, NOW)
        assert refused.value.reason is Reason.FORKED_LIST
        for _ in range(2):
            contacts.note_fork(tables, other.account_id, other.device_list, NOW)
        assert forked(tables, alice) == other.device_list
    assert [type(event) for event in told(bob)] == [events.AccountForked]
    with bob.store.transaction() as tables:
        contacts.settle_fork(tables, other.account_id, NOW, take_other=False)
        assert forked(tables, alice) is None
        assert tables.peers.get(other.account_id) == alice.peer()


def test_the_other_list_counts_if_the_person_says_so_and_its_devices_alone_are_heard(
    asked: tuple[Person, Person],
) -> None:
    alice, bob = asked
    other = list_after(alice, 1, devices=[DeviceKeys.generate()])
    with bob.store.transaction() as tables:
        contacts.note_fork(tables, other.account_id, other.device_list, NOW)
        contacts.settle_fork(tables, other.account_id, NOW, take_other=True)
        assert tables.peers.get(other.account_id) == other
        assert tables.sessions.of_account(other.account_id) == []
    assert bob.tags() == bob.derived_tags()


def test_a_first_message_with_a_forked_list_is_refused_and_told(asked: tuple[Person, Person]) -> None:
    alice, bob = asked
    told(bob)
    alice.own = replace(alice.own, device_list=list_after(alice, 1).device_list)
    alice.meet(bob, NOW)
    assert bob.read(alice.write(bob, "from here", NOW), NOW) is Outcome.UNDECRYPTABLE
    assert [type(event) for event in told(bob)] == [events.AccountForked]


def test_a_list_version_that_the_account_names_itself_is_remembered_until_the_list_is_here(
    asked: tuple[Person, Person],
) -> None:
    alice, bob = asked
    bob.write(alice, "hello", NOW)
    newer = list_after(alice, 2)
    alice.own = replace(alice.own, device_list=newer.device_list)
    assert bob.read(alice.write(bob, "I have a new list", NOW), NOW) is Outcome.NEW
    with bob.store.transaction() as tables:
        assert tables.peers.behind() == [(alice.own.account_id, 2)]
        contacts.learn(tables, newer, NOW)
        assert tables.peers.behind() == []


def test_an_event_takes_the_place_of_one_that_says_the_same(alice: Person, bob: Person) -> None:
    with bob.store.transaction() as tables:
        contacts.note_behind(tables, alice.own.account_id, NOW)
        contacts.note_behind(tables, bob.own.account_id, NOW)
        contacts.note_behind(tables, alice.own.account_id, NOW + 1)
    first, second = told(bob)
    assert isinstance(first, events.KeyserverBehind)
    assert isinstance(second, events.KeyserverBehind)
    assert [first.account_id, second.account_id] == [name(bob), name(alice)]


def test_what_others_cause_again_and_again_pushes_no_alarm_out(
    alice: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_rows, "KEPT", 3)
    at = datetime.fromtimestamp(NOW, UTC)
    with bob.store.transaction() as tables:
        tables.events.add(events.CloneSuspected(at, name(alice)))
        for number in range(5):
            tables.events.add(events.MessagesUnreadable(at, 1))
            tables.events.add(events.MessageFailed(at, name(alice), f"{number:032x}", "refused"))
    found = told(bob)
    assert isinstance(found[0], events.CloneSuspected)
    assert [event.message_id[-1] for event in found if isinstance(event, events.MessageFailed)] == ["2", "3", "4"]


def test_two_changes_of_a_list_that_were_not_told_yet_add_up(asked: tuple[Person, Person]) -> None:
    alice, bob = asked
    told(bob)
    added = [alice.own.device, DeviceKeys.generate()]
    with bob.store.transaction() as tables:
        contacts.learn(tables, list_after(alice, NOW + 1, ListFlag.RECOVERY, devices=added), NOW)
    alice.own = replace(alice.own, device_list=list_after(alice, NOW + 1, ListFlag.RECOVERY, devices=added).device_list)
    with bob.store.transaction() as tables:
        contacts.learn(tables, list_after(alice, NOW + 2, devices=added), NOW)
    (event,) = told(bob)
    assert isinstance(event, events.DevicesChanged)
    assert (event.added, event.removed, event.is_recovery) == (2, 0, True)


@pytest.mark.parametrize("answer", [contacts.decline, contacts.block])
def test_nothing_is_told_of_an_account_that_is_nobody(
    asked: tuple[Person, Person], answer: Callable[[Tables, AccountId], None]
) -> None:
    """Strangers can make up any number of accounts, and change their lists as often as they like."""
    alice, bob = asked
    with bob.store.transaction() as tables:
        answer(tables, alice.own.account_id)
        contacts.learn(tables, list_after(alice, 2), NOW)
        other = list_after(alice, 2, devices=[DeviceKeys.generate()])
        contacts.note_fork(tables, other.account_id, other.device_list, NOW)
        assert forked(tables, alice) == other.device_list
    assert told(bob) == []


def test_a_used_number_of_a_contact_is_told_as_a_clone(asked: tuple[Person, Person]) -> None:
    alice, bob = asked
    bob.read(alice.write(bob, "me", NOW), NOW)
    answer = bob.write(alice, "hello", NOW)
    alice.read(answer, NOW)
    told(bob)
    with alice.store.transaction() as tables:
        packed = alice.sending(bob).ratchet.pack()
        session = alice.sending(bob)
    assert bob.read(alice.write(bob, "one", NOW), NOW) is Outcome.NEW
    with alice.store.transaction() as tables:
        tables.sessions.put(replace(session, ratchet=type(session.ratchet).unpack(packed)))
    assert bob.read(alice.write(bob, "the same number", NOW), NOW) is Outcome.UNDECRYPTABLE
    assert [type(event) for event in told(bob)] == [events.CloneSuspected]
