"""Opening envelopes: what an arriving envelope belongs to, and when a handshake makes a session.

Everything is written within the caller's transaction and only after authentication: an envelope that is refused leaves
no trace but its record, and one that belongs to nothing yet is held. Spec: sessions.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from sottovoce_wire import limits
from sottovoce_wire.errors import WireError
from sottovoce_wire.frames import KeyClass
from sottovoce_wire.ids import AccountId
from sottovoce_wire.origins import may_dial

from .. import errors
from ..crypto import agreement, primitives, ratchet, sealed
from ..crypto import message as layout
from ..crypto.chain_key import MAX_SKIPPED
from ..crypto.errors import CryptoRefusal, Reason
from ..crypto.prekeys import OneTimePrekey, OwnPrekeys
from ..crypto.ratchet import Decrypted, Ratchet, SkippedKey
from . import healing, sessions
from .content import Body, ContactAddress, Text, decode_body
from .routing import Found
from .sessions import listed, newest
from .state import Address, Held, Incoming, Own, Peer, Session, State, Want

T = TypeVar("T")

#: Skipped message keys kept per session: an attacker who leaves gaps fills this much and no more.
SKIPPED_KEYS: Final = 2_000
#: The same for an account that the person has never written to: it can begin as many sessions as it likes.
STRANGERS_SKIPPED_KEYS: Final = 100
#: Steps along the chains of an account's sessions in one hour. A message from far ahead costs its walk again with every
#: flipped bit.
STEPS_PER_HOUR: Final = 100_000
#: The same for an account that the person has never written to, and for all of these together: accounts cost nothing.
STRANGERS_STEPS: Final = 2_000
ALL_STRANGERS_STEPS: Final = 20_000
#: Walks up to this length are not counted: they cost little beside the rest of an envelope.
FREE_STEPS: Final = 32
#: A handshake may be this many generations ahead of what is known, or a hostile peer could use up the numbers.
GENERATIONS_AHEAD: Final = 1_000
#: Searches by header key, for messages whose tag nobody expects: so many a second, and so many at once.
SEARCHES_PER_SECOND: Final = 20
SEARCH_BURST: Final = 100
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


class Outcome(StrEnum):
    """What became of an envelope. All are acknowledged to the relay; what is dropped leaves no trace."""

    NEW = "new"
    CONTROL = "control"
    REPEAT = "repeat"
    HELD = "held"
    DROPPED = "dropped"
    UNDECRYPTABLE = "undecryptable"


class _Refused(Exception):  # noqa: N818 - a reason, turned into Outcome.UNDECRYPTABLE
    """The envelope cannot be read, for a reason that is not the cryptographic core's."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Spent(Exception):  # noqa: N818 - turned into Outcome.HELD
    """The account's sessions have walked as far as they may in this hour: the message waits."""


class StepBudget:
    """How far each account's sessions have walked in this hour. One that has spent its steps is refused more."""

    def __init__(self) -> None:
        self._hour = 0
        self._spent: dict[AccountId, int] = {}  # of contacts, and of at most ALL_STRANGERS_STEPS others
        self._by_strangers = 0

    def spend(self, account_id: AccountId, steps: int, now: int, *, is_contact: bool) -> bool:
        """Take `steps` off the account's budget; False, and nothing is taken, if it has fewer left."""
        if self._hour != now // limits.HOUR:
            self._hour, self._by_strangers = now // limits.HOUR, 0
            self._spent.clear()
        spent = self._spent.get(account_id, 0) + steps
        by_strangers = self._by_strangers + (0 if is_contact else steps)
        if spent > (STEPS_PER_HOUR if is_contact else STRANGERS_STEPS) or by_strangers > ALL_STRANGERS_STEPS:
            return False
        self._spent[account_id], self._by_strangers = spent, by_strangers
        return True


class SearchBudget:
    """How many searches may be made now. A clock that goes back gives none, and takes none away."""

    def __init__(self) -> None:
        self._left = float(SEARCH_BURST)
        self._at: int | None = None

    def take(self, now_ms: int) -> bool:
        """Take one search, if there is one. `now_ms` is in milliseconds."""
        if self._at is not None:
            gained = max(now_ms - self._at, 0) * SEARCHES_PER_SECOND / 1000
            self._left = min(self._left + gained, float(SEARCH_BURST))
        self._at = now_ms
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(frozen=True, slots=True)
class _Opened:
    """A message that was opened and stored, and what that changes in the table of tags."""

    outcome: Outcome
    session: Session
    message: bytes
    decrypted: Decrypted
    given_up: tuple[bytes, ...]
    is_new: bool


