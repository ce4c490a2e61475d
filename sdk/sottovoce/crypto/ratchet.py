"""The Double Ratchet with encrypted headers and a sparse post-quantum ratchet. One `Ratchet` is one session's state.

Here stands who steps when and what is refused; the bytes of a message are `message`'s, the fragments `pq_ratchet`'s.
Nothing here chooses a session, keeps the table of tags or skipped keys, or does I/O: the caller stores `pack()` and
the skipped keys in one transaction. Spec: ratchet.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import Final, NamedTuple, TypeAlias

from sottovoce_wire import padding

from . import message as layout
from . import pq_ratchet
from .agreement import SessionKeys
from .chain_key import MAX_SKIPPED, Passed, ReceivingChain, SendingChain, skipped_message_key
from .errors import CryptoRefusal, Reason
from .message import LOOK_AHEAD_LIVE, MAX_CHAIN, RUN, Expected, Route, Window, new_tuple
from .primitives import OwnExchangeKey, PeerExchangeKey
from .ratchet_state import (
    LOOK_AHEAD_EPHEMERAL,
    NothingReceived,
    Receiving,
    ReceivingHalf,
    Sending,
    SendingHalf,
    StepDue,
    Unanswered,
    Whispers,
    pack_receiving,
    pack_sending,
    unpack_receiving,
    unpack_sending,
)
from .root_key import SessionRootKey

#: Steps that one message may walk its chains: 17 days of a message a minute that never came.
MAX_STEPS: Final = 25_000

#: ratchet key ‖ PN, then n ‖ PQ epoch: the 44 bytes of a header.
_CHAIN_HEAD: Final = struct.Struct(">32sI")
_NUMBERS: Final = struct.Struct(">II")
_HEADER: Final = struct.Struct(">32sIII")

# version ‖ session id ‖ root key ‖ epoch ‖ messages in it
_STATE_VERSION: Final = 2
_STATE: Final = struct.Struct(">B32s32sII")

#: Asks the caller's store for a skipped message key by chain and number; None if there is none.
FindSkipped: TypeAlias = "Callable[[int, int], SkippedKey | None]"
#: Told of the steps that a message asks for, before they are walked; raises CryptoRefusal if they are too many.
Spend: TypeAlias = Callable[[int], None]


class SkippedKey(NamedTuple):
    """The keys of message `number` of a chain, which has not come yet: message key and header key (32 each), and the
    routing tag (8) that finds it. The store ages it out."""

    chain: int
    number: int
    tag: bytes
    header_key: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"SkippedKey(chain={self.chain}, number={self.number})"


class Decrypted(NamedTuple):
    """A message's body, and what opening it changed: the skipped keys to store, oldest first; the one to delete, if
    one opened it; routing tags that are new, and those that announce nothing any more."""

    body: bytes
    is_ephemeral: bool
    skipped: tuple[SkippedKey, ...]
    used: Expected | None
    appeared: Sequence[Window]
    vanished: Sequence[bytes]

    def __repr__(self) -> str:
        return "Decrypted(…)"


class _Header(NamedTuple):
    ratchet_key: bytes
    previous_length: int
    number: int
    epoch: int


#: Which chain, its route, and the places that were walked over, one at least.
Walked: TypeAlias = tuple[int, Route, Sequence[Passed]]


class _Change(NamedTuple):
    """What a message does to the state if it proves authentic."""

    root: SessionRootKey
    epoch: int
    next_receiving: Route
    sending: SendingHalf
    receiving: Receiving
    walked: tuple[Walked, ...]
    agreement: pq_ratchet.State

    def __repr__(self) -> str:
        return "_Change(…)"


class Ratchet:
    """One side of a session. Its state changes only when a message is sent, or has proven authentic.

    Times are unix seconds. Not for two threads at once. Whoever cannot store the new state drops the object and
    unpacks the stored one.
    """

    __slots__ = (
        "_agreement",
        "_messages",
        "_next_receiving",
        "_next_sending",
        "_receiving",
        "_root",
        "_sending",
        "epoch",
        "session_id",
    )

    def __init__(
        self,
        session_id: bytes,
        root: SessionRootKey,
        epoch: int,
        messages: int,
        routes: tuple[Route, Route],
        sending: SendingHalf,
        receiving: ReceivingHalf,
        agreement: pq_ratchet.State,
    ) -> None:
        self.session_id: Final = session_id
        self._root = root
        #: The post-quantum epoch that the newest chain names: 0 is the handshake's.
        self.epoch = epoch
        self._messages = messages  # sent and received in it
        self._next_sending, self._next_receiving = routes
        self._sending = sending
        self._receiving = receiving
        self._agreement = agreement

    @classmethod
    def initiator(cls, keys: SessionKeys, peer_signed_prekey: bytes, now: int) -> "Ratchet":
        """The side that made the handshake. The peer's signed prekey (32) is its first ratchet key. Raises BAD_KEY."""
        due = StepDue(PeerExchangeKey(peer_signed_prekey), 0, None)
        agreement = pq_ratchet.begin(now, is_initiator=True)
        routes = Route(keys.header_key_a + keys.tag_key_a), Route(keys.header_key_b + keys.tag_key_b)
        return cls(keys.session_id, SessionRootKey(keys.root_key), 0, 0, routes, due, NothingReceived(), agreement)

    @classmethod
    def responder(cls, keys: SessionKeys, own_signed_prekey: OwnExchangeKey, now: int) -> "Ratchet":
        """The side that answered. It opens a message before it sends one."""
        unanswered = Unanswered(own_signed_prekey)
        agreement = pq_ratchet.begin(now, is_initiator=False)
        routes = Route(keys.header_key_b + keys.tag_key_b), Route(keys.header_key_a + keys.tag_key_a)
        root = SessionRootKey(keys.root_key)
        return cls(keys.session_id, root, 0, 0, routes, unanswered, NothingReceived(), agreement)

    # --- Sending -------------------------------------------------------------------------------------------------

    def encrypt(self, body: bytes, now: int) -> bytes:
        """The message, as `message.Route.seal` lays it out, with the body and a fragment padded together.

        Store `pack()` before the message leaves. Raises CryptoRefusal: NOTHING_RECEIVED, CHAIN_ENDED.
        """
        sending = self._sending
        if not isinstance(sending, Sending):
            sending = self._start_chain(sending, now)
        chain, line = sending.chain, sending.whispers
        if chain.number >= MAX_CHAIN:
            raise CryptoRefusal(Reason.CHAIN_ENDED, "the chain has as many messages as it may: start a new session")
        size = padding.padded_length(len(body) + 1)
        room = size - len(body) - 2
        field, self._agreement = pq_ratchet.give(self._agreement, self.epoch, self._messages, room, now)
        padded = padding.pad_to(field + body, size) if len(field) + len(body) < size else padding.pad(field + body)
        header = line.head + _NUMBERS.pack(chain.number, line.epoch)
        key, sending.chain = chain.step()
        self._messages += 1
        return line.route.seal(line.route.tag(chain.number), header, key, self.session_id, padded)

    def encrypt_ephemeral(self, body: bytes) -> tuple[bytes, bool]:
        """An ephemeral message on the newest chain of one's own, and whether `pack()` must be stored before it leaves:
        once every eight. It is lost where nobody listens, and what follows does not miss it.

        Raises CryptoRefusal: NOTHING_SENT, CHAIN_ENDED.
        """
        sending = self._sending
        line = None if isinstance(sending, Unanswered) else sending.whispers
        if line is None:
            raise CryptoRefusal(Reason.NOTHING_SENT, "an ephemeral message follows one that is not")
        chain = line.chain
        if chain.number >= MAX_CHAIN:
            raise CryptoRefusal(Reason.CHAIN_ENDED, "the chain has as many messages as it may: start a new session")
        must_store = chain.number >= line.reserve.number
        if must_store:
            for _ in range(LOOK_AHEAD_EPHEMERAL):
                line.reserve = line.reserve.after()
        key, line.chain = chain.step()
        header = line.head + _NUMBERS.pack(chain.number, line.epoch)
        tag = line.route.tag(chain.number, is_ephemeral=True)
        padded = padding.pad(pq_ratchet.NO_FRAGMENT + body)
        return line.route.seal(tag, header, key, self.session_id, padded), must_store

    def _start_chain(self, sending: Unanswered | StepDue, now: int) -> Sending:
        """The sending half step. It waits for something to send; a post-quantum secret that is due is mixed in."""
        if isinstance(sending, Unanswered):
            raise CryptoRefusal(Reason.NOTHING_RECEIVED, "a responder opens a message before it sends one")
        own = OwnExchangeKey.generate_for_a_turn()
        secret, epoch, agreement = b"", self.epoch, self._agreement
        if isinstance(agreement, pq_ratchet.Due):
            secret, epoch, self._messages = agreement.secret, epoch + 1, 0
            agreement = pq_ratchet.begin(now, is_initiator=True)
        step = self._root.step(own.exchange(sending.peer), secret, epoch)
        head = _CHAIN_HEAD.pack(own.public, sending.previous_length)
        whispers = Whispers(self._next_sending, head, epoch, SendingChain(step.ephemeral_key, 0))
        started = Sending(own, SendingChain(step.chain_key, 0), whispers)
        self._root, self.epoch, self._agreement = step.root, epoch, agreement
        self._next_sending, self._sending = step.next_route, started
        return started

    # --- Receiving -----------------------------------------------------------------------------------------------

    def expected(self) -> tuple[Window, ...]:
        """The routing tags under which the peer's messages are expected, without those of skipped keys."""
        receiving = self._receiving
        silent = self._next_receiving.announce(self._seen + 1, 0, RUN)
        return (silent, *receiving.windows()) if isinstance(receiving, Receiving) else (silent,)

    def recognise(self, message: bytes) -> Expected | None:
        """What a message is whose tag nobody expects, if its header opens: it lies beyond what was looked ahead for."""
        receiving = self._receiving
        found = _try_header(self._next_receiving, self._seen + 1, message)
        if found is None and isinstance(receiving, Receiving):
            found = _try_header(receiving.route, receiving.nth, message)
        return found

    def decrypt(
        self, message: bytes, expected: Expected, find_skipped: FindSkipped, spend: Spend, now: int
    ) -> Decrypted:
        """Open the message that `expected` announces. Store `pack()`, the skipped keys and the deletion in one
        transaction, then change the table of tags.

        `spend(steps)` is called before a walk along a chain, and may refuse it: forged numbers cost a walk each.
        Raises CryptoRefusal and leaves the state as it was: MALFORMED, NOT_AUTHENTIC, ALREADY_USED, CLONE_SUSPECTED,
        TOO_FAR_AHEAD, CHAIN_ENDED, WRONG_EPOCH, BAD_KEY.
        """
        tag, (nth, number, is_ephemeral) = layout.routing_tag(message), expected
        if number >= MAX_CHAIN:
            raise CryptoRefusal(Reason.CHAIN_ENDED, "the message's number is beyond the end of a chain")
        receiving, is_open = self._receiving, False
        if isinstance(receiving, Receiving) and nth == receiving.nth:
            header = receiving.route.open_header(message)
            if header != receiving.head + _NUMBERS.pack(number, receiving.epoch):
                raise _not_of_this_chain(receiving, header)
            if is_ephemeral:
                return self._whisper(receiving, message, expected)
            if number == receiving.chain.number:
                return self._next(receiving, message, tag, now)
            if number > receiving.chain.number:
                return self._commit(self._advance(receiving, expected, spend), message, now)
            is_open = True
        elif nth == self._seen + 1 and not is_ephemeral:
            return self._commit(self._turn(message, expected, spend), message, now)
        kept = None if is_ephemeral else find_skipped(nth, number)
        if kept is None:
            reason = Reason.CLONE_SUSPECTED if is_open else Reason.ALREADY_USED
            raise CryptoRefusal(reason, "the message's key is used up")
        if not is_open:
            _open_header(Route(kept.header_key + bytes(32)), message, expected)
        return self._late(message, tag, expected, kept, now)

    def _next(self, receiving: Receiving, message: bytes, tag: bytes, now: int) -> Decrypted:
        """The ordinary case, made short: the message that comes next on the chain we know."""
        first = receiving.ahead
        key, after = receiving.chain.step()
        body, self._agreement = self._open(message, key, self._agreement, self.epoch, now)
        receiving.chain = after
        self._messages += 1
        appeared: Sequence[Window] = ()
        if first < after.number + LOOK_AHEAD_LIVE:
            receiving.ahead = layout.grown(first)
            appeared = (receiving.route.announce(receiving.nth, first, receiving.ahead),)
        return new_tuple(Decrypted, (body, False, (), None, appeared, (tag,)))

    def _advance(self, receiving: Receiving, expected: Expected, spend: Spend) -> _Change:
        """Further on the chain we know."""
        _check_steps(expected.number - receiving.chain.number, spend)
        chain, passed = receiving.chain.walk(expected.number)
        walked = ((receiving.nth, receiving.route, passed),) if passed else ()
        return _Change(
            self._root,
            self.epoch,
            self._next_receiving,
            self._sending,
            _moved(receiving, chain, receiving.ahead),
            walked,
            self._agreement,
        )

    def _turn(self, message: bytes, expected: Expected, spend: Spend) -> _Change:
        """The receiving half step: a new chain of the peer's, which answers our newest ratchet key."""
        route, sending, known = self._next_receiving, self._sending, self._receiving
        header = _open_header(route, message, expected)
        if isinstance(sending, StepDue):
            # The peer begins a chain only in answer to a ratchet key of ours, and it has seen none since its last.
            raise CryptoRefusal(Reason.NOT_AUTHENTIC, "the message is of no chain that the peer could have begun")
        secret = self._secret_of(header.epoch)
        missing = _missing(known, header)
        if missing or header.number:
            _check_steps(missing + header.number, spend)
        peer = PeerExchangeKey(header.ratchet_key)
        step = self._root.step(sending.own.exchange(peer), secret, header.epoch)
        chain, passed = ReceivingChain(step.chain_key, 0).walk(header.number)
        whispers = sending.whispers if isinstance(sending, Sending) else None
        due = StepDue(peer, sending.chain.number if isinstance(sending, Sending) else 0, whispers)
        receiving = Receiving(
            expected.chain,
            _CHAIN_HEAD.pack(header.ratchet_key, header.previous_length),
            header.epoch,
            route,
            chain,
            RUN,
            ReceivingChain(step.ephemeral_key, 0),
        )
        ended = _end(known, header) if missing else ()
        agreement = pq_ratchet.begin(0, is_initiator=False) if secret else self._agreement
        walked = (*ended, (expected.chain, route, passed)) if passed else ended
        return new_tuple(_Change, (step.root, header.epoch, step.next_route, due, receiving, walked, agreement))

    def _secret_of(self, epoch: int) -> bytes:
        """The post-quantum secret that a new chain of the peer's mixes in: none in the epoch that we are in."""
        if epoch == self.epoch:
            return b""
        if epoch == self.epoch + 1 and isinstance(self._agreement, pq_ratchet.Answering):
            return self._agreement.secret
        raise CryptoRefusal(Reason.WRONG_EPOCH, "the message names a post-quantum epoch that is not agreed")

    def _commit(self, change: _Change, message: bytes, now: int) -> Decrypted:
        at = change.receiving.chain
        key, after = at.step()
        body, agreement = self._open(message, key, change.agreement, change.epoch, now)
        receiving = change.receiving  # made for this message: nobody else holds it
        receiving.chain, receiving.ahead = after, max(receiving.ahead, layout.silent_end(after.number))
        skipped = skipped_keys(change.walked) if change.walked else ()
        appeared = self._appeared(change, receiving, skipped)
        vanished = self._vanished(change, skipped)
        self._root, self.epoch, self._next_receiving = change.root, change.epoch, change.next_receiving
        self._sending, self._receiving, self._agreement = change.sending, receiving, agreement
        self._messages += 1
        return new_tuple(Decrypted, (body, False, skipped, None, appeared, vanished))

    def _late(self, message: bytes, tag: bytes, expected: Expected, kept: SkippedKey, now: int) -> Decrypted:
        """A message that others have overtaken: its key was kept, and its header is open."""
        body, self._agreement = self._open(message, kept.key, self._agreement, self.epoch, now)
        self._messages += 1
        return new_tuple(Decrypted, (body, False, (), expected, (), (tag,)))

    def _whisper(self, receiving: Receiving, message: bytes, expected: Expected) -> Decrypted:
        """An ephemeral message: those before it that have not come are given up. A fragment in it is ignored."""
        steps = expected.number - receiving.whispers.number
        if not 0 <= steps < LOOK_AHEAD_EPHEMERAL:
            reason = Reason.ALREADY_USED if steps < 0 else Reason.TOO_FAR_AHEAD
            raise CryptoRefusal(reason, "the ephemeral message lies outside the window")
        at, _ = receiving.whispers.walk(expected.number)
        _, body = pq_ratchet.split(layout.open_body(message, at.message_key(), self.session_id))
        first, receiving.whispers = receiving.whispers.number, at.after()
        nth, after = receiving.nth, receiving.whispers.number
        gone = receiving.route.tags(first, after, is_ephemeral=True)
        first, end = first + LOOK_AHEAD_EPHEMERAL, after + LOOK_AHEAD_EPHEMERAL
        appeared = receiving.route.announce(nth, first, end, is_ephemeral=True)
        return Decrypted(body, True, (), None, (appeared,), gone)

    def _open(
        self, message: bytes, key: bytes, agreement: pq_ratchet.State, epoch: int, now: int
    ) -> tuple[bytes, pq_ratchet.State]:
        """The body, and the post-quantum part after the fragment beside it."""
        field, body = pq_ratchet.split(layout.open_body(message, key, self.session_id))
        if field is pq_ratchet.NO_FRAGMENT:  # as in most messages
            return body, agreement
        return body, pq_ratchet.take(agreement, epoch, field, now)

    @property
    def answered_from(self) -> int:
        """The first of the peer's chains in which it has opened something of what is sent from now on, whatever else
        of it is lost: each of its chains answers one of ours, and the one that we have begun holds earlier messages."""
        return self._seen + (2 if isinstance(self._sending, Sending) else 1)

    @property
    def _seen(self) -> int:
        """How many of the peer's chains were seen."""
        return self._receiving.nth if isinstance(self._receiving, Receiving) else 0

    # --- The table of tags ---------------------------------------------------------------------------------------

    def _appeared(self, change: _Change, after: Receiving, skipped: Sequence[SkippedKey]) -> Sequence[Window]:
        """A refill begins where the window ended, or it would announce what was skipped a second time."""
        known, nth = self._receiving, after.nth
        ends = {nth: RUN}  # of the tags that are known
        if isinstance(known, Receiving):
            ends[known.nth] = known.ahead
        appeared = []
        if (first := max(ends[nth], after.chain.number)) < after.ahead:
            appeared.append(after.route.announce(nth, first, after.ahead))
        if self._seen < nth:
            appeared.append(after.ephemeral_window())
            appeared.append(change.next_receiving.announce(nth + 1, 0, RUN))
        if skipped:
            appeared += windows_of(skipped, ends)
        return appeared

    def _vanished(self, change: _Change, skipped: Sequence[SkippedKey]) -> Sequence[bytes]:
        known, after = self._receiving, change.receiving
        if isinstance(known, Receiving) and known.nth == after.nth:
            gone = known.route.tags(known.chain.number, min(known.ahead, after.chain.number))
        else:
            gone = after.route.tags(0, min(RUN, after.chain.number))
            gone += known.tags() if isinstance(known, Receiving) else ()
        if not skipped:
            return gone
        kept = {key.tag for key in skipped}
        return [tag for tag in gone if tag not in kept]

    # --- The stored form -----------------------------------------------------------------------------------------

    def pack(self) -> bytes:
        """The state for the encrypted store: version (1) ‖ session id ‖ root key ‖ epoch ‖ messages ‖ routes of both
        next chains ‖ sending half ‖ receiving half, each with one byte that says which state it is in ‖ the
        post-quantum part."""
        start = _STATE.pack(_STATE_VERSION, self.session_id, self._root.key, self.epoch, self._messages)
        routes = self._next_sending.keys + self._next_receiving.keys
        halves = pack_sending(self._sending) + pack_receiving(self._receiving)
        return start + routes + halves + pq_ratchet.pack(self._agreement)

    @classmethod
    def unpack(cls, packed: bytes) -> "Ratchet":
        """Strict inverse of `pack`. Raises CryptoRefusal (BAD_RECORD, BAD_KEY)."""
        try:
            version, session_id, root, epoch, messages = _STATE.unpack_from(packed)
            if version != _STATE_VERSION:
                raise CryptoRefusal(Reason.BAD_RECORD, "the packed session has another version")
            at = _STATE.size + 2 * Route.LENGTH
            routes = _routes(packed[_STATE.size : at])
            sending, at = unpack_sending(packed, at)
            receiving, at = unpack_receiving(packed, at)
            agreement = pq_ratchet.unpack(packed[at:])
        except struct.error:
            raise CryptoRefusal(Reason.BAD_RECORD, "the packed session has the wrong length") from None
        return cls(session_id, SessionRootKey(root), epoch, messages, routes, sending, receiving, agreement)


