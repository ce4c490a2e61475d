"""A store as it is after years: many messages, and sessions with many people. Filled directly, without a network."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from sottovoce.crypto import agreement
from sottovoce.crypto.identity import DeviceKeys, RootKey, make_device_list
from sottovoce.crypto.prekeys import OneTimePrekey, OwnPrekeys, open_prekeys
from sottovoce.crypto.ratchet import Ratchet
from sottovoce.protocol.state import Incoming, Own, Peer, Session
from sottovoce.registration import own_of
from sottovoce.store.database import Tables, open_store
from sottovoce_wire.ids import AccountId, DeviceId, MessageId
from sottovoce_wire.records import NO_LIST_HASH, ListFlag

from .sdk_client import TEXT


@dataclass(frozen=True)
class _Writer:
    """Somebody who has written: the account, its device, and a session that both sides have used."""

    peer: Peer
    device_id: DeviceId
    session: Session


def fill(path: Path, state: Path, messages: int, sessions: int) -> None:
    """Add so many handled messages, by so many people with a session each, to the store of a registered account.

    `state` is the folder of the store's witness."""
    store = open_store(path, state=state)
    try:
        with store.transaction() as tables:
            account = tables.account.get()
            assert account is not None  # noqa: S101 - it is registered
            own = own_of(tables, account)
            writers = [_make_writer(own, int(time.time())) for _ in range(sessions)]
            for writer in writers:
                tables.peers.put(writer.peer)
                tables.peers.add_contact(writer.peer.account_id)
                tables.sessions.put(writer.session)
            _fill_inbox(tables, writers, messages)
    finally:
        store.close()


def _fill_inbox(tables: Tables, writers: list[_Writer], messages: int) -> None:
    now = time.time_ns() // 1_000_000
    for number in range(messages):
        writer = writers[number % len(writers)]
        ids = MessageId(os.urandom(16)), writer.peer.account_id, writer.device_id
        tables.inbox.add(Incoming(*ids, "." * TEXT, now, now), is_request=False)
    for unhandled in tables.inbox.unhandled(messages):
        tables.inbox.mark_handled(unhandled.position)


def _make_writer(own: Own, now: int) -> _Writer:
    root, device = RootKey.generate(), DeviceKeys.generate()
    entry = device.consent(root.account_id)
    device_list = make_device_list(root, [entry], version=1, previous=NO_LIST_HASH, time=now, flag=ListFlag.NORMAL)
    session = _make_session(own, root.account_id, device, now)
    return _Writer(Peer(root.account_id, root.public, device_list), entry.device_id, session)


def _make_session(own: Own, account_id: AccountId, device: DeviceKeys, now: int) -> Session:
    """This side's half of a session that this side began, and on which an answer has come."""
    entry = device.consent(account_id)
    prekeys, one_time = OwnPrekeys.generate(device, account_id, 1, now), OneTimePrekey.generate(1)
    theirs = open_prekeys(entry, account_id, prekeys.record, now)
    handshake, keys = agreement.initiate(
        own.device, own.account_id, theirs, entry.identity_key, (one_time.id, one_time.public), generation=1
    )
    ours = Ratchet.initiator(keys, theirs.record.signed_prekey, now)
    answer = agreement.respond(device, account_id, prekeys, one_time, handshake)
    other = Ratchet.responder(answer, prekeys.signed_prekey, now)
    _carry(ours, other, now)
    _carry(other, ours, now)
    return Session(keys.session_id, account_id, entry.device_id, 1, ours, None, address_confirmed=True, heard_at=now)


def _carry(sender: Ratchet, receiver: Ratchet, now: int) -> None:
    message = sender.encrypt(b"hello", now)
    expected = receiver.recognise(message)
    assert expected is not None  # noqa: S101 - both are of one session
    receiver.decrypt(message, expected, lambda _chain, _number: None, lambda _steps: None, now)
