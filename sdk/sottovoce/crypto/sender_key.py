"""Sender keys: the chain under which one device writes to a whole group, and what its fellow members hold of it.

Here stands what a group message is and when one is refused. Who is a member, which epoch it is, who may be handed a
chain and when a new one is due are not decided here; nor is the table of tags kept, nor I/O done. Spec: sender-keys.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

from sottovoce_wire import labels, padding
from sottovoce_wire.ids import AccountId, DeviceId, GroupId

from . import message as layout
from . import primitives
from .chain_key import MAX_SKIPPED, ReceivingChain, SendingChain
from .errors import CryptoRefusal, Reason
from .message import LOOK_AHEAD_LIVE, MAX_CHAIN, NONCE, Expected, Route, Window, new_tuple
from .primitives import KEY_LENGTH, SIGNATURE_LENGTH, SigningKey
from .ratchet import (
    MAX_STEPS,
    Decrypted,
    FindSkipped,
    SkippedKey,
    Spend,
    skipped_keys,
    windows_of,
)
from .ratchet_state import LOOK_AHEAD_EPHEMERAL

#: Ephemeral messages of one chain: a member who missed all of them catches up within the walk of one message.
MAX_WHISPERS: Final = MAX_STEPS
#: When a chain should be replaced: nothing heals it meanwhile. Seconds, and messages.
WORN_AGE: Final = 7 * 24 * 3600
WORN_MESSAGES: Final = 1_000
WORN_WHISPERS: Final = MAX_WHISPERS // 2

#: A sender key has one chain; this is its name in an `Expected` and in a `SkippedKey`.
THE_CHAIN: Final = 1

#: chain id ‖ epoch ‖ n ‖ w: the 44 bytes of a header.
_HEADER: Final = struct.Struct(">32sIII")
#: epoch ‖ membership hash ‖ device id ‖ kind ‖ n ‖ w ‖ r: the middle of what is signed.
_STATEMENT: Final = struct.Struct(">I32s16sBII12s")
#: account id ‖ role
_MEMBER: Final = struct.Struct(">32sB")
#: group id ‖ epoch ‖ signing key ‖ route secret ‖ CK ‖ n ‖ ECK ‖ w
_DISTRIBUTION: Final = struct.Struct(">32sI32s32s32sI32sI")
#: version ‖ group id ‖ device id ‖ epoch ‖ begun ‖ signing seed ‖ route secret ‖ CK ‖ n ‖ ECK ‖ w
_OWN_STATE: Final = struct.Struct(">B32s16sIQ32s32s32sI32sI")
#: version ‖ group id ‖ device id ‖ epoch ‖ signing key ‖ route secret ‖ CK ‖ n ‖ ahead ‖ ECK ‖ w
_PEER_STATE: Final = struct.Struct(">B32s16sI32s32s32sII32sI")
_STATE_VERSION: Final = 1
#: Between two places of a chain that are kept of a walk: a forged number costs this much where one has been before.
_STRIDE: Final = 256

#: The membership hash (32) of an epoch, from the caller's log; None if the epoch is not known, or if the chain should
#: have been replaced by then.
FindMembership: TypeAlias = Callable[[int], bytes | None]


def membership_hash(group_id: GroupId, epoch: int, members: Iterable[tuple[AccountId, int]]) -> bytes:
    """SHA-256(L(members) ‖ group id ‖ epoch ‖ account id and role of each member, sorted): 32 bytes.

    Raises CryptoRefusal (BAD_RECORD) for an account that stands there twice.
    """
    roles = sorted(members)
    if len({account for account, _ in roles}) != len(roles):
        raise CryptoRefusal(Reason.BAD_RECORD, "an account is a member twice")
    listed = (_MEMBER.pack(account, role) for account, role in roles)
    return primitives.sha256(labels.MEMBERS, group_id, epoch.to_bytes(4, "big"), *listed)


class _Header(NamedTuple):
    """`whispers`: the number of the sender's next ephemeral message; 0 in an ephemeral message."""

    chain_id: bytes
    epoch: int
    number: int
    whispers: int


