"""The Double Ratchet with headers in clear: message kind 0x03. One `Ratchet` is one session's state.

Here stands who steps when, the message's layout and what is refused. Nothing here chooses a session, keeps skipped
keys or does I/O: the caller stores `pack()` and the skipped keys in one transaction. Spec: ratchet.
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from sottovoce_wire import padding
from sottovoce_wire.errors import WireError

from . import primitives
from .agreement import SessionKeys
from .chain_key import MAX_CHAIN, MAX_SKIPPED, ReceivingChain, SendingChain
from .errors import CryptoRefusal, Reason
from .message_key import MessageKey
from .primitives import OwnExchangeKey, PeerExchangeKey
from .root_key import SessionRootKey

KIND_RATCHET: Final = 0x03
#: Steps that one message may walk its chains: 17 days of a message a minute that never came.
MAX_STEPS: Final = 25_000

#: kind ‖ session id ‖ ratchet key ‖ PN: the same for every message of a chain.
_CHAIN_HEAD: Final = struct.Struct(">B32s32sI")
#: kind ‖ session id ‖ ratchet key ‖ PN ‖ n ‖ r
_HEAD: Final = struct.Struct(">B32s32sII12s")
_NUMBER: Final = struct.Struct(">I")
_SHORTEST: Final = _HEAD.size + padding.SIZE_CLASSES[0] + primitives.TAG_LENGTH

#: Asks the caller's store for a skipped message key (32) by ratchet key (32) and number; None if there is none.
FindSkipped: TypeAlias = Callable[[bytes, int], bytes | None]
#: Told of the steps that a message asks for, before they are walked; raises CryptoRefusal if they are too many.
Spend: TypeAlias = Callable[[int], None]


@dataclass(frozen=True, slots=True, repr=False)
class SkippedKey:
    """The key (32) of message `number` under `ratchet_key` (32), which has not come yet. The store ages it out."""

    ratchet_key: bytes
    n: int
    key: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Decrypted:
    """A message's body; the skipped keys to store, oldest first; and the skipped key to delete, if one opened it."""

    body: bytes
    skipped: tuple[SkippedKey, ...]
    used: tuple[bytes, int] | None


class _Header(NamedTuple):
    ratchet_key: bytes
    previous_length: int
    number: int
    nonce: bytes


# The sending half is in one of three states. An empty chain is a state of its own, never a missing key.


class _Unanswered:
    """The responder's start: its signed prekey is its ratchet key, and it has nothing to answer yet."""

    __slots__ = ("own",)

    def __init__(self, own: OwnExchangeKey) -> None:
        self.own: Final = own


class _StepDue:
    """The next message begins a new chain towards the peer's ratchet key."""

    __slots__ = ("peer", "previous_length")

    def __init__(self, peer: PeerExchangeKey, previous_length: int) -> None:
        self.peer: Final = peer
        self.previous_length: Final = previous_length


class _Sending:
    """A chain under one's own ratchet key; sending a message moves it on."""

    __slots__ = ("chain", "head", "own", "previous_length")

    def __init__(self, own: OwnExchangeKey, previous_length: int, chain: SendingChain, head: bytes) -> None:
        self.own: Final = own
        self.previous_length: Final = previous_length
        self.chain = chain
        #: The message's bytes before its number.
        self.head: Final = head


class _NothingReceived:
    """No message has been opened."""

    __slots__ = ()


class _Receiving:
    """The peer's newest chain that was seen."""

    __slots__ = ("chain", "peer")

    def __init__(self, peer: PeerExchangeKey, chain: ReceivingChain) -> None:
        self.peer: Final = peer
        self.chain: Final = chain


_SendingHalf: TypeAlias = _Unanswered | _StepDue | _Sending
_ReceivingHalf: TypeAlias = _NothingReceived | _Receiving


#: A ratchet key and positions of its chain that were walked over.
_Passed: TypeAlias = tuple[bytes, Iterable[ReceivingChain]]


class _Step(NamedTuple):
    """What a message does to the state if it proves authentic."""

    root: SessionRootKey
    sending: _SendingHalf
    receiving: _Receiving
    message_key: MessageKey
    passed: Iterable[_Passed]


