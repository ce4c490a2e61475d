"""When a session heals, and how one side tells the other that it is there: who is owed a sign of life, and which device
is to get a new handshake.

Rules and rows only. A reset is a handshake and nothing else, and whoever wants one writes it down here; the client
makes it. Nothing of this reaches an account that the person has never written to. Spec: sessions, healing.
"""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from sottovoce_wire import limits
from sottovoce_wire.ids import AccountId, DeviceId, account_id_text

from ..crypto import primitives
from ..events import SessionReplaced
from . import contact_key
from .state import Session, State, Want

#: Failures under known tags, without a success between, that ask for a handshake. A relay can cause them at will.
FAILURES: Final = 3
#: A contact gets an answer after this many messages, or at a random time within a day of the first.
ANSWER_AFTER: Final = 50
ANSWER_WITHIN: Final = limits.DAY
#: A peer that has said nothing for so many messages, or so long, may have lost the session.
SILENT_MESSAGES: Final = 200
SILENT_FOR: Final = 72 * limits.HOUR
#: One handshake with a device for each reason in this time. The longer ones can be provoked by anybody.
AT_MOST_EVERY: Final = {
    Want.FAILURES: 6 * limits.HOUR,
    Want.LOST: 6 * limits.HOUR,
    Want.UNFINISHED: 7 * limits.DAY,
    Want.SILENCE: 7 * limits.DAY,
    Want.RESTORED: 6 * limits.HOUR,
    Want.REFUSED: limits.DAY,
}
#: What is known to be lost with a session is sent once more at once. Else receipts may be on their way: this long after
#: the device was heard on the new session.
KNOWN_LOST: Final = (Want.FAILURES, Want.LOST, Want.REFUSED)
REPEAT_AFTER: Final = 60


def want(state: State, account_id: AccountId, device_id: DeviceId, reason: Want, now: int) -> None:
    """Write down that a device is to get a handshake, unless it got one for this reason not long ago, or nothing is
    known of it: strangers make as many names as they like."""
    if not state.peers.is_contact(account_id) and state.sessions.sending(account_id, device_id) is None:
        return
    last = state.wants.last(account_id, device_id, reason)
    if last is None or abs(now - last) >= AT_MOST_EVERY[reason]:
        state.wants.add(account_id, device_id, reason)


def failed(state: State, session_id: bytes, now: int) -> None:
    """A message under a known tag did not open. Nothing else is concluded from one: bits can be flipped at will."""
    session = state.sessions.get(session_id)
    if session is None:
        return
    state.sessions.put(replace(session, failures=session.failures + 1))
    if session.failures + 1 >= FAILURES and session.replaced_at is None:
        want(state, session.account_id, session.device_id, Want.FAILURES, now)


def refused(state: State, account_id: AccountId, device_id: DeviceId, now: int) -> bool:
    """The relay does not know a device's address. Whether there is hope of another: it comes with a handshake."""
    if not state.peers.is_contact(account_id):
        return False
    want(state, account_id, device_id, Want.REFUSED, now)
    return state.wants.is_wanted(account_id, device_id, Want.REFUSED)


def replaced(state: State, before: Session, session: Session, now: int) -> None:
    """Another session sends from now on: what was lost with the one before is to be sent on it once more.

    A device that has made the session is there; of one that is to answer first, that is not known. But one that has
    never answered may not have been able to read anything, and to a stranger a handshake without a text is nothing to
    answer. The application is told, unless the one before was still to be answered: two who begin at once replace one
    without any loss."""
    device = session.account_id, session.device_id
    if before.unanswered is None and state.peers.is_contact(session.account_id):
        state.events.add(_told(state, before, session, now))
    is_ours, was_answered = session.unanswered is not None, before.unanswered is None
    due: int | None = now
    if is_ours is was_answered and not state.wants.is_wanted(*device, *KNOWN_LOST):
        due = None if is_ours else now + REPEAT_AFTER
    state.sent.want_repeats(*device, due)


def _told(state: State, before: Session, session: Session, now: int) -> SessionReplaced:
    device = session.account_id, session.device_id
    wanted = [reason.value for reason in Want if state.wants.is_wanted(*device, reason)]
    if before.replaced_at is not None:  # it was retired; a handshake for that may have been made not long ago
        wanted.append(Want.RESTORED.value)
    reason, *_ = ["peer"] if session.unanswered is None else [*wanted, "ended"]
    at, last_heard = (datetime.fromtimestamp(seconds, UTC) for seconds in (now, before.heard_at))
    return SessionReplaced(at, account_id_text(session.account_id), reason, last_heard, 1)


def heard(session: Session, now: int, chain: int) -> Session:
    """The session after a message of this chain of the peer's came on it."""
    told_from = session.told_from
    return replace(
        session,
        unanswered=None,
        address_confirmed=session.address_confirmed or (told_from is not None and chain >= told_from),
        heard_at=now,
        failures=0,
        silent=0,
        silent_since=None,
    )


def owe(session: Session, now: int) -> Session:
    """The sending session after a message came that asks for an answer."""
    due = session.answer_by
    if due is None:
        due = now + int.from_bytes(primitives.random_bytes(4), "big") % ANSWER_WITHIN
    return replace(session, owed=session.owed + 1, answer_by=due)


def spoke(session: Session, now: int, *, asks: bool) -> Session:
    """The session after a message was sent on it; `asks` for one that asks for an answer."""
    since = now if asks and session.silent_since is None else session.silent_since
    return replace(session, owed=0, answer_by=None, silent=session.silent + asks, silent_since=since)


def notice_silence(state: State, now: int) -> None:
    """Want handshakes with devices that have said nothing for long."""
    for session in state.sessions.silent(SILENT_MESSAGES, now - SILENT_FOR):
        want(state, session.account_id, session.device_id, Want.SILENCE, now)


def restored(state: State, now: int) -> None:
    """The state is a copy of an earlier one, whose next keys were used meanwhile: nothing is sent under its sessions,
    and every contact's device gets a new handshake. Its contact key may have been demoted since."""
    contact_key.want_fresh(state)
    for account_id, device_id in state.sessions.retire(now):
        want(state, account_id, device_id, Want.RESTORED, now)


def answers_due(state: State, now: int) -> list[tuple[AccountId, DeviceId]]:
    """The devices of contacts that are owed an answer now."""
    return [(session.account_id, session.device_id) for session in state.sessions.owing(ANSWER_AFTER, now)]


def is_pending(state: State, now: int) -> bool:
    """Whether there is a handshake to make, an answer to give, or a message to send once more."""
    return bool(state.wants.of_contacts() or state.sessions.owing(ANSWER_AFTER, now) or state.sent.are_repeats_due(now))