def _moved(receiving: Receiving, chain: ReceivingChain, ahead: int) -> Receiving:
    known = receiving
    return Receiving(known.nth, known.head, known.epoch, known.route, chain, ahead, known.whispers)


def _try_header(route: Route, chain: int, message: bytes) -> Expected | None:
    try:
        header = _Header(*_HEADER.unpack(route.open_header(message)))
    except CryptoRefusal:
        return None
    tag = layout.routing_tag(message)
    if header.number < MAX_CHAIN and tag == route.tag(header.number):
        return Expected(chain, header.number)
    if tag == route.tag(header.number, is_ephemeral=True):
        return Expected(chain, header.number, True)
    return None


def _open_header(route: Route, message: bytes, expected: Expected) -> _Header:
    header = new_tuple(_Header, _HEADER.unpack(route.open_header(message)))
    if header.number != expected.number:
        raise CryptoRefusal(Reason.MALFORMED, "the header has another number than the tag")
    if header.previous_length > MAX_CHAIN:
        raise CryptoRefusal(Reason.CHAIN_ENDED, "the message's number is beyond the end of a chain")
    return header


def _not_of_this_chain(receiving: Receiving, header: bytes) -> CryptoRefusal:
    """Under the keys of one chain the peer writes one ratchet key, one PN and one epoch, unless it has two states."""
    number = _HEADER.unpack(header)[2]
    if header != receiving.head + _NUMBERS.pack(number, receiving.epoch):
        return CryptoRefusal(Reason.CLONE_SUSPECTED, "the header is of another chain under the same keys")
    return CryptoRefusal(Reason.MALFORMED, "the header has another number than the tag")