def message_session_id(message: bytes) -> bytes:
    """The session id (32) that a message names. Raises CryptoRefusal (MALFORMED) for what is no ratchet message."""
    if len(message) < _SHORTEST or message[0] != KIND_RATCHET:
        raise CryptoRefusal(Reason.MALFORMED, "this is not a ratchet message")
    return message[1:33]


class Ratchet:
    """One side of a session. Its state changes only when a message is sent, or has proven authentic.

    Not for two threads at once. Whoever cannot store the new state drops the object and unpacks the stored one.
    """

    __slots__ = ("_receiving", "_root", "_sending", "session_id")

    def __init__(
        self, session_id: bytes, root: SessionRootKey, sending: _SendingHalf, receiving: _ReceivingHalf
    ) -> None:
        self.session_id: Final = session_id
        self._root = root
        self._sending = sending
        self._receiving = receiving

    @classmethod
    def initiator(cls, keys: SessionKeys, peer_signed_prekey: bytes) -> "Ratchet":
        """The side that made the handshake. The peer's signed prekey (32) is its first ratchet key. Raises BAD_KEY."""
        due = _StepDue(PeerExchangeKey(peer_signed_prekey), 0)
        return cls(keys.session_id, SessionRootKey(keys.root_key), due, _NothingReceived())

    @classmethod
    def responder(cls, keys: SessionKeys, own_signed_prekey: OwnExchangeKey) -> "Ratchet":
        """The side that answered. It opens a message before it sends one."""
        root = SessionRootKey(keys.root_key)
        return cls(keys.session_id, root, _Unanswered(own_signed_prekey), _NothingReceived())

    def encrypt(self, body: bytes) -> bytes:
        """The message: 0x03 ‖ session id (32) ‖ ratchet key (32) ‖ PN (4) ‖ n (4) ‖ r (12) ‖ padded body ‖ tag (16).

        Store `pack()` before the message leaves. Raises CryptoRefusal: NOTHING_RECEIVED, CHAIN_ENDED.
        """
        root, sending = self._sending_chain()
        chain = sending.chain
        if chain.number >= MAX_CHAIN:
            raise CryptoRefusal(Reason.CHAIN_ENDED, "the sending chain has ended; the peer has to answer first")
        nonce = primitives.random_bytes(primitives.NONCE_LENGTH)
        head = sending.head + _NUMBER.pack(chain.number) + nonce
        ciphertext = chain.message_key().encrypt(nonce, padding.pad(body), self.session_id + head)
        sending.chain = chain.after()
        self._root, self._sending = root, sending
        return head + ciphertext

    def _sending_chain(self) -> tuple[SessionRootKey, _Sending]:
        """The root key and the chain to send on; here the sending half step is made, when it is due."""
        sending = self._sending
        if isinstance(sending, _Sending):
            return self._root, sending
        if isinstance(sending, _Unanswered):
            raise CryptoRefusal(Reason.NOTHING_RECEIVED, "the responder opens a message before it sends one")
        own = OwnExchangeKey.generate()
        root, chain = self._root.start_sending(own, sending.peer)
        head = _chain_head(self.session_id, own, sending.previous_length)
        return root, _Sending(own, sending.previous_length, chain, head)

    def decrypt(self, message: bytes, find_skipped: FindSkipped, spend: Spend) -> Decrypted:
        """Open a message. Store `pack()`, the skipped keys and the deletion in one transaction.

        `spend(steps)` is called before a walk along a chain, and may refuse it: forged numbers cost a walk each.

        Raises CryptoRefusal and leaves the state as it was: MALFORMED, NOT_AUTHENTIC, ALREADY_USED, TOO_FAR_AHEAD,
        CHAIN_ENDED, BAD_KEY.
        """
        header = self._parse(message)
        known = self._receiving
        current = isinstance(known, _Receiving) and known.peer.public == header.ratchet_key
        if isinstance(known, _Receiving) and current and header.number >= known.chain.number:
            return self._commit(self._advance(known, header, spend), header, message)
        key = find_skipped(header.ratchet_key, header.number)
        if key is not None:
            body = self._open(MessageKey(key), header, message)
            return Decrypted(body, (), (header.ratchet_key, header.number))
        if current:
            raise CryptoRefusal(Reason.ALREADY_USED, "the message's key is used up")
        return self._commit(self._turn(header, spend), header, message)

    def _parse(self, message: bytes) -> _Header:
        if not primitives.equal(message_session_id(message), self.session_id):
            raise CryptoRefusal(Reason.NOT_AUTHENTIC, "the message is of another session")
        _, _, ratchet_key, previous_length, number, nonce = _HEAD.unpack_from(message)
        if number >= MAX_CHAIN or previous_length > MAX_CHAIN:
            raise CryptoRefusal(Reason.CHAIN_ENDED, "the message's number is beyond the end of a chain")
        return _Header(ratchet_key, previous_length, number, nonce)

    def _advance(self, known: _Receiving, header: _Header, spend: Spend) -> _Step:
        """Further on the chain we know."""
        _check_steps(header.number - known.chain.number, spend)
        chain, passed = known.chain.walk(header.number)
        receiving = _Receiving(known.peer, chain.after())
        return _Step(self._root, self._sending, receiving, chain.message_key(), [(header.ratchet_key, passed)])

    def _turn(self, header: _Header, spend: Spend) -> _Step:
        """The receiving half step: a new chain of the peer's, which answers our newest ratchet key."""
        sending = self._sending
        if isinstance(sending, _StepDue):
            # The peer begins a chain only in answer to a ratchet key of ours, and it has seen none since its last.
            raise CryptoRefusal(Reason.NOT_AUTHENTIC, "the message is of no chain that the peer could have begun")
        _check_steps(self._missing_before(header) + header.number, spend)
        peer = PeerExchangeKey(header.ratchet_key)
        root, first = self._root.start_receiving(sending.own, peer)
        chain, passed = first.walk(header.number)
        due = _StepDue(peer, sending.chain.number if isinstance(sending, _Sending) else 0)
        receiving = _Receiving(peer, chain.after())
        return _Step(
            root, due, receiving, chain.message_key(), [*self._end_chain(header), (header.ratchet_key, passed)]
        )

    def _missing_before(self, header: _Header) -> int:
        """How many messages are still to come of the chain that ends with PN messages."""
        known = self._receiving
        number = known.chain.number if isinstance(known, _Receiving) else 0
        missing = header.previous_length - number
        if missing < 0 or (missing and isinstance(known, _NothingReceived)):
            raise CryptoRefusal(Reason.MALFORMED, "the length of the chain before is not possible")
        return missing

    def _end_chain(self, header: _Header) -> list[_Passed]:
        """The positions of the messages that are still to come of the chain before."""
        known = self._receiving
        if isinstance(known, _NothingReceived):
            return []
        _, passed = known.chain.walk(header.previous_length)
        return [(known.peer.public, passed)]

    def _commit(self, step: _Step, header: _Header, message: bytes) -> Decrypted:
        body = self._open(step.message_key, header, message)
        self._root, self._sending, self._receiving = step.root, step.sending, step.receiving
        return Decrypted(body, _skipped_keys(step.passed), None)

    def _open(self, key: MessageKey, header: _Header, message: bytes) -> bytes:
        associated_data = self.session_id + message[: _HEAD.size]
        padded = key.decrypt(header.nonce, message[_HEAD.size :], associated_data)
        try:
            return padding.unpad(padded)
        except WireError as error:
            raise CryptoRefusal(Reason.MALFORMED, error.detail) from None

    def pack(self) -> bytes:
        """The state, 99 to 207 bytes, for the encrypted store: version (1) ‖ session id ‖ root key ‖ sending half ‖
        receiving half, each with one byte that says which state it is in."""
        head = _STATE.pack(_STATE_VERSION, self.session_id, self._root.key)
        return head + _pack_sending(self._sending) + _pack_receiving(self._receiving)

    @classmethod
    def unpack(cls, packed: bytes) -> "Ratchet":
        """Strict inverse of `pack`. Raises CryptoRefusal (BAD_RECORD, BAD_KEY)."""
        try:
            version, session_id, root = _STATE.unpack_from(packed)
            sending, at = _unpack_sending(session_id, packed, _STATE.size)
            receiving, end = _unpack_receiving(packed, at)
        except struct.error:
            raise CryptoRefusal(Reason.BAD_RECORD, "the packed session is too short") from None
        if version != _STATE_VERSION or end != len(packed):
            raise CryptoRefusal(Reason.BAD_RECORD, "the packed session has another version, or bytes follow it")
        return cls(session_id, SessionRootKey(root), sending, receiving)