def _chain_id(group_id: GroupId, device_id: DeviceId, signing_public: bytes) -> bytes:
    return primitives.sha256(labels.GROUP_CHAIN, group_id, device_id, signing_public)


def _route(secret: bytes, chain_id: bytes) -> Route:
    """Header key and tag key. The chain id is in them, or a member could hand out another's tags as its own."""
    return Route(primitives.hkdf_sha256(secret, labels.GROUP_ROUTE + chain_id, Route.LENGTH))


def _statement(
    group_id: GroupId,
    device_id: DeviceId,
    membership: bytes,
    header: _Header,
    nonce: bytes,
    content: bytes,
    *,
    is_ephemeral: bool,
) -> bytes:
    """What the chain's signing key signs of one message."""
    _, epoch, number, whispers = header
    middle = _STATEMENT.pack(epoch, membership, device_id, is_ephemeral, number, whispers, nonce)
    return labels.GROUP_MESSAGE + group_id + middle + primitives.sha256(content)


class OwnSenderKey:
    """A device's own chain in a group. `epoch` is the group's when it was begun; an add keeps the chain.

    Not for two threads at once. Whoever cannot store the new state drops the object and unpacks the stored one.
    """

    __slots__ = (
        "_begun",
        "_chain",
        "_reserve",
        "_route",
        "_route_secret",
        "_signing_key",
        "_whispers",
        "chain_id",
        "device_id",
        "epoch",
        "group_id",
    )

    def __init__(
        self,
        group_id: GroupId,
        device_id: DeviceId,
        epoch: int,
        begun: int,
        signing_key: SigningKey,
        route_secret: bytes,
        chain: SendingChain,
        whispers: SendingChain,
    ) -> None:
        self.group_id: Final = group_id
        self.device_id: Final = device_id
        self.epoch: Final = epoch
        self.chain_id: Final = _chain_id(group_id, device_id, signing_key.public)
        self._begun: Final = begun
        self._signing_key: Final = signing_key
        self._route_secret: Final = route_secret
        self._route: Final = _route(route_secret, self.chain_id)
        self._chain = chain
        self._whispers = whispers
        self._reserve = whispers

    @classmethod
    def begin(cls, group_id: GroupId, device_id: DeviceId, epoch: int, now: int) -> "OwnSenderKey":
        """A fresh chain: every key of it is random. `now` in unix seconds."""
        route_secret, key, whisper_key = (primitives.random_bytes(KEY_LENGTH) for _ in range(3))
        chains = SendingChain(key, 0), SendingChain(whisper_key, 0)
        return cls(group_id, device_id, epoch, now, SigningKey.generate(), route_secret, *chains)

    def is_worn(self, now: int) -> bool:
        """Whether a new chain should take its place: advice, after 7 days, 1,000 messages or 12,500 ephemeral ones."""
        is_old = now - self._begun >= WORN_AGE
        return is_old or self._chain.number >= WORN_MESSAGES or self._whispers.number >= WORN_WHISPERS

    def distribution(self) -> bytes:
        """What a fellow member's device is handed, over its pairwise session and nowhere else: 172 bytes.

        It opens what is sent from now on, and nothing that was sent before.
        """
        return _DISTRIBUTION.pack(
            self.group_id,
            self.epoch,
            self._signing_key.public,
            self._route_secret,
            self._chain.key,
            self._chain.number,
            self._whispers.key,
            self._whispers.number,
        )

    def encrypt(self, content: bytes, epoch: int, membership: bytes) -> bytes:
        """The message, as `message.Route.seal` lays it out. `epoch` is the group's now, `membership` its hash (32).

        Store `pack()` before the message leaves. Raises CryptoRefusal: WRONG_EPOCH, CHAIN_ENDED.
        """
        chain = self._chain
        if chain.number >= MAX_CHAIN:
            raise CryptoRefusal(Reason.CHAIN_ENDED, "the chain has as many messages as it may: begin a new one")
        header = _Header(self.chain_id, epoch, chain.number, self._whispers.number)
        key, after = chain.step()
        message = self._seal(header, key, content, membership, is_ephemeral=False)
        self._chain = after
        return message

    def encrypt_ephemeral(self, content: bytes, epoch: int, membership: bytes) -> tuple[bytes, bool]:
        """An ephemeral message, and whether `pack()` must be stored before it leaves: once every eight.

        Raises CryptoRefusal: WRONG_EPOCH, CHAIN_ENDED.
        """
        chain = self._whispers
        if chain.number >= MAX_WHISPERS:
            raise CryptoRefusal(Reason.CHAIN_ENDED, "the chain has as many messages as it may: begin a new one")
        header = _Header(self.chain_id, epoch, chain.number, 0)
        message = self._seal(header, chain.message_key(), content, membership, is_ephemeral=True)
        must_store = chain.number >= self._reserve.number
        if must_store:
            for _ in range(LOOK_AHEAD_EPHEMERAL):
                self._reserve = self._reserve.after()
        self._whispers = chain.after()
        return message, must_store

    def _seal(self, header: _Header, key: bytes, content: bytes, membership: bytes, *, is_ephemeral: bool) -> bytes:
        if header.epoch < self.epoch:
            raise CryptoRefusal(Reason.WRONG_EPOCH, "the chain was begun in a later epoch")
        nonce = layout.new_nonce()
        statement = _statement(
            self.group_id, self.device_id, membership, header, nonce, content, is_ephemeral=is_ephemeral
        )
        padded = padding.pad(self._signing_key.sign(statement) + content)
        tag = self._route.tag(header.number, is_ephemeral=is_ephemeral)
        return self._route.seal(tag, _HEADER.pack(*header), key, self.chain_id, padded, nonce)

    def pack(self) -> bytes:
        """The state for the encrypted store: 197 bytes. Its ephemeral chain runs ahead of the one in use."""
        return _OWN_STATE.pack(
            _STATE_VERSION,
            self.group_id,
            self.device_id,
            self.epoch,
            self._begun,
            self._signing_key.seed,
            self._route_secret,
            self._chain.key,
            self._chain.number,
            self._reserve.key,
            self._reserve.number,
        )

    @classmethod
    def unpack(cls, packed: bytes) -> "OwnSenderKey":
        """Strict inverse of `pack`. Raises CryptoRefusal (BAD_RECORD)."""
        _check_state(packed, _OWN_STATE)
        _, group_id, device_id, epoch, begun, seed, route, key, n, whisper_key, w = _OWN_STATE.unpack(packed)
        chains = SendingChain(key, n), SendingChain(whisper_key, w)
        return cls(GroupId(group_id), DeviceId(device_id), epoch, begun, SigningKey(seed), route, *chains)


