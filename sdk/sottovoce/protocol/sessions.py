"""Sessions as they send: when a handshake makes one, which one sends, and the fan-out to a recipient's devices.

Every function works on a `State` within the caller's transaction. Spec: sessions.
"""

from dataclasses import dataclass, replace
from typing import Final

from sottovoce_wire import records
from sottovoce_wire.frames import KeyClass, Ttl
from sottovoce_wire.ids import AccountId, DeviceId, EnvelopeId

from ..crypto import agreement, identity, prekeys, primitives, sealed
from ..crypto.errors import CryptoRefusal, Reason
from ..crypto.ratchet import Ratchet
from .content import Body, Content, encode_body
from .state import Address, FirstContact, Outgoing, Own, Peer, Session, State

#: Sessions kept with one device: the one that sends, and four that only receive.
SESSIONS_PER_DEVICE: Final = 5


@dataclass(frozen=True, slots=True)
class Bundle:
    """A device's prekey bundle, verified: its list entry, signed records, and a one-time prekey if there was one."""

    account_id: AccountId
    entry: records.DeviceEntry
    prekey_record: bytes
    prekeys: prekeys.PeerPrekeys
    one_time: tuple[int, bytes] | None
    address: Address


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


def fan_out(state: State, own: Own, account_id: AccountId, content: Content, ttl: Ttl, now: int) -> list[Outgoing]:
    """Encrypt `content` for every device of the account that has a session; one final envelope each."""
    peer = state.peers.get(account_id)
    found: list[Outgoing] = []
    for entry in parse_list(peer.device_list).devices if peer is not None else ():
        session = sending_session(state, account_id, entry.device_id, now)
        address = state.peers.address(account_id, entry.device_id)
        if session is None or address is None:
            continue
        envelope = encrypt(state, own, session, content, now)
        envelope_id = EnvelopeId(primitives.random_bytes(16))
        found.append(Outgoing(content.message_id, account_id, entry.device_id, envelope_id, address, ttl, envelope))
    return found


def start(state: State, own: Own, bundle: Bundle) -> None:
    """Make a session as initiator (PQXDH). It sends from now on, sealed until the device answers.

    Raises CryptoRefusal."""
    device_id = bundle.entry.device_id
    existing = state.sessions.of_device(bundle.account_id, device_id)
    generation = 1 + (existing[0].generation if existing else 0)
    handshake, keys = agreement.initiate(
        own.device, own.account_id, bundle.prekeys, bundle.entry.identity_key, bundle.one_time, generation
    )
    fresh = Ratchet.initiator(keys, bundle.prekeys.record.signed_prekey)
    unanswered = FirstContact(handshake.pack(), bundle.prekey_record)
    state.sessions.put(
        Session(keys.session_id, bundle.account_id, device_id, generation, fresh.pack(), unanswered, False)
    )
    state.sessions.prune(bundle.account_id, device_id, SESSIONS_PER_DEVICE)
    known = state.peers.address(bundle.account_id, device_id)
    if known is None or known.key_class is KeyClass.STRANGER:  # a contact address came end to end: better than this
        state.peers.put_address(bundle.account_id, device_id, bundle.address)


def sending_session(state: State, account_id: AccountId, device_id: DeviceId, now: int) -> Session | None:
    """The session that sends to a device; None if a handshake is needed (none yet, or its prekeys have expired)."""
    sessions = state.sessions.of_device(account_id, device_id)
    if not sessions:
        return None
    first = sessions[0].unanswered
    if first is not None:
        payload, _ = records.split_signed(first.prekey_record)
        if records.PrekeyRecord.parse(payload).expires <= now:
            return None
    return sessions[0]


def encrypt(state: State, own: Own, session: Session, content: Content, now: int) -> bytes:
    """Encrypt `content` on `session`, advance it, and return the final envelope. Raises CryptoRefusal (CHAIN_ENDED)."""
    moving = Ratchet.unpack(session.ratchet)
    message = moving.encrypt(encode_body(_body(own, session, content)))
    envelope = message if session.unanswered is None else _seal(state, own, session, session.unanswered, message, now)
    state.sessions.put(replace(session, ratchet=moving.pack()))
    return envelope


def _body(own: Own, session: Session, content: Content) -> Body:
    payload, _ = records.split_signed(own.device_list)
    contact = None if session.address_confirmed else own.contact
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
