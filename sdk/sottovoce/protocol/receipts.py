"""Receipts: which are owed and when they are due, what they look like, and which are believed.

Rules and rows only: the client puts them in the outbox. None goes to an account that is no contact. Spec: receipts.
"""

from typing import Final

from sottovoce_wire.ids import AccountId, MessageId
from sottovoce_wire.padding import SIZE_CLASSES

from ..crypto import primitives
from . import sessions
from .content import MAX_RECEIPT, Body, Receipt, ReceiptKind, encode_body
from .state import Outgoing, Own, State

#: A receipt is due after a random time between these, in milliseconds: it does not tell when exactly a message came.
SOONEST: Final = 1_000
LATEST: Final = 10_000
#: Bytes of a body in the smallest size class: it also holds the mark and an empty fragment.
SHORT: Final = SIZE_CLASSES[0] - 2
#: Bytes of one message id in it.
_ID: Final = 18
_LONGEST_VERSION: Final = 2**63 - 1


def due_at(now_ms: int) -> int:
    """When a receipt that is owed from now on is due."""
    return now_ms + SOONEST + int.from_bytes(primitives.random_bytes(4), "big") % (LATEST - SOONEST)


def owe(state: State, own: Own, account_id: AccountId, message_id: MessageId, now_ms: int) -> None:
    """A message is stored, or came once more since its sender had no receipt. Whether the account is a contact is asked
    when the receipt goes out: by then it may be one."""
    if own.sends_receipts:
        state.receipts.owe(account_id, message_id, due_at(now_ms))


def heed(state: State, account_id: AccountId, receipt: Receipt, now_ms: int) -> None:
    """Write down what an account says of messages that were sent to it. It says nothing of others."""
    state.sent.receipted(account_id, receipt.message_ids, receipt.kind, now_ms)


def give(state: State, own: Own, account_id: AccountId, now: int) -> list[Outgoing]:
    """The next receipts for an account, at most one of each kind; they are owed no longer. None, and nothing changes,
    where there is no session to send them on.

    Raises CryptoRefusal (CHAIN_ENDED)."""
    return [envelope for kind in ReceiptKind for envelope in _give(state, own, account_id, kind, now)]


def _give(state: State, own: Own, account_id: AccountId, kind: ReceiptKind, now: int) -> list[Outgoing]:
    owed = state.receipts.owed(account_id, kind, MAX_RECEIPT)
    if not owed:
        return []
    receipt = Receipt(kind, owed[: _room(state, own, account_id)])
    envelopes = sessions.tell(state, own, account_id, receipt, now)
    if envelopes:
        state.receipts.given(account_id, receipt.message_ids)
    return envelopes


def _room(state: State, own: Own, account_id: AccountId) -> int:
    """How many messages a receipt can name in the smallest size class, beside one's own address if that goes with it;
    one at least."""
    sending = [session for session in state.sessions.of_account(account_id) if session.replaced_at is None]
    contact = None if all(session.address_confirmed for session in sending) else sessions.own_address(state, own)
    empty = encode_body(Body(_LONGEST_VERSION, bytes(8), contact, Receipt(ReceiptKind.READ, [])))
    return max((SHORT - len(empty)) // _ID, 1)