class _Position(NamedTuple):
    """Where a peer's chain stands. `ahead`: its tags are known below this number."""

    chain: ReceivingChain
    ahead: int
    whispers: ReceivingChain

    def __repr__(self) -> str:
        return "_Position(…)"


class PeerSenderKey:
    """A fellow member's chain. Its state changes only when a message has proven authentic.

    Every member holds these keys, so the sender is known by the signature alone: a header that opens proves nothing
    about who wrote it. Not for two threads at once.
    """

    __slots__ = (
        "_at",
        "_places",
        "_route",
        "_route_secret",
        "_signing_public",
        "chain_id",
        "device_id",
        "epoch",
        "group_id",
    )

    def __init__(
        self,
        group_id: GroupId,
        device_id: DeviceId,
        epoch: int,
        signing_public: bytes,
        route_secret: bytes,
        at: _Position,
    ) -> None:
        self.group_id: Final = group_id
        self.device_id: Final = device_id
        #: The epoch that the chain was begun in: it has no messages of an earlier one.
        self.epoch: Final = epoch
        primitives.check_signing_key(signing_public)
        self.chain_id: Final = _chain_id(group_id, device_id, signing_public)
        self._signing_public: Final = signing_public
        self._route_secret: Final = route_secret
        self._route: Final = _route(route_secret, self.chain_id)
        self._at = at
        #: Where walks have been beyond the chain's own place, ascending: in memory alone, and not part of the state.
        self._places: list[ReceivingChain] = []

    @classmethod
    def accept(cls, distribution: bytes, device_id: DeviceId) -> "PeerSenderKey":
        """The chain that a device handed over. `device_id` is that of the session by which it came.

        Whether the device may write to `group_id`, and whether the chain is known already, is the caller's to check.
        Raises CryptoRefusal: MALFORMED, BAD_KEY.
        """
        if len(distribution) != _DISTRIBUTION.size:
            raise CryptoRefusal(Reason.MALFORMED, "a sender key has the wrong length")
        group_id, epoch, signing_public, route, key, n, whisper_key, w = _DISTRIBUTION.unpack(distribution)
        if n > MAX_CHAIN or w > MAX_WHISPERS:
            raise CryptoRefusal(Reason.MALFORMED, "a sender key is beyond the end of its chain")
        at = _Position(ReceivingChain(key, n), layout.silent_end(n), ReceivingChain(whisper_key, w))
        return cls(GroupId(group_id), device_id, epoch, signing_public, route, at)

    def expected(self) -> tuple[Window, Window]:
        """The routing tags that announce a message of this chain, without those of skipped keys."""
        route, at, first = self._route, self._at, self._at.whispers.number
        in_order = route.announce(THE_CHAIN, at.chain.number, at.ahead)
        return in_order, route.announce(THE_CHAIN, first, first + LOOK_AHEAD_EPHEMERAL, is_ephemeral=True)

    def recognise(self, message: bytes) -> Expected | None:
        """What a message is whose tag nobody expects, if its header opens: it lies beyond what was looked ahead for."""
        try:
            header = _Header(*_HEADER.unpack(self._route.open_header(message)))
        except CryptoRefusal:
            return None
        if header.chain_id != self.chain_id:
            return None
        tag, number = layout.routing_tag(message), header.number
        for is_ephemeral, end in ((False, MAX_CHAIN), (True, MAX_WHISPERS)):
            if number < end and tag == self._route.tag(number, is_ephemeral=is_ephemeral):
                return Expected(THE_CHAIN, number, is_ephemeral)
        return None

    def decrypt(
        self,
        message: bytes,
        expected: Expected,
        find_membership: FindMembership,
        find_skipped: FindSkipped,
        spend: Spend,
    ) -> Decrypted:
        """Open the message that `expected` announces. Store `pack()`, the skipped keys and the deletion in one
        transaction, then change the table of tags.

        `find_membership(epoch)` gives the hash that the sender must have signed; WRONG_EPOCH where it gives none.
        `spend(steps)` is called before a walk along a chain, and may refuse it. It comes once for each step, whoever
        wrote the number: where a refused message has made this object walk, the genuine one walks for nothing. So
        the caller keeps one budget for each chain, adds nothing back after a refusal, and keeps the object: a new one
        would ask again for steps that fellow members had it make.
        Raises CryptoRefusal and leaves the state as it was: MALFORMED, NOT_AUTHENTIC, BAD_SIGNATURE, WRONG_EPOCH,
        ALREADY_USED, TOO_FAR_AHEAD, CHAIN_ENDED.
        """
        tag, (_, announced, is_ephemeral) = layout.routing_tag(message), expected
        header = new_tuple(_Header, _HEADER.unpack(self._route.open_header(message)))
        chain_id, epoch, number, whispers = header
        if chain_id != self.chain_id or number != announced:
            raise CryptoRefusal(Reason.MALFORMED, "the header is of another chain or number than the tag")
        if number >= (MAX_WHISPERS if is_ephemeral else MAX_CHAIN) or whispers > MAX_WHISPERS:
            raise CryptoRefusal(Reason.CHAIN_ENDED, "the message's number is beyond the end of a chain")
        if is_ephemeral and whispers:
            raise CryptoRefusal(Reason.MALFORMED, "an ephemeral message's header is not one")
        membership = find_membership(epoch) if epoch >= self.epoch else None
        if membership is None:
            raise CryptoRefusal(Reason.WRONG_EPOCH, "the message names an epoch that is not one of its chain's")
        if is_ephemeral:
            return self._whisper(message, header, membership)
        at = self._at
        if number == at.chain.number and whispers <= at.whispers.number:
            return self._next(message, tag, header, membership)
        if number >= at.chain.number:
            return self._advance(message, header, membership, spend)
        return self._late(message, header, membership, find_skipped)

    def _next(self, message: bytes, tag: bytes, header: _Header, membership: bytes) -> Decrypted:
        """The ordinary case, made short: the message that comes next, when no ephemeral one was missed."""
        chain, ahead, whispers = self._at
        key, after = chain.step()
        content = self._open(message, key, header, membership, is_ephemeral=False)
        appeared: Sequence[Window] = ()
        if ahead < after.number + LOOK_AHEAD_LIVE:
            first, ahead = ahead, layout.grown(ahead)
            appeared = (self._route.announce(THE_CHAIN, first, ahead),)
        self._at = new_tuple(_Position, (after, ahead, whispers))
        if self._places:
            self._forget_places()
        return new_tuple(Decrypted, (content, False, (), None, appeared, (tag,)))

    def _advance(self, message: bytes, header: _Header, membership: bytes, spend: Spend) -> Decrypted:
        """A message further on, or the next one after ephemeral ones were missed. It says where the ephemeral chain
        stands: whoever was away has missed that chain's messages for good, and would never see those that follow."""
        before = self._at
        steps = header.number - before.chain.number
        if steps > MAX_STEPS:
            raise CryptoRefusal(Reason.TOO_FAR_AHEAD, "the message lies too many steps ahead")
        at = self._reach(header.number, spend)
        content = self._open(message, at.message_key(), header, membership, is_ephemeral=False)
        # A fellow member can write any w, so that nothing is asked for it before the signature holds.
        whispers = before.whispers
        if header.whispers > whispers.number:
            spend(header.whispers - whispers.number)
            whispers, _ = whispers.walk(header.whispers)
        _, passed = self._nearest(max(header.number - MAX_SKIPPED, before.chain.number)).walk(header.number)
        after, ahead = at.after(), before.ahead
        if steps:
            ahead = max(ahead, layout.silent_end(after.number))
        elif ahead < after.number + LOOK_AHEAD_LIVE:
            ahead = layout.grown(ahead)
        self._at = _Position(after, ahead, whispers)
        self._forget_places()
        skipped = skipped_keys([(THE_CHAIN, self._route, passed)]) if passed else ()
        return Decrypted(
            content, False, skipped, None, self._appeared(before, skipped), self._vanished(before, skipped)
        )

    def _nearest(self, number: int) -> ReceivingChain:
        """The last place at or before `number` that is known."""
        return next((place for place in reversed(self._places) if place.number <= number), self._at.chain)

    def _reach(self, number: int, spend: Spend) -> ReceivingChain:
        """The chain at `number`. Any member can write a number, so the way to it is remembered: all of them together
        can have no more than MAX_STEPS walked beyond what the sender has truly written."""
        known = self._places[-1].number if self._places else self._at.chain.number
        if number > known:
            spend(number - known)
        place = self._nearest(number)
        while place.number < number:
            place, _ = place.walk(min(place.number + _STRIDE, number))
            if place.number > known:
                self._remember(place)
        return place

    def _remember(self, place: ReceivingChain) -> None:
        """The last place gives way to one further on, unless it is needed to keep two of them near each other."""
        places = self._places
        behind = places[-2] if len(places) > 1 else self._at.chain
        if places and place.number - behind.number <= _STRIDE:
            places.pop()
        places.append(place)

    def _forget_places(self) -> None:
        """Those of before go with the move: they hold the keys of messages that were read."""
        self._places = [place for place in self._places if place.number > self._at.chain.number]

    def _late(self, message: bytes, header: _Header, membership: bytes, find_skipped: FindSkipped) -> Decrypted:
        """A message that others have overtaken: its key was kept. If not, nothing more can be said: every member can
        write a header with a used number, so it is no sign that the sender's store was copied."""
        kept = find_skipped(THE_CHAIN, header.number)
        if kept is None:
            raise CryptoRefusal(Reason.ALREADY_USED, "the message's key is used up")
        content = self._open(message, kept.key, header, membership, is_ephemeral=False)
        used = Expected(THE_CHAIN, header.number)
        return Decrypted(content, False, (), used, (), (layout.routing_tag(message),))

    def _whisper(self, message: bytes, header: _Header, membership: bytes) -> Decrypted:
        """An ephemeral message: those before it that have not come are given up."""
        before = self._at
        steps = header.number - before.whispers.number
        if not 0 <= steps < LOOK_AHEAD_EPHEMERAL:
            reason = Reason.ALREADY_USED if steps < 0 else Reason.TOO_FAR_AHEAD
            raise CryptoRefusal(reason, "the ephemeral message lies outside the window")
        at, _ = before.whispers.walk(header.number)
        content = self._open(message, at.message_key(), header, membership, is_ephemeral=True)
        self._at = before._replace(whispers=at.after())
        return Decrypted(content, True, (), None, self._appeared(before, ()), self._vanished(before, ()))

    def _open(self, message: bytes, key: bytes, header: _Header, membership: bytes, *, is_ephemeral: bool) -> bytes:
        """The content, once the signature in front of it holds."""
        body = layout.open_body(message, key, self.chain_id)
        signature, content = body[:SIGNATURE_LENGTH], body[SIGNATURE_LENGTH:]
        nonce = message[NONCE]
        statement = _statement(
            self.group_id, self.device_id, membership, header, nonce, content, is_ephemeral=is_ephemeral
        )
        primitives.verify(self._signing_public, statement, signature)
        return content

    def _appeared(self, before: _Position, skipped: tuple[SkippedKey, ...]) -> list[Window]:
        """A refill begins where the window ended, or it would announce what was skipped a second time."""
        route, now = self._route, self._at
        in_order = route.announce(THE_CHAIN, max(before.ahead, now.chain.number), now.ahead)
        first, end = (at.whispers.number + LOOK_AHEAD_EPHEMERAL for at in (before, now))
        ephemeral = route.announce(THE_CHAIN, max(first, now.whispers.number), end, is_ephemeral=True)
        return [in_order, ephemeral, *windows_of(skipped, {THE_CHAIN: before.ahead})]

    def _vanished(self, before: _Position, skipped: tuple[SkippedKey, ...]) -> list[bytes]:
        route, now = self._route, self._at
        gone = route.tags(before.chain.number, min(before.ahead, now.chain.number))
        first = before.whispers.number
        gone += route.tags(first, min(first + LOOK_AHEAD_EPHEMERAL, now.whispers.number), is_ephemeral=True)
        kept = {key.tag for key in skipped}
        return [tag for tag in gone if tag not in kept]

    def pack(self) -> bytes:
        """The state for the encrypted store: 193 bytes."""
        at = self._at
        return _PEER_STATE.pack(
            _STATE_VERSION,
            self.group_id,
            self.device_id,
            self.epoch,
            self._signing_public,
            self._route_secret,
            at.chain.key,
            at.chain.number,
            at.ahead,
            at.whispers.key,
            at.whispers.number,
        )

    @classmethod
    def unpack(cls, packed: bytes) -> "PeerSenderKey":
        """Strict inverse of `pack`. Raises CryptoRefusal (BAD_RECORD, BAD_KEY)."""
        _check_state(packed, _PEER_STATE)
        _, group_id, device_id, epoch, signing_public, route, key, n, ahead, whisper_key, w = _PEER_STATE.unpack(packed)
        at = _Position(ReceivingChain(key, n), ahead, ReceivingChain(whisper_key, w))
        return cls(GroupId(group_id), DeviceId(device_id), epoch, signing_public, route, at)


def _check_state(packed: bytes, form: struct.Struct) -> None:
    if len(packed) != form.size or packed[0] != _STATE_VERSION:
        raise CryptoRefusal(Reason.BAD_RECORD, "the packed sender key has the wrong length or version")
