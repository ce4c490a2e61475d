"""Opening envelopes: what an arriving envelope belongs to, and when a handshake makes a session.

Everything is written within the caller's transaction and only after authentication: an envelope that is refused leaves
no trace but its record. Spec: sessions.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from typing import Final

from sottovoce_wire.errors import WireError
from sottovoce_wire.frames import KeyClass
from sottovoce_wire.origins import may_dial

from .. import errors
from ..crypto import agreement, ratchet, sealed
from ..crypto.errors import CryptoRefusal, Reason
from ..crypto.prekeys import OneTimePrekey, OwnPrekeys
from ..crypto.ratchet import Decrypted, Ratchet
from .content import ContactAddress, decode_body
from .sessions import SESSIONS_PER_DEVICE, listed, newest
from .state import Address, Incoming, Own, Peer, Session, State

#: Skipped message keys kept per session: an attacker who leaves gaps fills this much and no more.
SKIPPED_KEYS: Final = 2_000
#: Steps along a session's chains in one hour. A forged number costs a walk, and anybody on the way can forge one.
STEPS_PER_HOUR: Final = 100_000
#: A handshake may be this many generations ahead of what is known, or a hostile peer could use up the numbers.
GENERATIONS_AHEAD: Final = 1_000
#: Handshakes remembered for one prekey record. Beyond it, those without a one-time prekey are refused: they could be
#: replays. At half of it the prekeys are renewed.
ACCEPTED_HANDSHAKES: Final = 20_000

_log: Final = logging.getLogger("sottovoce")


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


class StepBudget:
    """How far each session has walked in this hour. A session that has spent its steps is refused more."""

    _SESSIONS = 10_000

    def __init__(self) -> None:
        self._hour = 0
        self._spent: dict[bytes, int] = {}

    def spend(self, session_id: bytes, steps: int, now: int) -> None:
        """Take `steps` off the session's budget. Raises CryptoRefusal (TOO_FAR_AHEAD) if it has fewer left."""
        if self._hour != now // 3600 or len(self._spent) > self._SESSIONS:
            self._hour = now // 3600
            self._spent.clear()
        spent = self._spent.get(session_id, 0) + steps
        if spent > STEPS_PER_HOUR:
            raise CryptoRefusal(Reason.TOO_FAR_AHEAD, "the session has walked too far in this hour")
        if steps:
            self._spent[session_id] = spent


class Opener:
    """Takes in envelopes for one device."""

    def __init__(self, own: Own) -> None:
        self._own = own
        self._budget = StepBudget()

    def receive(self, state: State, envelope: bytes, now_ms: int, *, sealed_only: bool) -> Outcome:
        """Take in one envelope: store its message, or record why it cannot be read.

        `sealed_only` is for queues that strangers can write to. Raises only StoreError: whatever else goes wrong in an
        envelope is recorded, and what it wrote is taken back, so that none can block those behind it.
        """
        digest = hashlib.sha256(envelope).digest()
        if state.inbox.seen(digest):
            return Outcome.REPEAT
        state.inbox.remember(digest)
        try:
            with state.savepoint():
                return self._open(state, envelope, now_ms, sealed_only)
        except CryptoRefusal as refusal:
            reason = str(refusal.reason)
        except _Refused as refused:
            reason = refused.reason
        except WireError as error:
            reason = error.code.name.lower()
        except errors.StoreError:
            raise
        except Exception as error:
            _log.error("an envelope met a fault of this library: %s", type(error).__name__)
            reason = "internal_error"
        state.inbox.add_undecryptable(digest, reason, now_ms)
        return Outcome.UNDECRYPTABLE

    def _open(self, state: State, envelope: bytes, now_ms: int, sealed_only: bool) -> Outcome:
        if envelope[:1] == bytes([sealed.KIND_SEALED]):
            return self._open_sealed(state, envelope, now_ms, sealed_only)
        if sealed_only:
            raise _Refused("not_sealed")
        session = state.sessions.get(ratchet.message_session_id(envelope))
        if session is None:
            raise _Refused("unknown_session")
        return self._read(state, session, envelope, now_ms, sealed_only)

    def _open_sealed(self, state: State, envelope: bytes, now_ms: int, sealed_only: bool) -> Outcome:
        first, recipient = self._unseal(state, envelope)
        device_list, entry = sealed.open_sender(first)
        made = state.sessions.accepted(first.handshake.digest)
        if made is not None:
            known = state.sessions.get(made)
            if known is None:
                raise _Refused("session_wiped")
            return self._read(state, known, first.message, now_ms, sealed_only)
        presented = Peer(device_list.account_id, first.root_public, first.device_list)
        peer = newest(state.peers.get(presented.account_id), presented)
        listed(peer, entry.device_id)
        session, one_time = self._respond(state, recipient, first)
        outcome = self._read(state, session, first.message, now_ms, sealed_only)
        state.peers.put(peer)
        state.sessions.accept(first.handshake.digest, session.session_id, recipient.record_id)
        if one_time is not None:
            state.prekeys.use_one_time(one_time.id)
        state.sessions.prune(session.account_id, session.device_id, SESSIONS_PER_DEVICE)
        return outcome

    def _unseal(self, state: State, envelope: bytes) -> tuple[sealed.FirstMessage, OwnPrekeys]:
        """Open under whichever own prekeys fit: the wire names the record id modulo 256 only."""
        own = self._own
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
        self, state: State, recipient: OwnPrekeys, first: sealed.FirstMessage
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
        elif state.sessions.accepted_count(recipient.record_id) >= ACCEPTED_HANDSHAKES:
            raise _Refused("too_many_handshakes")
        keys = agreement.respond(self._own.device, self._own.account_id, recipient, one_time, handshake)
        fresh = Ratchet.responder(keys, recipient.signed_prekey).pack()
        session = Session(
            keys.session_id, handshake.account_id, handshake.device_id, handshake.generation, fresh, None, False
        )
        return session, one_time

    def _read(self, state: State, session: Session, message: bytes, now_ms: int, sealed_only: bool) -> Outcome:
        """Decrypt on a session and, only if all of it holds, store the state and the message."""
        moving = Ratchet.unpack(session.ratchet)
        opened = moving.decrypt(message, _finder(state, session), self._spender(session, now_ms))
        body = decode_body(opened.body)
        confirmed = session.address_confirmed or not sealed_only
        state.sessions.put(replace(session, ratchet=moving.pack(), unanswered=None, address_confirmed=confirmed))
        _keep_skipped(state, session.session_id, opened)
        if body.contact is not None and may_dial(body.contact.origin, own=self._own.server):
            state.peers.put_address(session.account_id, session.device_id, _address(body.contact))
        content, sender = body.content, (session.account_id, session.device_id)
        stored = state.inbox.add(Incoming(content.message_id, *sender, content.text, content.sent_at, now_ms))
        return Outcome.NEW if stored else Outcome.REPEAT

    def _spender(self, session: Session, now_ms: int) -> Callable[[int], None]:
        return lambda steps: self._budget.spend(session.session_id, steps, now_ms // 1000)


def _finder(state: State, session: Session) -> ratchet.FindSkipped:
    return lambda key, number: state.sessions.skipped_key(session.session_id, key, number)


def _keep_skipped(state: State, session_id: bytes, opened: Decrypted) -> None:
    if opened.used is not None:
        state.sessions.remove_skipped(session_id, *opened.used)
    if opened.skipped:
        state.sessions.add_skipped(session_id, opened.skipped, keep=SKIPPED_KEYS)


def _address(contact: ContactAddress) -> Address:
    return Address(contact.origin, contact.queue, contact.send_key, KeyClass.CONTACT)
