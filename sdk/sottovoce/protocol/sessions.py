"""Sessions as they send: when a handshake makes one, which one sends, and the fan-out to a recipient's devices.
A session that was replaced receives for a while, and never sends again.

Every function works on a `State` within the caller's transaction. Spec: sessions.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from sottovoce_wire import limits, records
from sottovoce_wire.frames import KeyClass, Ttl
from sottovoce_wire.ids import AccountId, DeviceId, EnvelopeId, MessageId

from ..crypto import agreement, identity, prekeys, primitives, sealed
from ..crypto.errors import CryptoRefusal, Reason
from ..crypto.ratchet import Ratchet
from . import healing
from .content import Acknowledgement, Body, ContactAddress, Content, Receipt, Text, encode_body
from .state import Address, FirstContact, Outgoing, Own, Peer, Session, State, Want

#: Sessions kept with one device besides the one that sends. They only receive.
REPLACED_SESSIONS: Final = 4
#: Device lists kept parsed, some 2 KiB each at most: both sides' are looked at for every message.
PARSED_LISTS: Final = 512
#: How long: the longest life of an envelope, and a day.
REPLACED_LIFETIME: Final = 31 * limits.DAY


@dataclass(frozen=True, slots=True)
class Bundle:
    """A device's prekey bundle, verified: its list entry, signed records, and a one-time prekey if there was one."""

    account_id: AccountId
    entry: records.DeviceEntry
    prekey_record: bytes
    prekeys: prekeys.PeerPrekeys
    one_time: tuple[int, bytes] | None
    address: Address


@lru_cache(maxsize=PARSED_LISTS)
def parse_list(device_list: bytes) -> records.DeviceList:
    """The contents of a signed device list that was verified before it was stored."""
    payload, _ = records.split_signed(device_list)
    return records.DeviceList.parse(payload)


def newest(known: Peer | None, presented: Peer) -> Peer:
    """The one with the newer device list; `presented` is verified. Raises CryptoRefusal on a fork or a broken chain."""
    if known is None:
        return presented
    try:
        identity.check_successor(known.device_list, presented.device_list, known.root_public)
    except CryptoRefusal as refusal:
        if refusal.reason is Reason.STALE_LIST:
            return known
        raise
    return presented


def listed(peer: Peer, device_id: DeviceId) -> records.DeviceEntry:
    """The device's entry in the peer's list. Raises CryptoRefusal (NOT_LISTED)."""
    for entry in parse_list(peer.device_list).devices:
        if entry.device_id == device_id:
            return entry
    raise CryptoRefusal(Reason.NOT_LISTED, "the device is not on its account's list")


def missing(state: State, account_id: AccountId, now: int) -> list[DeviceId] | None:
    """The devices of an account that a handshake is needed with; None if the account is not known at all."""
    peer = state.peers.get(account_id)
    if peer is None:
        return None
    devices = [entry.device_id for entry in parse_list(peer.device_list).devices]
    return [device for device in devices if sending_session(state, account_id, device, now) is None]


def fan_out(state: State, own: Own, account_id: AccountId, text: Text, ttl: Ttl, now: int) -> list[Outgoing]:
    """Encrypt `text` for every device of the account that has a session; one final envelope each.

    Raises CryptoRefusal (CHAIN_ENDED)."""
    peer = state.peers.get(account_id)
    if peer is None:
        return []
    return _to_all(state, own, peer, text.message_id, text, ttl, now)


def tell(state: State, own: Own, account_id: AccountId, receipt: Receipt, now: int) -> list[Outgoing]:
    """A receipt for every device of the account that has a session. Raises CryptoRefusal (CHAIN_ENDED)."""
    peer = state.peers.get(account_id)
    if peer is None:
        return []
    return _to_all(state, own, peer, MessageId(primitives.random_bytes(16)), receipt, Ttl.MONTH, now)


def repeat(
    state: State, own: Own, account_id: AccountId, device_id: DeviceId, text: Text, ttl: Ttl, now: int
) -> Outgoing | None:
    """A text that was sent before, for one device that has another session by now; None if it has none.

    Raises CryptoRefusal (CHAIN_ENDED)."""
    return _envelope(state, own, account_id, device_id, text.message_id, text, ttl, now)


def _to_all(
    state: State, own: Own, peer: Peer, message_id: MessageId, content: Content, ttl: Ttl, now: int
) -> list[Outgoing]:
    devices = [entry.device_id for entry in parse_list(peer.device_list).devices]
    found = [_envelope(state, own, peer.account_id, device, message_id, content, ttl, now) for device in devices]
    return [envelope for envelope in found if envelope is not None]


def acknowledge(state: State, own: Own, account_id: AccountId, device_id: DeviceId, now: int) -> Outgoing | None:
    """A sign of life for one device, in the smallest size class; None if there is no session to send it on."""
    message_id = MessageId(primitives.random_bytes(16))
    return _envelope(state, own, account_id, device_id, message_id, Acknowledgement(), Ttl.MONTH, now)


def _envelope(
    state: State,
    own: Own,
    account_id: AccountId,
    device_id: DeviceId,
    message_id: MessageId,
    content: Content,
    ttl: Ttl,
    now: int,
) -> Outgoing | None:
    session = sending_session(state, account_id, device_id, now)
    address = state.peers.address(account_id, device_id)
    if session is None or address is None:
        return None
    envelope = encrypt(state, own, session, content, now)
    envelope_id = EnvelopeId(primitives.random_bytes(16))
    return Outgoing(message_id, account_id, device_id, envelope_id, address, ttl, envelope)