def _chain_head(session_id: bytes, own: OwnExchangeKey, previous_length: int) -> bytes:
    return _CHAIN_HEAD.pack(KIND_RATCHET, session_id, own.public, previous_length)


def _check_steps(steps: int, spend: Spend) -> None:
    if steps > MAX_STEPS:
        raise CryptoRefusal(Reason.TOO_FAR_AHEAD, "the message lies too many steps ahead")
    spend(steps)


def _skipped_keys(passed: Iterable[_Passed]) -> tuple[SkippedKey, ...]:
    """The message keys of the newest MAX_SKIPPED positions walked over."""
    positions = [(ratchet_key, chain) for ratchet_key, chains in passed for chain in chains]
    return tuple(SkippedKey(key, chain.number, chain.message_key().key) for key, chain in positions[-MAX_SKIPPED:])


# The packed state: every half begins with the byte of its state.
_STATE_VERSION: Final = 1
_STATE: Final = struct.Struct(">B32s32s")
_PACKED_UNANSWERED: Final = struct.Struct(">B32s")
_PACKED_STEP_DUE: Final = struct.Struct(">B32sI")
_PACKED_SENDING: Final = struct.Struct(">B32sI32sI")
_PACKED_NOTHING: Final = struct.Struct(">B")
_PACKED_RECEIVING: Final = struct.Struct(">B32s32sI")
_UNANSWERED, _STEP_DUE, _SENDING = 1, 2, 3
_NOTHING_RECEIVED, _RECEIVING = 1, 2


