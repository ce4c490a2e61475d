"""The stored forms of ratchet.md and sender-keys.md, written and read. Skipped keys are not in them."""

from . import keys, pq
from .message import Route, silent
from .notation import hmac, number
from .ratchet import Ephemeral, Receiving, Sending, Session, StepDue, Unanswered
from .refusal import RefusedError
from .sender_keys import OwnChain, PeerChain

_RATCHET_VERSION, _GROUP_VERSION = b"\x02", b"\x01"
_KEY, _CIPHERTEXT = 32 * pq.KEY_BLOCKS, 32 * pq.CIPHERTEXT_BLOCKS


class _Reader:
    """Reads fields from the front; whatever is too short or too long is a bad record."""

    def __init__(self, data: bytes) -> None:
        self._left = data

    def take(self, length: int) -> bytes:
        if len(self._left) < length:
            raise RefusedError("bad_record")
        taken, self._left = self._left[:length], self._left[length:]
        return taken

    def number(self, length: int = 4) -> int:
        return number(self.take(length))

    def key(self) -> bytes:
        return self.take(32)

    def version(self, version: bytes) -> None:
        if self.take(1) != version:
            raise RefusedError("bad_record")

    def cursor(self, blocks: int) -> int:
        block = self.number(1)
        if block >= blocks:
            raise RefusedError("bad_record")
        return block

    def route(self) -> Route:
        return Route(self.key(), self.key())

    def end(self) -> None:
        if self._left:
            raise RefusedError("bad_record")


def _u32(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "big") for value in values)


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


# --- Ratchet ----------------------------------------------------------------------------------------------------


def pack(session: Session) -> bytes:
    """The state of a session."""
    numbers = _u32(session.epoch, session.messages)
    head = _RATCHET_VERSION + session.session_id + session.root_key + numbers
    routes = b"".join(session.next_sending) + b"".join(session.next_receiving)
    return head + routes + _sending(session.sending) + _receiving(session.receiving) + pack_pq(session.pq)


def _sending(half: Unanswered | StepDue | Sending) -> bytes:
    match half:
        case Unanswered(secret):
            return b"\x01" + secret + keys.exchange_public(secret)
        case StepDue(peer_key, previous, None):
            return b"\x02" + peer_key + _u32(previous)
        case StepDue(peer_key, previous, Ephemeral() as chain):
            return b"\x03" + peer_key + _u32(previous) + _ephemeral(chain)
        case Sending(secret, key, n, chain):
            return b"\x04" + secret + keys.exchange_public(secret) + key + _u32(n) + _ephemeral(chain)
    raise AssertionError(half)


def _ephemeral(chain: Ephemeral) -> bytes:
    key = chain.key
    for _ in range(chain.next, chain.stored):
        key = hmac(key, b"\x02")
    numbers = _u32(chain.previous, chain.epoch)
    return b"".join(chain.route) + chain.own_public + numbers + key + _u32(chain.stored)


def _receiving(chain: Receiving | None) -> bytes:
    if chain is None:
        return b"\x01"
    head = b"\x02" + _u32(chain.index) + chain.ratchet_key + _u32(chain.previous, chain.epoch) + b"".join(chain.route)
    return head + chain.key + _u32(chain.next, chain.ahead) + chain.ephemeral_key + _u32(chain.ephemeral_next)


def _collected(have: pq.Blocks, blocks: int) -> bytes:
    bits = sum(1 << index for index in have)
    return _u64(bits) + (b"".join(have.get(index, bytes(32)) for index in range(blocks)) if have else b"")


def pack_pq(state: pq.State) -> bytes:
    """The post-quantum part."""
    match state:
        case pq.Resting(since):
            return b"\x01" + _u64(since)
        case pq.Offering(seed, key, cursor, since, have):
            sent = seed + key + bytes([cursor]) + _u64(since)
            return b"\x02" + sent + _collected(have, pq.CIPHERTEXT_BLOCKS)
        case pq.Due(secret):
            return b"\x03" + secret
        case pq.Waiting(have):
            return b"\x04" + _collected(have, pq.KEY_BLOCKS)
        case pq.Answering(secret, ciphertext, cursor, since):
            return b"\x05" + secret + ciphertext + bytes([cursor]) + _u64(since)
    raise AssertionError(state)


def unpack(data: bytes) -> Session:
    """A session, without its kept keys."""
    reader = _Reader(data)
    reader.version(_RATCHET_VERSION)
    session_id, root_key = reader.key(), reader.key()
    epoch, messages = reader.number(), reader.number()
    own, peer = reader.route(), reader.route()
    sending, receiving, state = _read_sending(reader), _read_receiving(reader), _read_pq(reader)
    reader.end()
    return Session(session_id, root_key, own, peer, sending, state, receiving, epoch, messages)