def start(state: State, own: Own, bundle: Bundle, now: int) -> None:
    """Make a session as initiator (PQXDH). It sends from now on, sealed until the device answers.

    Raises CryptoRefusal."""
    device_id = bundle.entry.device_id
    existing = state.sessions.sending(bundle.account_id, device_id)
    generation = 1 + (existing.generation if existing is not None else 0)
    handshake, keys = agreement.initiate(
        own.device, own.account_id, bundle.prekeys, bundle.entry.identity_key, bundle.one_time, generation
    )
    fresh = Ratchet.initiator(keys, bundle.prekeys.record.signed_prekey, now)
    unanswered = FirstContact(handshake.pack(), bundle.prekey_record)
    add(state, Session(keys.session_id, bundle.account_id, device_id, generation, fresh, unanswered, heard_at=now), now)
    state.routing.announce(keys.session_id, fresh.expected())
    if state.peers.is_contact(bundle.account_id):
        state.routing.befriend(keys.session_id)
    prune(state, bundle.account_id, device_id)
    is_refused = state.wants.is_wanted(bundle.account_id, device_id, Want.REFUSED)
    state.wants.done(bundle.account_id, device_id, now)
    known = state.peers.address(bundle.account_id, device_id)
    # A contact address came end to end: better than this, as long as the relay knows it.
    if known is None or known.key_class is KeyClass.STRANGER or is_refused:
        state.peers.put_address(bundle.account_id, device_id, bundle.address)


def add(state: State, session: Session, now: int) -> None:
    """Store a new session. If its rank is the greatest it sends from now on, and the one before only receives."""
    before = state.sessions.sending(session.account_id, session.device_id)
    if before is None or session.rank > before.rank:
        if before is not None:
            state.sessions.put(replace(before, replaced_at=now))
            healing.replaced(state, before, session, now)
        state.sessions.put(session)
    else:
        state.sessions.put(replace(session, replaced_at=now))


def prune(state: State, account_id: AccountId, device_id: DeviceId) -> None:
    """Wipe replaced sessions with a device, those first that were replaced first, until few enough are left."""
    _, *replaced = state.sessions.of_device(account_id, device_id)
    replaced.sort(key=lambda session: (session.replaced_at or 0, session.rank), reverse=True)
    for session in replaced[REPLACED_SESSIONS:]:
        wipe(state, session)


def wipe(state: State, session: Session) -> None:
    """Wipe a session with all its keys and tags."""
    tags = [tag for window in session.ratchet.expected() for tag in window.tags]
    state.routing.forget(session.session_id, [*tags, *state.sessions.skipped_tags(session.session_id)])
    state.sessions.wipe(session.session_id)


def sending_session(state: State, account_id: AccountId, device_id: DeviceId, now: int) -> Session | None:
    """The session that sends to a device; None if a handshake is needed: there is none yet, its prekeys have expired,
    the device has lost it, the relay does not know the device's address, or this store was put back from a copy."""
    session = state.sessions.sending(account_id, device_id)
    if session is None or session.replaced_at is not None:
        return None
    if state.wants.is_wanted(account_id, device_id, Want.LOST, Want.REFUSED):
        return None
    first = session.unanswered
    if first is not None:
        payload, _ = records.split_signed(first.prekey_record)
        if records.PrekeyRecord.parse(payload).expires <= now:
            return None
    return session


def encrypt(state: State, own: Own, session: Session, content: Content, now: int) -> bytes:
    """Encrypt `content` on `session`, advance it, and return the final envelope. Raises CryptoRefusal (CHAIN_ENDED)."""
    if session.told_from is None:
        session = replace(session, told_from=session.ratchet.answered_from)
    message = session.ratchet.encrypt(encode_body(_body(state, own, session, content)), now)
    envelope = message if session.unanswered is None else _seal(state, own, session, session.unanswered, message, now)
    state.sessions.put(healing.spoke(session, now, asks=isinstance(content, Text)))
    return envelope


def own_address(state: State, own: Own) -> ContactAddress:
    """Where contacts answer, and the key that they are given now."""
    return ContactAddress(own.contact.origin, own.contact.queue, state.account.contact_key())


def _body(state: State, own: Own, session: Session, content: Content) -> Body:
    payload, _ = records.split_signed(own.device_list)
    contact = None if session.address_confirmed else own_address(state, own)
    return Body(parse_list(own.device_list).version, records.device_list_hash(payload)[:8], contact, content)


def _seal(state: State, own: Own, session: Session, first: FirstContact, message: bytes, now: int) -> bytes:
    peer = state.peers.get(session.account_id)
    if peer is None:
        raise CryptoRefusal(Reason.NOT_LISTED, "the account is not known")
    entry = listed(peer, session.device_id)
    recipient = prekeys.open_prekeys(entry, session.account_id, first.prekey_record, now)
    handshake = agreement.Handshake.parse(first.handshake)
    content = sealed.FirstMessage(handshake, own.root_public, own.device_list, message)
    return sealed.seal(recipient, content.pack())
