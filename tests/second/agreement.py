"""pqxdh.md: the handshake, its transcript and the keys of a session. No ratchet."""

from dataclasses import dataclass

from . import keys, ml_kem
from .notation import fields, hkdf, label, number, sha256
from .prekeys import Prekeys, parse_prekeys
from .refusal import RefusedError

_LAYOUT = (1, 1, 4, 32, 16, 32, 32, 4, 1, 4, ml_kem.CIPHERTEXT_LENGTH)
LENGTH = sum(_LAYOUT)


@dataclass(frozen=True)
class Handshake:
    """A handshake's fields and its bytes."""

    generation: int
    account: bytes
    device: bytes
    identity_key: bytes
    ephemeral_key: bytes
    record_id: int
    one_time_id: int | None
    kem_ciphertext: bytes
    packed: bytes

    @property
    def digest(self) -> bytes:
        """How a repeated handshake finds its session."""
        return sha256(label("handshake hash") + self.packed)


def parse_handshake(packed: bytes) -> Handshake:
    """The fields; refused: malformed, unsupported_version."""
    version, suite, generation, account, device, ik, ek, record_id, mark, one_time_id, ct = fields(
        packed, _LAYOUT, "malformed"
    )
    if (number(version), number(suite)) != (1, 1):
        raise RefusedError("unsupported_version")
    if number(mark) > 1 or (number(mark) == 0 and number(one_time_id) != 0):
        raise RefusedError("malformed")
    one_time = number(one_time_id) if number(mark) else None
    return Handshake(number(generation), account, device, ik, ek, number(record_id), one_time, ct, packed)


@dataclass(frozen=True)
class SessionKeys:
    """What both sides derive."""

    session_id: bytes
    root_key: bytes
    header_key_a: bytes
    tag_key_a: bytes
    header_key_b: bytes
    tag_key_b: bytes


@dataclass(frozen=True)
class Recipient:
    """What the transcript says of the recipient."""

    account: bytes
    device: bytes
    identity_key: bytes
    record: bytes


def _derive(handshake: bytes, recipient: Recipient, one_time_key: bytes | None, secrets: bytes) -> SessionKeys:
    who = recipient.account + recipient.device + recipient.identity_key
    transcript = handshake + who + recipient.record + (one_time_key or bytes(32))
    session_id = sha256(label("session id") + transcript)
    output = hkdf(bytes(32), secrets, label("session") + session_id, 160)
    return SessionKeys(session_id, *fields(output, (32,) * 5, "malformed"))


@dataclass(frozen=True)
class Initiator:
    """Alice's device: its ids and secrets, and the randomness of one handshake."""

    account: bytes
    device: bytes
    identity_secret: bytes
    ephemeral_secret: bytes
    kem_coins: bytes


def initiate(
    own: Initiator, peer: Prekeys, peer_identity: bytes, one_time: tuple[int, bytes] | None, generation: int
) -> tuple[bytes, SessionKeys]:
    """(handshake, the session's keys)."""
    if not 0 <= generation < 2**32:
        raise RefusedError("malformed")
    if peer.device == own.device:
        raise RefusedError("own_device")
    secrets = keys.exchange(own.identity_secret, peer.signed_prekey)
    secrets += keys.exchange(own.ephemeral_secret, peer_identity)
    secrets += keys.exchange(own.ephemeral_secret, peer.signed_prekey)
    if one_time:
        keys.check_exchange_key(one_time[1])
        secrets += keys.exchange(own.ephemeral_secret, one_time[1])
    kem_secret, ciphertext = ml_kem.encapsulate(peer.pq_prekey, own.kem_coins)
    mark = b"\x01" + one_time[0].to_bytes(4, "big") if one_time else bytes(5)
    publics = keys.exchange_public(own.identity_secret) + keys.exchange_public(own.ephemeral_secret)
    who = own.account + own.device + publics
    head = b"\x01\x01" + generation.to_bytes(4, "big") + who + peer.record_id.to_bytes(4, "big")
    handshake = head + mark + ciphertext
    recipient = Recipient(peer.account, peer.device, peer_identity, peer.record)
    return handshake, _derive(handshake, recipient, one_time[1] if one_time else None, secrets + kem_secret)


@dataclass(frozen=True)
class Responder:
    """Bob's device: its ids, and the secrets of one prekey record."""

    account: bytes
    device: bytes
    identity_secret: bytes
    signed_prekey: bytes
    pq_prekey: bytes
    sealing_key: bytes
    record: bytes


def respond(own: Responder, one_time: tuple[int, bytes] | None, handshake: Handshake) -> SessionKeys:
    """The session's keys; `one_time` is the id and the secret of the one-time prekey at hand."""
    record = parse_prekeys(own.record)
    if (record.account, record.device) != (own.account, own.device):
        raise RefusedError("wrong_recipient")
    if handshake.device == own.device:
        raise RefusedError("own_device")
    if (handshake.record_id, handshake.one_time_id) != (record.record_id, one_time[0] if one_time else None):
        raise RefusedError("unknown_prekey")
    keys.check_exchange_key(handshake.identity_key)
    keys.check_exchange_key(handshake.ephemeral_key)
    secrets = keys.exchange(own.signed_prekey, handshake.identity_key)
    secrets += keys.exchange(own.identity_secret, handshake.ephemeral_key)
    secrets += keys.exchange(own.signed_prekey, handshake.ephemeral_key)
    if one_time:
        secrets += keys.exchange(one_time[1], handshake.ephemeral_key)
    secrets += ml_kem.decapsulate(own.pq_prekey, handshake.kem_ciphertext)
    recipient = Recipient(own.account, own.device, keys.exchange_public(own.identity_secret), own.record)
    return _derive(handshake.packed, recipient, keys.exchange_public(one_time[1]) if one_time else None, secrets)