def unpack_pq(data: bytes) -> pq.State:
    """The post-quantum part alone."""
    reader = _Reader(data)
    state = _read_pq(reader)
    reader.end()
    return state


def _read_sending(reader: _Reader) -> Unanswered | StepDue | Sending:
    match reader.number(1):
        case 1:
            secret, _ = reader.key(), reader.key()
            return Unanswered(secret)
        case 2:
            return StepDue(_peer_key(reader), reader.number(), None)
        case 3:
            return StepDue(_peer_key(reader), reader.number(), _read_ephemeral(reader))
        case 4:
            secret, _ = reader.key(), reader.key()
            return Sending(secret, reader.key(), reader.number(), _read_ephemeral(reader))
        case _:
            raise RefusedError("bad_record")


def _peer_key(reader: _Reader) -> bytes:
    key = reader.key()
    keys.check_exchange_key(key)
    return key


def _read_ephemeral(reader: _Reader) -> Ephemeral:
    route, public = reader.route(), reader.key()
    previous, epoch, key, stored = reader.number(), reader.number(), reader.key(), reader.number()
    return Ephemeral(route, public, previous, epoch, key, stored, stored)


def _read_receiving(reader: _Reader) -> Receiving | None:
    match reader.number(1):
        case 1:
            return None
        case 2:
            chain = (reader.number(), reader.key(), reader.number(), reader.number(), reader.route())
            return Receiving(*chain, reader.key(), reader.number(), reader.number(), reader.key(), reader.number())
        case _:
            raise RefusedError("bad_record")


def _read_pq(reader: _Reader) -> pq.State:
    match reader.number(1):
        case 1:
            return pq.Resting(reader.number(8))
        case 2:
            sent = (reader.take(64), reader.take(_KEY), reader.cursor(pq.KEY_BLOCKS), reader.number(8))
            return pq.Offering(*sent, _read_collected(reader, pq.CIPHERTEXT_BLOCKS))
        case 3:
            return pq.Due(reader.key())
        case 4:
            return pq.Waiting(_read_collected(reader, pq.KEY_BLOCKS))
        case 5:
            secret, ciphertext = reader.key(), reader.take(_CIPHERTEXT)
            return pq.Answering(secret, ciphertext, reader.cursor(pq.CIPHERTEXT_BLOCKS), reader.number(8))
        case _:
            raise RefusedError("bad_record")


def _read_collected(reader: _Reader, blocks: int) -> pq.Blocks:
    bits = reader.number(8)
    if bits >> blocks:
        raise RefusedError("bad_record")
    data = reader.take(32 * blocks) if bits else b""
    return {index: data[32 * index : 32 * (index + 1)] for index in range(blocks) if bits >> index & 1}


# --- Sender keys ------------------------------------------------------------------------------------------------


def pack_own(own: OwnChain) -> bytes:
    """The state of a device's own chain."""
    chain = own.chain
    head = _GROUP_VERSION + chain.group + chain.device + _u32(chain.epoch) + _u64(own.begun) + own.seed
    numbers = (_u32(chain.next), _u32(own.stored))
    return head + chain.route_secret + chain.key + numbers[0] + own.stored_ephemeral_key() + numbers[1]


def unpack_own(data: bytes) -> OwnChain:
    """A device's own chain."""
    reader = _Reader(data)
    reader.version(_GROUP_VERSION)
    group, device, epoch = reader.key(), reader.take(16), reader.number()
    begun, seed = reader.number(8), reader.key()
    secret, key, n, ephemeral_key, w = reader.key(), reader.key(), reader.number(), reader.key(), reader.number()
    reader.end()
    chain = PeerChain(group, device, epoch, keys.signing_public(seed), secret, key, n, silent(n), ephemeral_key, w)
    return OwnChain(chain, begun, seed, w)


def pack_peer(chain: PeerChain) -> bytes:
    """The state of another device's chain, without its kept keys."""
    head = _GROUP_VERSION + chain.group + chain.device + _u32(chain.epoch) + chain.signing_key
    return (
        head
        + chain.route_secret
        + chain.key
        + _u32(chain.next, chain.ahead)
        + chain.ephemeral_key
        + _u32(chain.ephemeral_next)
    )


def unpack_peer(data: bytes) -> PeerChain:
    """Another device's chain."""
    reader = _Reader(data)
    reader.version(_GROUP_VERSION)
    who = (reader.key(), reader.take(16), reader.number(), reader.key())
    secret, key, following, ahead = reader.key(), reader.key(), reader.number(), reader.number()
    chain = PeerChain(*who, secret, key, following, ahead, reader.key(), reader.number())
    reader.end()
    keys.check_signing_key(chain.signing_key)
    return chain