class Opener:
    """Takes in envelopes for one device. Times ending in `_ms` are milliseconds since 1970, others unix seconds."""

    def __init__(self, own: Own) -> None:
        self._own = own
        self._steps = StepBudget()
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
            self._receive_sealed(state, envelope, digest, now_ms, sealed_only)
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

    def _attempt(self, state: State, work: Callable[[], T]) -> T | CryptoRefusal | _Refused | _Spent:
        """Do `work`, all or nothing; why it could not be done is returned."""
        try:
            with state.savepoint():
                return work()
        except (CryptoRefusal, _Refused, _Spent) as refusal:
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

        def work() -> _Opened:
            session = state.sessions.get(found.session_id)
            if session is None:
                raise _Refused("unknown_session")
            return self._read(state, session, envelope, found, now_ms)

        opened = self._attempt(state, work)
        if isinstance(opened, _Spent):
            return self._wait(state, envelope, digest, found.session_id, now_ms, held)
        if held is not None:
            state.held.remove(held.position)
        if isinstance(opened, _Opened):
            return self._settle(state, opened)
        if found.expected.is_ephemeral:  # nobody misses it, and it says nothing of the session's health
            return Outcome.DROPPED
        if isinstance(opened, CryptoRefusal) and not (_is_used(opened) or opened.reason is Reason.NOT_LISTED):
            healing.failed(state, found.session_id, now_ms // 1000)
        return self._record(state, digest, _damage(opened), now_ms)

    def _settle(self, state: State, opened: _Opened) -> Outcome:
        """Nothing can fail any more: the table of tags follows the rows."""
        session = opened.session
        if opened.is_new:
            tags = [(key.tag, layout.Expected(key.chain, key.number)) for key in opened.decrypted.skipped]
            state.routing.announce(session.session_id, [*session.ratchet.expected(), *tags])
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

    def _receive_sealed(self, state: State, envelope: bytes, digest: bytes, now_ms: int, sealed_only: bool) -> Outcome:
        unsealed = self._attempt(state, lambda: self._unseal(state, envelope))
        if not isinstance(unsealed, tuple):
            return self._record(state, digest, _reason(unsealed), now_ms)
        first, recipient = unsealed
        peer = self._attempt(state, lambda: _sender(state, first))
        if not isinstance(peer, Peer):
            return self._record(state, digest, _reason(peer), now_ms)
        opened = self._attempt(state, lambda: self._open_first(state, first, recipient, peer, now_ms, sealed_only))
        if not isinstance(opened, _Opened):
            return self._record(state, digest, self._unfinished(state, first, opened, now_ms // 1000), now_ms)
        outcome = self._settle(state, opened)
        if opened.is_new and state.peers.is_contact(peer.account_id):  # what was held may belong to it
            state.held.unmark()
            self.search_again(state, now_ms)
        return outcome

    def _unfinished(
        self, state: State, first: sealed.FirstMessage, refusal: CryptoRefusal | _Refused | _Spent, now: int
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
        sealed_only: bool,
    ) -> _Opened:
        made = state.sessions.accepted(first.handshake.digest)
        if made is not None:
            known = state.sessions.get(made)
            if known is None:
                raise _Refused("session_wiped")
            return self._read_first(state, known, first.message, now_ms, sealed_only, is_new=False)
        session, one_time = self._respond(state, recipient, first, now_ms // 1000)
        opened = self._read_first(state, session, first.message, now_ms, sealed_only, is_new=True)
        sessions.learn(state, peer)
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
        self, state: State, session: Session, message: bytes, now_ms: int, sealed_only: bool, *, is_new: bool
    ) -> _Opened:
        """The message inside a sealed one: its session is known, so its tag only says which message it is."""
        tag = layout.routing_tag(message)
        found = state.routing.find(tag)
        expected = found.expected if found is not None and found.session_id == session.session_id else None
        if is_new:
            expected = dict(session.ratchet.expected()).get(tag)
        if expected is None:
            expected = session.ratchet.recognise(message)
        if expected is None:
            raise CryptoRefusal(Reason.NOT_AUTHENTIC, "the message inside is not one of its session")
        found = Found(session.session_id, expected)
        return self._read(state, session, message, found, now_ms, sealed_only, is_sealed=True, is_new=is_new)

    # --- Both ----------------------------------------------------------------------------------------------------

    def _read(
        self,
        state: State,
        session: Session,
        message: bytes,
        found: Found,
        now_ms: int,
        sealed_only: bool = False,
        *,
        is_sealed: bool = False,
        is_new: bool = False,
    ) -> _Opened:
        """Decrypt on a session and, only if all of it holds, store the state and the message."""
        now = now_ms // 1000
        if not is_new:
            _check_listed(state, session)
        decrypted = session.ratchet.decrypt(
            message, found.expected, _finder(state, session), self._spender(state, session, now), now
        )
        body = decode_body(decrypted.body)
        known = healing.heard(session, now, on_contact_queue=not sealed_only)
        asks = is_sealed or isinstance(body.content, Text)
        if is_new:
            _add(state, known, now)
        else:
            state.sessions.put(healing.owe(known, now) if asks and known.replaced_at is None else known)
        if asks and (is_new or known.replaced_at is not None):
            _owe(state, known, now)
        given_up = _keep_skipped(state, session, decrypted, now)
        if body.contact is not None and may_dial(body.contact.origin, own=self._own.server):
            _take_address(state, known, _address(body.contact), is_late=decrypted.used is not None)
        return _Opened(_store(state, known, body, now_ms), known, message, decrypted, given_up, is_new)

    def _spender(self, state: State, session: Session, now: int) -> ratchet.Spend:
        def spend(steps: int) -> None:
            account_id = session.account_id
            if steps > FREE_STEPS and not self._steps.spend(
                account_id, steps, now, is_contact=state.peers.is_contact(account_id)
            ):
                raise _Spent

        return spend


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


def _check_listed(state: State, session: Session) -> None:
    """A device that its account has taken off its list is not heard, whatever session it has."""
    peer = state.peers.get(session.account_id)
    if peer is None:
        raise CryptoRefusal(Reason.NOT_LISTED, "the account is not known")
    listed(peer, session.device_id)


def _add(state: State, session: Session, now: int) -> None:
    """Store the responder's new session. If it loses against one that has been answered, its maker has lost that one,
    and would never hear what is sent on it."""
    before = state.sessions.sending(session.account_id, session.device_id)
    sessions.add(state, session, now)
    if before is not None and before.unanswered is None and before.rank > session.rank:
        healing.want(state, session.account_id, session.device_id, Want.LOST, now)


def _take_address(state: State, session: Session, address: Address, *, is_late: bool) -> None:
    """A contact address gives way only to one in the newest message of the session that sends: neither the thief of an
    old session moves it, nor who keeps a message back."""
    device = session.account_id, session.device_id
    known, sending = state.peers.address(*device), state.sessions.sending(*device)
    is_newest = not is_late and sending is not None and sending.session_id == session.session_id
    if is_newest or known is None or known.key_class is KeyClass.STRANGER:
        state.peers.put_address(*device, address)


def _owe(state: State, session: Session, now: int) -> None:
    """The answer goes out on the session that sends, whichever the message came on."""
    sending = state.sessions.sending(session.account_id, session.device_id)
    if sending is not None:
        state.sessions.put(healing.owe(sending, now))


def _store(state: State, session: Session, body: Body, now_ms: int) -> Outcome:
    content = body.content
    if not isinstance(content, Text):
        return Outcome.CONTROL
    sender = session.account_id, session.device_id
    stored = state.inbox.add(Incoming(content.message_id, *sender, content.text, content.sent_at, now_ms))
    return Outcome.NEW if stored else Outcome.REPEAT


def _is_used(refusal: CryptoRefusal) -> bool:
    """Whether the message's number was used before: it says nothing of the session's health."""
    return refusal.reason in (Reason.ALREADY_USED, Reason.CLONE_SUSPECTED)


def _reason(refusal: CryptoRefusal | _Refused | _Spent) -> str:
    return "too_far_ahead" if isinstance(refusal, _Spent) else str(refusal.reason)


def _damage(refusal: CryptoRefusal | _Refused) -> str:
    """Why a message of a known session did not open. Flipped bits show as either of two refusals."""
    flipped = (Reason.NOT_AUTHENTIC, Reason.MALFORMED)
    return "damaged" if isinstance(refusal, CryptoRefusal) and refusal.reason in flipped else _reason(refusal)


def _finder(state: State, session: Session) -> ratchet.FindSkipped:
    """Asks for kept keys. A message whose keys were given up comes late, which is no sign of a second state."""

    def find(chain: int, number: int) -> SkippedKey | None:
        key = state.sessions.skipped_key(session.session_id, chain, number)
        if key is None and state.sessions.is_given_up(session.session_id, chain, number):
            raise CryptoRefusal(Reason.ALREADY_USED, "the message's key was given up")
        return key

    return find


def _keep_skipped(state: State, session: Session, opened: Decrypted, now: int) -> tuple[bytes, ...]:
    """Store and wipe skipped keys; the tags of those that had to go for newer ones."""
    if opened.used is not None:
        state.sessions.remove_skipped(session.session_id, opened.used.chain, opened.used.number)
    if not opened.skipped:
        return ()
    oldest = opened.skipped[0]
    if len(opened.skipped) == MAX_SKIPPED:  # the ratchet has left out those before
        state.sessions.give_up(session.session_id, oldest.chain, oldest.number - 1)
    keep = SKIPPED_KEYS if state.peers.is_contact(session.account_id) else STRANGERS_SKIPPED_KEYS
    return tuple(state.sessions.add_skipped(session.session_id, opened.skipped, now, keep=keep))


def _address(contact: ContactAddress) -> Address:
    return Address(contact.origin, contact.queue, contact.send_key, KeyClass.CONTACT)
