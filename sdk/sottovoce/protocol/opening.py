"""Opening envelopes: what an arriving envelope belongs to, and when a handshake makes a session.

Everything is written within the caller's transaction and only after authentication: an envelope that is refused leaves
no trace but its record. Spec: sessions.
"""

import hashlib
from dataclasses import replace
from enum import StrEnum
from typing import Final

from sottovoce_wire.errors import WireError
from sottovoce_wire.frames import KeyClass

from ..crypto import agreement, ratchet, sealed
from ..crypto.errors import CryptoRefusal, Reason
from ..crypto.prekeys import OneTimePrekey, OwnPrekeys
from ..crypto.ratchet import Decrypted, Ratchet
from .content import ContactAddress, decode_body
from .sessions import SESSIONS_PER_DEVICE, listed, newest
from .state import Address, Incoming, Own, Peer, Session, State

#: Skipped message keys kept per session: an attacker who leaves gaps fills this much and no more.
SKIPPED_KEYS: Final = 2_000
#: A handshake may be this many generations ahead of what is known, or a hostile peer could use up the numbers.
GENERATIONS_AHEAD: Final = 1_000
#: Accepted handshakes remembered. Beyond it, those without a one-time prekey are refused: they could be replays.
ACCEPTED_HANDSHAKES: Final = 20_000


class Outcome(StrEnum):
    """What became of an envelope. All three are acknowledged to the relay."""

    NEW = "new"
    REPEAT = "repeat"
    UNDECRYPTABLE = "undecryptable"


class _Refused(Exception):  # noqa: N818 - a reason, turned into Outcome.UNDECRYPTABLE
    """The envelope cannot be read, for a reason that is not the cryptographic core's."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def receive(state: State, own: Own, key_class: KeyClass, envelope: bytes, now_ms: int) -> Outcome:
    """Take in one envelope: store its message, or record why it cannot be read. Never raises for bad input."""
    digest = hashlib.sha256(envelope).digest()
    if state.inbox.seen(digest):
        return Outcome.REPEAT
    state.inbox.remember(digest)
    try:
        return _open(state, own, key_class, envelope, now_ms)
    except CryptoRefusal as refusal:
        reason = str(refusal.reason)
    except _Refused as refused:
        reason = refused.reason
    except WireError as error:
        reason = error.code.name.lower()
    state.inbox.add_undecryptable(digest, reason, now_ms)
    return Outcome.UNDECRYPTABLE


def _open(state: State, own: Own, key_class: KeyClass, envelope: bytes, now_ms: int) -> Outcome:
    if envelope[0] == sealed.KIND_SEALED:
        return _open_sealed(state, own, key_class, envelope, now_ms)
    if key_class is KeyClass.STRANGER:
        raise _Refused("not_sealed")
    session = state.sessions.get(ratchet.message_session_id(envelope))
    if session is None:
        raise _Refused("unknown_session")
    return _read(state, session, envelope, key_class, now_ms)


def _open_sealed(state: State, own: Own, key_class: KeyClass, envelope: bytes, now_ms: int) -> Outcome:
    first, recipient = _unseal(state, own, envelope)
    device_list, entry = sealed.open_sender(first)
    known = state.sessions.get(state.sessions.accepted(first.handshake.digest) or b"")
    if known is not None:
        return _read(state, known, first.message, key_class, now_ms)
    if state.sessions.accepted(first.handshake.digest) is not None:
        raise _Refused("session_wiped")
    presented = Peer(device_list.account_id, first.root_public, first.device_list)
    peer = newest(state.peers.get(presented.account_id), presented)
    listed(peer, entry.device_id)
    session, one_time = _respond(state, own, recipient, first)
    outcome = _read(state, session, first.message, key_class, now_ms)
    state.peers.put(peer)
    state.sessions.accept(first.handshake.digest, session.session_id, recipient.record_id)
    if one_time is not None:
        state.prekeys.use_one_time(one_time.id)
    state.sessions.prune(session.account_id, session.device_id, SESSIONS_PER_DEVICE)
    return outcome


def _unseal(state: State, own: Own, envelope: bytes) -> tuple[sealed.FirstMessage, OwnPrekeys]:
    """Open under whichever own prekeys fit: the wire names the record id modulo 256 only."""
    for candidate in state.prekeys.records(sealed.sealed_record_id(envelope)):
        try:
            content = sealed.open_sealed(candidate, own.account_id, own.device.device_id, envelope)
        except CryptoRefusal as refusal:
            if refusal.reason is not Reason.NOT_AUTHENTIC:
                raise
        else:
            return sealed.FirstMessage.parse(content), candidate
    raise CryptoRefusal(Reason.UNKNOWN_PREKEY, "sealed to prekeys that are not here, or altered")


def _respond(
    state: State, own: Own, recipient: OwnPrekeys, first: sealed.FirstMessage
) -> tuple[Session, OneTimePrekey | None]:
    """Make the responder's session. Nothing is stored yet: the first message must authenticate before."""
    handshake = first.handshake
    existing = state.sessions.of_device(handshake.account_id, handshake.device_id)
    if handshake.generation > GENERATIONS_AHEAD + (existing[0].generation if existing else 0):
        raise _Refused("generation_too_far_ahead")
    one_time = None
    if handshake.one_time_id is not None:
        one_time = state.prekeys.one_time(handshake.one_time_id)
        if one_time is None:
            raise CryptoRefusal(Reason.UNKNOWN_PREKEY, "the one-time prekey was used before")
    elif state.sessions.accepted_count() >= ACCEPTED_HANDSHAKES:
        raise _Refused("too_many_handshakes")
    keys = agreement.respond(own.device, own.account_id, recipient, one_time, handshake)
    fresh = Ratchet.responder(keys, recipient.signed_prekey).pack()
    session = Session(
        keys.session_id, handshake.account_id, handshake.device_id, handshake.generation, fresh, None, False
    )
    return session, one_time


def _read(state: State, session: Session, message: bytes, key_class: KeyClass, now_ms: int) -> Outcome:
    """Decrypt on a session and, only if all of it holds, store the state and the message."""
    moving = Ratchet.unpack(session.ratchet)
    opened = moving.decrypt(message, lambda key, number: state.sessions.skipped_key(session.session_id, key, number))
    body = decode_body(opened.body)
    heard = key_class is KeyClass.CONTACT
    state.sessions.put(
        replace(
            session,
            ratchet=moving.pack(),
            unanswered=None,
            address_confirmed=session.address_confirmed or heard,
        )
    )
    _keep_skipped(state, session.session_id, opened)
    if body.contact is not None:
        state.peers.put_address(session.account_id, session.device_id, _address(body.contact))
    stored = state.inbox.add(
        Incoming(
            body.content.message_id,
            session.account_id,
            session.device_id,
            body.content.text,
            body.content.sent_at,
            now_ms,
        )
    )
    return Outcome.NEW if stored else Outcome.REPEAT


def _keep_skipped(state: State, session_id: bytes, opened: Decrypted) -> None:
    if opened.used is not None:
        state.sessions.remove_skipped(session_id, *opened.used)
    if opened.skipped:
        state.sessions.add_skipped(session_id, opened.skipped, keep=SKIPPED_KEYS)


def _address(contact: ContactAddress) -> Address:
    return Address(contact.origin, contact.queue, contact.send_key, KeyClass.CONTACT)
