"""Who may reach the person: requests of strangers, contacts, blocked accounts, and what an account's new device list
changes.

Every function works on a `State` within the caller's transaction. Nothing here is sent. Spec: contacts.
"""

from datetime import UTC, datetime
from typing import Final

from sottovoce_wire import limits
from sottovoce_wire.ids import AccountId, account_id_text
from sottovoce_wire.records import ListFlag

from .. import events
from . import contact_key, sessions
from .state import Incoming, Peer, State

#: Messages of one stranger that wait to be accepted, and bytes of their text: what one may have waiting at a relay.
REQUEST_MESSAGES: Final = 2_000
REQUEST_BYTES: Final = 16 * limits.MIB
#: Strangers whose messages wait at once, and bytes of all their text. What comes beyond is counted, not kept.
REQUESTS: Final = 200
REQUESTS_BYTES: Final = 64 * limits.MIB


def admit(state: State, message: Incoming, *, everyone: bool) -> bool | None:
    """Store a message where it belongs: whether it is new there. None if it is not kept at all.

    `everyone`: whoever writes is accepted at once."""
    account_id = message.account_id
    if state.peers.is_blocked(account_id):
        return None
    if everyone and not state.peers.is_contact(account_id):
        accept(state, account_id)
    if state.peers.is_contact(account_id):
        return state.inbox.add(message, is_request=False)
    messages, size = state.inbox.request(account_id)
    accounts, total = state.inbox.requests()
    is_full = messages >= REQUEST_MESSAGES or size >= REQUEST_BYTES or total >= REQUESTS_BYTES
    if is_full or (not messages and accounts >= REQUESTS):
        state.inbox.drop_request(account_id)
        state.events.add(events.RequestsFull(_moment(message.received_at)))
        return None
    stored = state.inbox.add(message, is_request=True)
    if stored and not messages:
        state.events.add(events.RequestArrived(_moment(message.received_at), account_id_text(account_id)))
    return stored


def accept(state: State, account_id: AccountId) -> None:
    """The account, which is known, is a contact from now on; what it has written is shown."""
    if state.peers.is_contact(account_id):
        return
    state.peers.add_contact(account_id)
    for session in state.sessions.of_account(account_id):
        state.routing.befriend(session.session_id)
    state.inbox.accept(account_id)
    _answered(state, account_id)


def decline(state: State, account_id: AccountId) -> None:
    """Delete what the account has written. It stays a stranger, and may ask again."""
    state.inbox.decline(account_id)
    state.receipts.forget(account_id)
    _answered(state, account_id)


def block(state: State, account_id: AccountId) -> None:
    """Show nothing of the account from now on. Its messages are still read, so that its sessions stay whole.

    Only contacts are ever given the key of the contact queue, so that blocking others costs nobody a new one."""
    if state.peers.is_contact(account_id):
        contact_key.want(state)
    decline(state, account_id)
    state.peers.block(account_id)
    for session in state.sessions.of_account(account_id):
        state.routing.estrange(session.session_id)


def _answered(state: State, account_id: AccountId) -> None:
    state.events.withdraw(events.RequestArrived, account_id_text(account_id))


def learn(state: State, presented: Peer, now: int) -> None:
    """Store what an account has proven, if it is newer, and tell of it. Sessions with devices that it has taken off its
    list are wiped. `presented` is verified by itself; `now` is unix seconds.

    Raises CryptoRefusal as `sessions.newest`."""
    known = state.peers.get(presented.account_id)
    peer = sessions.newest(known, presented)
    if known is not None and peer.device_list == known.device_list:
        return
    replace_list(state, peer, now)


def replace_list(state: State, peer: Peer, now: int) -> None:
    """Store an account's list in the place of any other; what follows from it, and the event."""
    known = state.peers.get(peer.account_id)
    state.peers.put(peer)
    state.peers.reached(peer.account_id, sessions.parse_list(peer.device_list).version)
    listed = {entry.device_id for entry in sessions.parse_list(peer.device_list).devices}
    for session in state.sessions.of_account(peer.account_id):
        if session.device_id not in listed:
            sessions.wipe(state, session)
    if known is not None and _is_told_of(state, peer.account_id):
        _tell(state, known, peer, now)


def _is_told_of(state: State, account_id: AccountId) -> bool:
    """Contacts, and strangers who wait for an answer. Others can be any number, and would drown what matters."""
    return state.peers.is_contact(account_id) or state.inbox.request(account_id) != (0, 0)


def _tell(state: State, known: Peer, peer: Peer, now: int) -> None:
    before, after = sessions.parse_list(known.device_list), sessions.parse_list(peer.device_list)
    at, name = _moment(now * 1000), account_id_text(peer.account_id)
    if after.flag is ListFlag.FINAL:
        state.events.add(events.AccountEnded(at, name))
        return
    had, has = ({entry.device_id for entry in device_list.devices} for device_list in (before, after))
    is_recovery = after.flag is ListFlag.RECOVERY
    added = len(has) if is_recovery else len(has - had)
    state.events.add(events.DevicesChanged(at, name, added, len(had - has), is_recovery))


def note_fork(state: State, account_id: AccountId, device_list: bytes, now: int) -> None:
    """Keep a second list, which the account's root key has signed for one place in the chain. Nothing is sent to the
    account until the person has decided."""
    if state.peers.forked_list(account_id) is None:
        state.peers.set_forked_list(account_id, device_list)
        if _is_told_of(state, account_id):
            state.events.add(events.AccountForked(_moment(now * 1000), account_id_text(account_id)))


def note_behind(state: State, account_id: AccountId, now: int) -> None:
    """The keyserver does not have the list that an account names itself."""
    state.events.add(events.KeyserverBehind(_moment(now * 1000), account_id_text(account_id)))


def note_clone(state: State, session_id: bytes, now_ms: int) -> None:
    """Two messages came under one number of a session."""
    session = state.sessions.peek(session_id)
    if session is not None and state.peers.is_contact(session.account_id):
        state.events.add(events.CloneSuspected(_moment(now_ms), account_id_text(session.account_id)))


def settle_fork(state: State, account_id: AccountId, now: int, *, take_other: bool) -> None:
    """The person has decided which of two lists counts: the one that was known, or the other."""
    known, other = state.peers.get(account_id), state.peers.forked_list(account_id)
    if known is None or other is None:
        return
    state.peers.set_forked_list(account_id, None)
    if take_other:
        replace_list(state, Peer(account_id, known.root_public, other), now)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
