"""pq-ratchet.md: the fragment field, the states of both sides, the secret of an epoch. No chains and no messages."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from . import ml_kem, padding
from .notation import hkdf, label, number, sha256
from .refusal import RefusedError

KEY_BLOCKS, CIPHERTEXT_BLOCKS = 37, 34
_BLOCK, _MESSAGES, _DAY = 32, 50, 86_400


@dataclass(frozen=True)
class Fragment:
    """A fragment's fields."""

    epoch: int
    first: int
    data: bytes


Blocks = Mapping[int, bytes]


@dataclass(frozen=True)
class Resting:
    """A: no epoch under way."""

    since: int


@dataclass(frozen=True)
class Offering:
    """A: the key is under way, or its answer."""

    seed: bytes
    key: bytes
    cursor: int
    since: int
    have: Blocks


@dataclass(frozen=True)
class Due:
    """A: the secret waits for a sending half."""

    secret: bytes


@dataclass(frozen=True)
class Waiting:
    """B: collects a key."""

    have: Blocks


@dataclass(frozen=True)
class Answering:
    """B: has the secret; the ciphertext is under way."""

    secret: bytes
    ciphertext: bytes
    cursor: int
    since: int


State = Resting | Offering | Due | Waiting | Answering


def split(content: bytes) -> tuple[Fragment | None, bytes]:
    """(fragment or none, body) of an unpadded content."""
    if not content:
        raise RefusedError("malformed")
    if content[0] == 0:
        return None, content[1:]
    end = 6 + _BLOCK * content[0]
    if len(content) < end:
        raise RefusedError("malformed")
    return Fragment(number(content[1:5]), content[5], content[6:end]), content[end:]


def epoch_secret(shared: bytes, key: bytes, ciphertext: bytes) -> bytes:
    """ss of an epoch, from K, ek and ct."""
    return hkdf(bytes(32), shared, label("pq epoch") + sha256(key + ciphertext), 32)


# --- What a message carries -------------------------------------------------------------------------------------


def give(state: State, epoch: int, messages: int, length: int, now: int, seed: bytes) -> tuple[bytes, State]:
    """(fragment field, the state afterwards) for a body of this length; `seed` is drawn if an epoch opens."""
    if isinstance(state, Resting) and (messages >= _MESSAGES or now - state.since >= _DAY):
        state = Offering(seed, ml_kem.public_of(seed), 0, now, {})
    if isinstance(state, Offering) and not state.have:
        field, cursor, since = _next(state.key, epoch, state.cursor, state.since, length, now)
        return field, replace(state, cursor=cursor, since=since)
    if isinstance(state, Answering):
        field, cursor, since = _next(state.ciphertext, epoch, state.cursor, state.since, length, now)
        return field, replace(state, cursor=cursor, since=since)
    return b"\x00", state


def _next(data: bytes, epoch: int, cursor: int, since: int, length: int, now: int) -> tuple[bytes, int, int]:
    """(field, cursor, since) after the next piece of `data`."""
    blocks = len(data) // _BLOCK
    if now - since >= _DAY:
        return _field(data, epoch, 0, blocks), 0, now
    room = padding.padded_length(1 + length) - length - 2
    count = min((room - 5) // _BLOCK, blocks - cursor)
    if count < 1:
        return b"\x00", cursor, since
    return _field(data, epoch, cursor, count), (cursor + count) % blocks, since


def _field(data: bytes, epoch: int, first: int, count: int) -> bytes:
    head = bytes([count]) + (epoch + 1).to_bytes(4, "big") + bytes([first])
    return head + data[_BLOCK * first : _BLOCK * (first + count)]


# --- What a message brings --------------------------------------------------------------------------------------


def take(state: State, epoch: int, fragment: Fragment | None, now: int, coins: bytes) -> State:
    """The state after a fragment; `coins` are drawn if it completes the key."""
    if fragment is None or fragment.epoch != epoch + 1:
        return state
    if isinstance(state, Waiting):
        have = _collected(state.have, fragment, KEY_BLOCKS)
        return Waiting(have) if len(have) < KEY_BLOCKS else _answer(_joined(have), now, coins)
    if isinstance(state, Offering):
        have = _collected(state.have, fragment, CIPHERTEXT_BLOCKS)
        if len(have) < CIPHERTEXT_BLOCKS:
            return replace(state, have=have)
        ciphertext = _joined(have)
        return Due(epoch_secret(ml_kem.decapsulate(state.seed, ciphertext), state.key, ciphertext))
    return state


def _collected(have: Blocks, fragment: Fragment, blocks: int) -> Blocks:
    count = len(fragment.data) // _BLOCK
    if fragment.first + count > blocks:
        raise RefusedError("malformed")
    data = fragment.data
    return {**have, **{fragment.first + i: data[_BLOCK * i : _BLOCK * (i + 1)] for i in range(count)}}


def _joined(have: Blocks) -> bytes:
    return b"".join(have[index] for index in sorted(have))


def _answer(key: bytes, now: int, coins: bytes) -> Answering:
    shared, ciphertext = ml_kem.encapsulate(key, coins)
    return Answering(epoch_secret(shared, key, ciphertext), ciphertext, 0, now)
