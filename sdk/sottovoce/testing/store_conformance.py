"""What every store has to keep, whoever wrote it: subclass `StoreConformance`, say how a store is made, run its tests.

With pytest the subclass is a test class as it stands; without, call every method whose name begins with `test_`.
Nothing here knows how a store is kept.
"""

import time
from collections.abc import Callable

from sottovoce_wire import records
from sottovoce_wire.frames import KeyClass
from sottovoce_wire.ids import AccountId, DeviceId, MessageId, QueueId, SendKey

from .. import errors
from ..crypto import identity
from ..crypto.identity import DeviceKeys, RootKey
from ..crypto.message import Window
from ..crypto.prekeys import OwnPrekeys, open_prekeys
from ..protocol import sessions
from ..protocol.state import Address, ContactQueue, Incoming, Own, Peer
from ..store.contract import StoreContract
from ..store.database import Tables

_ORIGIN = "https://relay.example"


class _Refused(Exception):  # noqa: N818 - nothing goes wrong
    """Raised by a test in a transaction that it wants taken back."""


class StoreConformance:
    """Each test opens stores of its own and closes them."""

    def open(self) -> StoreContract:
        """Make a new, empty store. To be overridden."""
        raise NotImplementedError

    def test_what_was_written_is_there_in_the_next_transaction(self) -> None:
        """A commit stands."""
        store = self.open()
        with store.transaction() as tables:
            tables.peers.pin_name("one", _ACCOUNT)
        with store.transaction() as tables:
            _expect(tables.peers.named("one") == _ACCOUNT, "what was committed is gone")
        store.close()

    def test_a_transaction_that_raises_leaves_nothing_and_the_next_one_works(self) -> None:
        """All or nothing, and what was raised comes out as it is."""
        store = self.open()

        def fail() -> None:
            with store.transaction() as tables:
                tables.peers.pin_name("lost", _ACCOUNT)
                raise _Refused

        _expect_raised(_Refused, fail)
        _expect(not store.is_in_transaction, "the transaction is still open")
        with store.transaction() as tables:
            _expect(tables.peers.named("lost") is None, "what was taken back is there")
        store.close()

    def test_a_part_that_raises_is_taken_back_alone(self) -> None:
        """What stands before and after it in the transaction is committed."""
        store = self.open()

        def fail(tables: Tables) -> None:
            with tables.savepoint():
                tables.peers.pin_name("lost", _ACCOUNT)
                raise _Refused

        with store.transaction() as tables:
            _expect(store.is_in_transaction, "no transaction is open within one")
            tables.peers.pin_name("before", _ACCOUNT)
            _expect_raised(_Refused, lambda: fail(tables))
            with tables.savepoint():
                tables.peers.pin_name("after", _ACCOUNT)
        with store.transaction() as tables:
            found = [tables.peers.named(name) for name in ("before", "lost", "after")]
        _expect(found == [_ACCOUNT, None, _ACCOUNT], "a part that raised was not taken back, or not alone")
        store.close()

    def test_a_ratchet_that_moved_in_a_transaction_that_failed_has_not_moved(self) -> None:
        """Also in memory: its next key would be used a second time."""
        store = self.open()
        device = _meet(store)

        def fail() -> None:
            with store.transaction() as tables:
                _move(tables, device)
                raise _Refused

        def fail_in_part() -> None:
            with store.transaction() as tables, tables.savepoint():
                _move(tables, device)
                raise _Refused

        with store.transaction() as tables:
            before = _packed(tables, device)
        for failing in (fail, fail_in_part):
            _expect_raised(_Refused, failing)
            with store.transaction() as tables:
                _expect(_packed(tables, device) == before, "a ratchet moved without being stored")
        with store.transaction() as tables:
            _move(tables, device)
        with store.transaction() as tables:
            _expect(_packed(tables, device) != before, "a ratchet that moved and was stored is back")
        store.close()

    def test_the_table_of_tags_follows_what_is_taken_back(self) -> None:
        """A session that was never stored announces nothing."""
        store = self.open()
        _meet(store)
        tag = bytes(8)

        def fail() -> None:
            with store.transaction() as tables:
                tables.routing.admit(bytes(32), [Window((tag,), 0, 0)])
                raise _Refused

        _expect_raised(_Refused, fail)
        with store.transaction() as tables:
            _expect(tables.routing.find(tag) is None, "the table of tags kept what was taken back")
            _expect(len(tables.routing) > 0, "the table of tags lost what is stored")
        store.close()

    def test_a_message_that_comes_twice_is_stored_once(self) -> None:
        """One account's message id is one message, whatever session brings it."""
        store = self.open()
        message = Incoming(MessageId(bytes(16)), _ACCOUNT, DeviceId(bytes(16)), "hello", 1, 2)
        with store.transaction() as tables:
            first = tables.inbox.add(message, is_request=False)
            again = tables.inbox.add(message, is_request=False)
            shown = [unhandled.message for unhandled in tables.inbox.unhandled(10)]
        _expect((first, again) == (True, False), "the repeat was not recognised")
        _expect(shown == [message], "it is not shown once, as it came")
        store.close()

    def test_a_new_store_is_no_copy_and_empty(self) -> None:
        """It has no account, and nothing waits."""
        store = self.open()
        _expect(not store.is_restored, "a new store is taken for a copy")
        with store.transaction() as tables:
            _expect(tables.account.get() is None, "a new store has an account")
            _expect(tables.outbox.size() == 0, "something waits in a new store")
        store.close()

    def test_a_closed_store_says_so(self) -> None:
        """Closing twice does nothing; tidying before it leaves everything as it was."""
        store = self.open()
        with store.transaction() as tables:
            tables.peers.pin_name("kept", _ACCOUNT)
        store.tidy()
        with store.transaction() as tables:
            _expect(tables.peers.named("kept") == _ACCOUNT, "tidying took something that was not wiped")
        store.close()
        store.close()

        def use() -> None:
            with store.transaction():
                pass

        _expect_raised(errors.StoreFailed, use)