def _pack_sending(half: _SendingHalf) -> bytes:
    if isinstance(half, _Sending):
        chain = half.chain
        return _PACKED_SENDING.pack(_SENDING, half.own.secret, half.previous_length, chain.key, chain.number)
    if isinstance(half, _StepDue):
        return _PACKED_STEP_DUE.pack(_STEP_DUE, half.peer.public, half.previous_length)
    return _PACKED_UNANSWERED.pack(_UNANSWERED, half.own.secret)


def _pack_receiving(half: _ReceivingHalf) -> bytes:
    if isinstance(half, _Receiving):
        return _PACKED_RECEIVING.pack(_RECEIVING, half.peer.public, half.chain.key, half.chain.number)
    return _PACKED_NOTHING.pack(_NOTHING_RECEIVED)


def _unpack_sending(session_id: bytes, packed: bytes, at: int) -> tuple[_SendingHalf, int]:
    (state,) = _PACKED_NOTHING.unpack_from(packed, at)
    if state == _SENDING:
        _, secret, previous_length, key, number = _PACKED_SENDING.unpack_from(packed, at)
        own = OwnExchangeKey(secret)
        head = _chain_head(session_id, own, previous_length)
        return _Sending(own, previous_length, SendingChain(key, number), head), at + _PACKED_SENDING.size
    if state == _STEP_DUE:
        _, public, previous_length = _PACKED_STEP_DUE.unpack_from(packed, at)
        return _StepDue(PeerExchangeKey(public), previous_length), at + _PACKED_STEP_DUE.size
    if state == _UNANSWERED:
        _, secret = _PACKED_UNANSWERED.unpack_from(packed, at)
        return _Unanswered(OwnExchangeKey(secret)), at + _PACKED_UNANSWERED.size
    raise CryptoRefusal(Reason.BAD_RECORD, "the packed session's sending half is in no known state")


def _unpack_receiving(packed: bytes, at: int) -> tuple[_ReceivingHalf, int]:
    (state,) = _PACKED_NOTHING.unpack_from(packed, at)
    if state == _NOTHING_RECEIVED:
        return _NothingReceived(), at + _PACKED_NOTHING.size
    if state == _RECEIVING:
        _, public, key, number = _PACKED_RECEIVING.unpack_from(packed, at)
        return _Receiving(PeerExchangeKey(public), ReceivingChain(key, number)), at + _PACKED_RECEIVING.size
    raise CryptoRefusal(Reason.BAD_RECORD, "the packed session's receiving half is in no known state")
