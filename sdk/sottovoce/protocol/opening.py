"""Opening envelopes: what an arriving envelope belongs to, and when a handshake makes a session.

Everything is written within the caller's transaction and only after authentication: an envelope that is refused leaves
no trace but its record, and one that belongs to nothing yet is held. Spec: sessions.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from sottovoce_wire import limits
from sottovoce_wire.errors import WireError

from .. import errors
from ..crypto import agreement, primitives, sealed
from ..crypto import message as layout
from ..crypto.errors import CryptoRefusal, Reason
from ..crypto.prekeys import OneTimePrekey, OwnPrekeys
from ..crypto.ratchet import Ratchet, windows_of
from . import contacts, healing, sessions
from .budgets import SearchBudget
from .reading import Opened, Outcome, Reader, Spent
from .routing import Found
from .sessions import listed, newest
from .state import Held, Own, Peer, Session, State, Want

T = TypeVar("T")

#: A handshake may be this many generations ahead of what is known, or a hostile peer could use up the numbers.
GENERATIONS_AHEAD: Final = 1_000
#: Sessions that one search tries, those heard from last first: of contacts, and of others, who can have any number.
SEARCHED_SESSIONS: Final = 1_920
SEARCHED_STRANGERS: Final = 128
#: What belongs to nothing waits this long, and so do the keys of messages that have not come: each key kept is a
#: message that a thief of the store could still read.
HELD_FOR: Final = 7 * limits.DAY
SKIPPED_KEPT_FOR: Final = 7 * limits.DAY
#: Handshakes remembered for one prekey record. Beyond it, those without a one-time prekey are refused: they could be
#: replays. At half of it the prekeys are renewed.
ACCEPTED_HANDSHAKES: Final = 20_000

_log: Final = logging.getLogger("sottovoce")


class _Refused(Exception):  # noqa: N818 - a reason, turned into Outcome.UNDECRYPTABLE
    """The envelope cannot be read, for a reason that is not the cryptographic core's."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Opener:
    """Takes in envelopes for one device. Times ending in `_ms` are milliseconds since 1970, others unix seconds."""

    def __init__(self, own: Own) -> None:
        self._own = own
        self._reader = Reader(own)
        self._searches = SearchBudget()

    def receive(self, state: State, envelope: bytes, now_ms: int, *, sealed_only: bool) -> Outcome:
        """Take in one envelope: store its message, hold it, or record why it cannot be read.

        `sealed_only` is for queues that strangers can write to. Raises only StoreError: whatever else goes wrong in an
        envelope is recorded, and what it wrote is taken back, so that none can block those behind it.
        """
        is_sealed = envelope[:1] == bytes([sealed.KIND_SEALED])
        digest = primitives.sha256(envelope)
        if sealed_only and not is_sealed:  # before anything that costs: anybody can send this
            return Outcome.DROPPED
        if state.inbox.seen(digest) if is_sealed else state.inbox.seen(digest, _head_digest(envelope)):
            return Outcome.REPEAT
        outcome = (
            self._receive_sealed(state, envelope, digest, now_ms)
            if is_sealed
            else self._receive_message(state, envelope, digest, now_ms)
        )
        if is_sealed or outcome in (Outcome.UNDECRYPTABLE, Outcome.HELD):
            state.inbox.remember(digest)
        return outcome

    def tend(self, state: State, now_ms: int) -> None:
        """What time brings: wipe what is too old, and look again for messages that could not be searched for."""
        now = now_ms // 1000
        for session in state.sessions.replaced(now - sessions.REPLACED_LIFETIME):
            sessions.wipe(state, session)
        for session_id, tag in state.sessions.expire_skipped(now - SKIPPED_KEPT_FOR):
            state.routing.withdraw(session_id, [tag])
        for digest in state.held.expire(now - HELD_FOR):
            self._record(state, digest, "unknown_session", now_ms)
        self.search_again(state, now_ms)

    def search_again(self, state: State, now_ms: int) -> None:
        """Look at what is held: for tags that were announced since, for sessions that have steps again, and, as far as
        the budget goes, by header key for what no search was made for."""
        for held in state.held.all():
            found = self._find_again(state, held, now_ms)
            if found is not None:
                self._receive_held(state, held, found, now_ms)

    def _find_again(self, state: State, held: Held, now_ms: int) -> Found | None:
        if held.retry_at > now_ms // 1000:
            return None
        found = state.routing.find(held.tag)
        if found is not None:
            return found
        message = None
        if held.session_id is not None:
            state.held.wait(held.position, held.session_id, _next_hour(now_ms))
            message = state.held.message(held.position)
            return None if message is None else _recognise(state, [held.session_id], message)
        if not held.is_searched and self._searches.take(now_ms):
            state.held.mark_searched(held.position)
            message = state.held.message(held.position)
        return None if message is None else self._search(state, message)

    def _record(self, state: State, digest: bytes, reason: str, now_ms: int) -> Outcome:
        state.inbox.add_undecryptable(digest, reason, now_ms)
        return Outcome.UNDECRYPTABLE

    def _attempt(self, state: State, work: Callable[[], T]) -> T | CryptoRefusal | _Refused | Spent:
        """Do `work`, all or nothing; why it could not be done is returned."""
        try:
            with state.savepoint():
                return work()
        except (CryptoRefusal, _Refused, Spent) as refusal:
            return refusal
        except WireError as error:
            return _Refused(error.code.name.lower())
        except errors.StoreError:
            raise
        except Exception as error:
            _log.error("an envelope met a fault of this library: %s", type(error).__name__)
            return _Refused("internal_error")

    # --- Messages of a session -----------------------------------------------------------------------------------

    def _receive_message(self, state: State, envelope: bytes, digest: bytes, now_ms: int) -> Outcome:
        try:
            found = state.routing.find(layout.routing_tag(envelope))
        except CryptoRefusal as refusal:
            return self._record(state, digest, refusal.reason, now_ms)
        may_search = found is None and self._searches.take(now_ms)
        if may_search:
            found = self._search(state, envelope)
        if found is None:
            return self._hold(state, envelope, digest, now_ms, is_searched=may_search)
        return self._receive_found(state, envelope, digest, found, now_ms)

    def _search(self, state: State, envelope: bytes) -> Found | None:
        """Try the header keys of the sessions that were heard from last."""
        return _recognise(state, state.routing.newest(SEARCHED_SESSIONS, SEARCHED_STRANGERS), envelope)

    def _hold(self, state: State, envelope: bytes, digest: bytes, now_ms: int, *, is_searched: bool) -> Outcome:
        tag, now = layout.routing_tag(envelope), now_ms // 1000
        for given_up in state.held.add(envelope, digest, tag, now, is_searched=is_searched):
            self._record(state, given_up, "unknown_session", now_ms)
        return Outcome.HELD

    def _wait(
        self, state: State, envelope: bytes, digest: bytes, session_id: bytes, now_ms: int, held: Held | None
    ) -> Outcome:
        """Hold a message until its session may walk again."""
        retry_at = _next_hour(now_ms)
        if held is not None:
            state.held.wait(held.position, session_id, retry_at)
            return Outcome.HELD
        tag, now = layout.routing_tag(envelope), now_ms // 1000
        gone = state.held.add(envelope, digest, tag, now, is_searched=True, session_id=session_id, retry_at=retry_at)
        for given_up in gone:
            self._record(state, given_up, "too_far_ahead", now_ms)
        return Outcome.HELD

    def _receive_found(
        self, state: State, envelope: bytes, digest: bytes, found: Found, now_ms: int, held: Held | None = None
    ) -> Outcome:
        """Decrypt a message whose session is known. If that fails nothing changes but a count."""

        def work() -> Opened:
            session = state.sessions.get(found.session_id)
            if session is None:
                raise _Refused("unknown_session")
            return self._reader.read(state, session, envelope, found, now_ms)

        opened = self._attempt(state, work)
        if isinstance(opened, Spent):
            return self._wait(state, envelope, digest, found.session_id, now_ms, held)
        if held is not None:
            state.held.remove(held.position)
        if isinstance(opened, Opened):
            return self._settle(state, opened)
        if found.expected.is_ephemeral:  # nobody misses it, and it says nothing of the session's health
            return Outcome.DROPPED
        if isinstance(opened, CryptoRefusal) and opened.reason is Reason.CLONE_SUSPECTED:
            contacts.note_clone(state, found.session_id, now_ms)
        if isinstance(opened, CryptoRefusal) and not (_is_used(opened) or opened.reason is Reason.NOT_LISTED):
            healing.failed(state, found.session_id, now_ms // 1000)
        return self._record(state, digest, _damage(opened), now_ms)

    def _settle(self, state: State, opened: Opened) -> Outcome:
        """Nothing can fail any more: the table of tags follows the rows."""
        session = opened.session
        if opened.is_new:
            skipped = windows_of(opened.decrypted.skipped, {})
            state.routing.announce(session.session_id, [*session.ratchet.expected(), *skipped])
            if state.peers.is_contact(session.account_id):
                state.routing.befriend(session.session_id)
            sessions.prune(state, session.account_id, session.device_id)
        else:
            state.routing.apply(session.session_id, opened.decrypted)
        state.routing.withdraw(session.session_id, opened.given_up)
        state.inbox.remember_opened(_head_digest(opened.message))
        return opened.outcome

    def _receive_held(self, state: State, held: Held, found: Found, now_ms: int) -> None:
        message = state.held.message(held.position)
        if message is not None:
            self._receive_found(state, message, primitives.sha256(message), found, now_ms, held)

    # --- Sealed first messages -----------------------------------------------------------------------------------

    def _receive_sealed(self, state: State, envelope: bytes, digest: bytes, now_ms: int) -> Outcome:
        unsealed = self._attempt(state, lambda: self._unseal(state, envelope))
        if not isinstance(unsealed, tuple):
            return self._record(state, digest, _reason(unsealed), now_ms)
        first, recipient = unsealed
        peer = self._attempt(state, lambda: _sender(state, first))
        if isinstance(peer, CryptoRefusal) and peer.reason is Reason.FORKED_LIST:
            contacts.note_fork(state, first.handshake.account_id, first.device_list, now_ms // 1000)
        if not isinstance(peer, Peer):
            return self._record(state, digest, _reason(peer), now_ms)
        opened = self._attempt(state, lambda: self._open_first(state, first, recipient, peer, now_ms))
        if not isinstance(opened, Opened):
            return self._record(state, digest, self._unfinished(state, first, opened, now_ms // 1000), now_ms)
        outcome = self._settle(state, opened)
        if opened.is_new and state.peers.is_contact(peer.account_id):  # what was held may belong to it
            state.held.unmark()
            self.search_again(state, now_ms)
        return outcome

    def _unfinished(
        self, state: State, first: sealed.FirstMessage, refusal: CryptoRefusal | _Refused | Spent, now: int
    ) -> str:
        """Why a first message that names a listed device did not open. Anybody may have made it, in that name."""
        if isinstance(refusal, CryptoRefusal) and _is_used(refusal):
            return "damaged" if state.inbox.seen(_head_digest(first.message)) else _reason(refusal)
        healing.want(state, first.handshake.account_id, first.handshake.device_id, Want.UNFINISHED, now)
        return _reason(refusal)

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

    def _open_first(
        self,
        state: State,
        first: sealed.FirstMessage,
        recipient: OwnPrekeys,
        peer: Peer,
        now_ms: int,
    ) -> Opened:
        made = state.sessions.accepted(first.handshake.digest)
        if made is not None:
            known = state.sessions.get(made)
            if known is None:
                raise _Refused("session_wiped")
            return self._read_first(state, known, first.message, now_ms)
        session, one_time = self._respond(state, recipient, first, now_ms // 1000)
        opened = self._read_first(state, session, first.message, now_ms, peer)
        state.sessions.accept(first.handshake.digest, session.session_id, recipient.record_id)
        if one_time is not None:
            state.prekeys.use_one_time(one_time.id)
        return opened

    def _respond(
        self, state: State, recipient: OwnPrekeys, first: sealed.FirstMessage, now: int
    ) -> tuple[Session, OneTimePrekey | None]:
        """Make the responder's session. Nothing is stored yet: the first message must authenticate before."""
        handshake = first.handshake
        existing = state.sessions.sending(handshake.account_id, handshake.device_id)
        if handshake.generation > GENERATIONS_AHEAD + (existing.generation if existing else 0):
            raise _Refused("generation_too_far_ahead")
        one_time = None
        if handshake.one_time_id is not None:
            one_time = state.prekeys.one_time(handshake.one_time_id)
            if one_time is None:
                raise CryptoRefusal(Reason.UNKNOWN_PREKEY, "the one-time prekey was used before")
        elif state.sessions.accepted_count(recipient.record_id) >= ACCEPTED_HANDSHAKES:
            raise _Refused("too_many_handshakes")
        keys = agreement.respond(self._own.device, self._own.account_id, recipient, one_time, handshake)
        fresh = Ratchet.responder(keys, recipient.signed_prekey, now)
        ids = keys.session_id, handshake.account_id, handshake.device_id
        return Session(*ids, handshake.generation, fresh, None), one_time

    def _read_first(
        self,
        state: State,
        session: Session,
        message: bytes,
        now_ms: int,
        maker: Peer | None = None,
    ) -> Opened:
        """The message inside a sealed one: its session is known, so its tag only says which message it is. `maker`
        made the session, if that is new."""
        tag = layout.routing_tag(message)
        found = state.routing.find(tag)
        expected = found.expected if found is not None and found.session_id == session.session_id else None
        if maker is not None:
            windows = session.ratchet.expected()
            expected = next((window.find(tag) for window in windows if tag in window.tags), None)
        if expected is None:
            expected = session.ratchet.recognise(message)
        if expected is None:
            raise CryptoRefusal(Reason.NOT_AUTHENTIC, "the message inside is not one of its session")
        found = Found(session.session_id, expected)
        return self._reader.read(state, session, message, found, now_ms, is_sealed=True, maker=maker)


def _recognise(state: State, session_ids: Iterable[bytes], message: bytes) -> Found | None:
    """Which session's header keys open a message."""
    for session_id in session_ids:
        session = state.sessions.peek(session_id)
        expected = None if session is None else session.ratchet.recognise(message)
        if expected is not None:
            return Found(session_id, expected)
    return None


def _next_hour(now_ms: int) -> int:
    """When the budgets of steps are full again, in unix seconds."""
    return (now_ms // 1000 // limits.HOUR + 1) * limits.HOUR


def _head_digest(message: bytes) -> bytes:
    return primitives.sha256(layout.head(message))


def _sender(state: State, first: sealed.FirstMessage) -> Peer:
    """The account that a first message claims to come from, with its newest list, which names the device."""
    device_list, entry = sealed.open_sender(first)
    presented = Peer(device_list.account_id, first.root_public, first.device_list)
    peer = newest(state.peers.get(presented.account_id), presented)
    listed(peer, entry.device_id)
    return peer


def _is_used(refusal: CryptoRefusal) -> bool:
    """Whether the message's number was used before: it says nothing of the session's health."""
    return refusal.reason in (Reason.ALREADY_USED, Reason.CLONE_SUSPECTED)


def _reason(refusal: CryptoRefusal | _Refused | Spent) -> str:
    return "too_far_ahead" if isinstance(refusal, Spent) else str(refusal.reason)


def _damage(refusal: CryptoRefusal | _Refused) -> str:
    """Why a message of a known session did not open. Flipped bits show as either of two refusals."""
    flipped = (Reason.NOT_AUTHENTIC, Reason.MALFORMED)
    return "damaged" if isinstance(refusal, CryptoRefusal) and refusal.reason in flipped else _reason(refusal)