_ACCOUNT = AccountId(bytes(32))


def _expect(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise AssertionError(otherwise)


def _expect_raised(kind: type[Exception], call: Callable[[], None]) -> None:
    try:
        call()
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")


def _meet(store: StoreContract) -> tuple[AccountId, DeviceId]:
    """Start a session with somebody, and say with which device."""
    now = int(time.time())
    own, peer = _person(now), _person(now)
    prekeys = OwnPrekeys.generate(peer.device, peer.account_id, 1, now)
    entry = identity.open_device_list(peer.root_public, peer.device_list).devices[0]
    address = Address(_ORIGIN, QueueId(bytes(16)), SendKey(bytes(32)), KeyClass.STRANGER)
    opened = open_prekeys(entry, peer.account_id, prekeys.record, now)
    with store.transaction() as tables:
        tables.peers.put(Peer(peer.account_id, peer.root_public, peer.device_list))
        bundle = sessions.Bundle(peer.account_id, entry, prekeys.record, opened, None, address)
        sessions.start(tables, own, bundle, now)
    return peer.account_id, peer.device.device_id


def _person(now: int) -> Own:
    root, device = RootKey.generate(), DeviceKeys.generate()
    entries, none = [device.consent(root.account_id)], records.NO_LIST_HASH
    device_list = identity.make_device_list(
        root, entries, version=1, previous=none, time=now, flag=records.ListFlag.NORMAL
    )
    contact = ContactQueue(_ORIGIN, QueueId(bytes(16)))
    return Own(_ORIGIN, root.account_id, root.public, device, device_list, contact)


def _move(tables: Tables, device: tuple[AccountId, DeviceId]) -> None:
    session = tables.sessions.sending(*device)
    if session is None:
        raise AssertionError("the session is gone")
    session.ratchet.encrypt(b"never sent", int(time.time()))
    tables.sessions.put(session)


def _packed(tables: Tables, device: tuple[AccountId, DeviceId]) -> bytes:
    session = tables.sessions.sending(*device)
    return b"" if session is None else session.ratchet.pack()