def _check_steps(steps: int, spend: Spend) -> None:
    if steps > MAX_STEPS:
        raise CryptoRefusal(Reason.TOO_FAR_AHEAD, "the message lies too many steps ahead")
    spend(steps)


def _missing(known: ReceivingHalf, header: _Header) -> int:
    """How many messages are still to come of the chain that ends with PN messages."""
    number = known.chain.number if isinstance(known, Receiving) else 0
    missing = header.previous_length - number
    if missing < 0 or (missing and isinstance(known, NothingReceived)):
        raise CryptoRefusal(Reason.MALFORMED, "the length of the chain before is not possible")
    return missing


def _end(known: ReceivingHalf, header: _Header) -> tuple[Walked, ...]:
    """The positions of the messages that are still to come of the chain before."""
    if isinstance(known, NothingReceived):
        return ()
    _, passed = known.chain.walk(header.previous_length)
    return ((known.nth, known.route, passed),) if passed else ()


def skipped_keys(walked: Sequence[Walked]) -> tuple[SkippedKey, ...]:
    """The keys of the newest MAX_SKIPPED positions walked over."""
    excess = max(sum(len(passed) for _, _, passed in walked) - MAX_SKIPPED, 0)
    skipped: list[SkippedKey] = []
    for chain, route, passed in walked:
        tags, header_key = route.tags(passed[0][0], passed[-1][0] + 1), route.header_key.key
        for (number, key), tag in islice(zip(passed, tags, strict=True), excess, None):
            skipped.append(new_tuple(SkippedKey, (chain, number, tag, header_key, skipped_message_key(key))))
        excess = max(excess - len(passed), 0)
    return tuple(skipped)


def windows_of(skipped: Sequence[SkippedKey], ends: Mapping[int, int]) -> list[Window]:
    """Their tags, but for those before the number that `ends` names for their chain. The keys of each chain are in a
    row, without a gap."""
    windows = []
    for chain, keys in groupby(skipped, itemgetter(0)):
        row = list(keys)
        for at in range(max(ends.get(chain, 0) - row[0].number, 0), len(row), RUN):
            run = row[at : at + RUN]
            windows.append(new_tuple(Window, ([key.tag for key in run], chain, run[0].number, False)))
    return windows


def _routes(packed: bytes) -> tuple[Route, Route]:
    if len(packed) != 2 * Route.LENGTH:
        raise CryptoRefusal(Reason.BAD_RECORD, "the packed session is too short")
    return Route(packed[: Route.LENGTH]), Route(packed[Route.LENGTH :])
