"""Reading a message whose session is known: it is decrypted, and what it changes is stored.

Only if all of it holds; the caller takes back what was written if anything is refused. Which session a message belongs
to is `opening`'s matter. Spec: sessions.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sottovoce_wire.frames import KeyClass
from sottovoce_wire.origins import may_dial

from ..crypto import ratchet
from ..crypto.chain_key import MAX_SKIPPED
from ..crypto.errors import CryptoRefusal, Reason
from ..crypto.ratchet import Decrypted, SkippedKey
from . import contacts, healing, receipts, sessions
from .budgets import FREE_STEPS, StepBudget
from .content import Body, ContactAddress, Receipt, Text, decode_body
from .routing import Found
from .sessions import listed
from .state import Address, Incoming, Own, Peer, Session, State, Want

#: Skipped message keys kept per session: an attacker who leaves gaps fills this much and no more.
SKIPPED_KEYS: Final = 2_000
#: The same for an account that the person has never written to: it can begin as many sessions as it likes.
STRANGERS_SKIPPED_KEYS: Final = 100


class Outcome(StrEnum):
    """What became of an envelope. All are acknowledged to the relay; what is dropped leaves no trace."""

    NEW = "new"
    CONTROL = "control"
    REPEAT = "repeat"
    HELD = "held"
    DROPPED = "dropped"
    UNDECRYPTABLE = "undecryptable"


class Spent(Exception):  # noqa: N818 - turned into Outcome.HELD
    """The account's sessions have walked as far as they may in this hour: the message waits."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A message that was opened and stored, and what that changes in the table of tags."""

    outcome: Outcome
    session: Session
    message: bytes
    decrypted: Decrypted
    given_up: tuple[bytes, ...]
    is_new: bool


class Reader:
    """Reads messages for one device."""

    def __init__(self, own: Own) -> None:
        self._own = own
        self._steps = StepBudget()

    def read(
        self,
        state: State,
        session: Session,
        message: bytes,
        found: Found,
        now_ms: int,
        *,
        is_sealed: bool = False,
        maker: Peer | None = None,
    ) -> Opened:
        """Decrypt on a session and, only if all of it holds, store the state and the message. `maker` is the account
        that has made the session just now, if that is new."""
        now, is_new = now_ms // 1000, maker is not None
        if not is_new:
            _check_listed(state, session)
        decrypted = session.ratchet.decrypt(
            message, found.expected, _finder(state, session), self._spender(state, session, now), now
        )
        body = decode_body(decrypted.body)
        if maker is not None:
            contacts.learn(state, maker, now)
        known = healing.heard(session, now, found.expected.chain)
        asks = is_sealed or isinstance(body.content, Text)
        if is_new:
            _add(state, known, now)
        else:
            state.sessions.put(healing.owe(known, now) if asks and known.replaced_at is None else known)
        if asks and (is_new or known.replaced_at is not None):
            _owe(state, known, now)
        if session.unanswered is not None:
            state.sent.device_heard(session.account_id, session.device_id, now + healing.REPEAT_AFTER)
        given_up = _keep_skipped(state, session, decrypted, now)
        if body.contact is not None and may_dial(body.contact.origin, own=self._own.server):
            _take_address(state, known, _address(body.contact), is_late=decrypted.used is not None)
        _heed(state, session, body)
        return Opened(_store(state, self._own, known, body, now_ms), known, message, decrypted, given_up, is_new)

    def _spender(self, state: State, session: Session, now: int) -> ratchet.Spend:
        def spend(steps: int) -> None:
            account_id = session.account_id
            if steps > FREE_STEPS and not self._steps.spend(
                account_id, steps, now, is_contact=state.peers.is_contact(account_id)
            ):
                raise Spent

        return spend


def _check_listed(state: State, session: Session) -> None:
    """A device that its account has taken off its list is not heard, whatever session it has."""
    peer = state.peers.get(session.account_id)
    if peer is None:
        raise CryptoRefusal(Reason.NOT_LISTED, "the account is not known")
    listed(peer, session.device_id)


def _heed(state: State, session: Session, body: Body) -> None:
    """The account itself names the version of its list: a keyserver that serves an older one is found out."""
    peer = state.peers.get(session.account_id)
    if peer is not None and body.list_version > sessions.parse_list(peer.device_list).version:
        state.peers.announce(session.account_id, body.list_version)


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


def _store(state: State, own: Own, session: Session, body: Body, now_ms: int) -> Outcome:
    content = body.content
    if isinstance(content, Receipt):
        receipts.heed(state, session.account_id, content, now_ms)
    if not isinstance(content, Text):
        return Outcome.CONTROL
    sender = session.account_id, session.device_id
    message = Incoming(content.message_id, *sender, content.text, content.sent_at, now_ms)
    stored = contacts.admit(state, message, everyone=own.accepts_everyone)
    if stored is None:
        return Outcome.DROPPED
    receipts.owe(state, own, session.account_id, content.message_id, now_ms)
    return Outcome.NEW if stored else Outcome.REPEAT


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
