"""The handshake, PQXDH: from two identities and the recipient's prekeys to the keys of one session.

Here stand the handshake's layout, its transcript and its derivation. Who the sender is, is checked by the caller
(`sealed.open_sender`); prekeys are kept and wiped by the store. Spec: pqxdh.
"""

import struct
from dataclasses import dataclass
from typing import Final

from sottovoce_wire import labels
from sottovoce_wire.ids import AccountId, DeviceId

from . import primitives
from .errors import CryptoRefusal, Reason
from .identity import DeviceKeys
from .prekeys import OneTimePrekey, OwnPrekeys, PeerPrekeys
from .primitives import OwnExchangeKey, PeerExchangeKey

VERSION: Final = 1
#: X25519 and ML-KEM-768, HKDF-SHA-256, AES-256-GCM.
SUITE: Final = 1
_LAYOUT: Final = struct.Struct(f">BBI32s16s32s32sIBI{primitives.ML_KEM_768_CIPHERTEXT_LENGTH}s")
_OUTPUT: Final = struct.Struct(">32s32s32s32s32s")


@dataclass(frozen=True, slots=True, repr=False)
class Handshake:
    """What the initiator sends in clear inside the sealed message: 1,215 bytes, nothing of it secret.

    version (1) ‖ suite (1) ‖ generation (4) ‖ sender's account id (32) ‖ device id (16) ‖ identity key (32) ‖
    ephemeral key (32) ‖ prekey record id (4) ‖ one-time prekey: 0 or 1 (1), id or zeros (4) ‖ KEM ciphertext (1,088)
    """

    generation: int
    account_id: AccountId
    device_id: DeviceId
    identity_key: bytes
    ephemeral_key: bytes
    record_id: int
    one_time_id: int | None
    kem_ciphertext: bytes

    LENGTH = _LAYOUT.size

    def pack(self) -> bytes:
        """The bytes that travel."""
        return _LAYOUT.pack(
            VERSION,
            SUITE,
            self.generation,
            self.account_id,
            self.device_id,
            self.identity_key,
            self.ephemeral_key,
            self.record_id,
            self.one_time_id is not None,
            self.one_time_id or 0,
            self.kem_ciphertext,
        )

    @classmethod
    def parse(cls, packed: bytes) -> "Handshake":
        """Strict inverse of `pack`. Raises CryptoRefusal (MALFORMED, UNSUPPORTED_VERSION)."""
        if len(packed) != _LAYOUT.size:
            raise CryptoRefusal(Reason.MALFORMED, "the handshake has the wrong length")
        if (packed[0], packed[1]) != (VERSION, SUITE):
            raise CryptoRefusal(Reason.UNSUPPORTED_VERSION, "the handshake has another version or suite")
        _, _, generation, account, device, identity, ephemeral, record_id, has_one_time, one_time_id, kem = (
            _LAYOUT.unpack(packed)
        )
        if has_one_time > 1 or (not has_one_time and one_time_id):
            raise CryptoRefusal(Reason.MALFORMED, "the handshake's one-time prekey is neither named nor absent")
        one_time = one_time_id if has_one_time else None
        return cls(generation, AccountId(account), DeviceId(device), identity, ephemeral, record_id, one_time, kem)

    @property
    def digest(self) -> bytes:
        """SHA-256(L(handshake hash) ‖ packed): 32 bytes, by which an accepted handshake is recognised when repeated."""
        return primitives.sha256(labels.HANDSHAKE_HASH, self.pack())


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SessionKeys:
    """What both sides derive, 32 bytes each: the session's public id, its root key, and header and tag keys of both
    sides (A is the initiator)."""

    session_id: bytes
    root_key: bytes
    header_key_a: bytes
    tag_key_a: bytes
    header_key_b: bytes
    tag_key_b: bytes


@dataclass(frozen=True, slots=True, repr=False)
class _Recipient:
    """The recipient's share of the transcript, known to both sides."""

    account_id: AccountId
    device_id: DeviceId
    identity_key: bytes
    signed_record: bytes


def initiate(
    own: DeviceKeys,
    own_account: AccountId,
    peer: PeerPrekeys,
    peer_identity: bytes,
    one_time: tuple[int, bytes] | None,
    generation: int,
) -> tuple[Handshake, SessionKeys]:
    """Start a session with the device that `peer` belongs to; `peer_identity` is its listed identity key (32).

    `one_time` is (id, key of 32 bytes) as the directory handed it out, `generation` a u32. Raises CryptoRefusal:
    OWN_DEVICE, BAD_KEY, MALFORMED (a number that is no u32).
    """
    if not all(0 <= number < 2**32 for number in (generation, 0 if one_time is None else one_time[0])):
        raise CryptoRefusal(Reason.MALFORMED, "a generation or prekey id is out of range")
    if peer.record.device_id == own.device_id:
        raise CryptoRefusal(Reason.OWN_DEVICE, "a device starts no session with itself")
    ephemeral = OwnExchangeKey.generate()
    identity_b = PeerExchangeKey(peer_identity)
    secrets = [
        own.identity.exchange(peer.signed_prekey),
        ephemeral.exchange(identity_b),
        ephemeral.exchange(peer.signed_prekey),
    ]
    if one_time is not None:
        secrets.append(ephemeral.exchange(PeerExchangeKey(one_time[1])))
    kem_secret, kem_ciphertext = peer.pq_prekey.encapsulate()
    handshake = Handshake(
        generation,
        own_account,
        own.device_id,
        own.identity_public,
        ephemeral.public,
        peer.record.record_id,
        None if one_time is None else one_time[0],
        kem_ciphertext,
    )
    recipient = _Recipient(peer.record.account_id, peer.record.device_id, peer_identity, peer.signed_record)
    one_time_key = None if one_time is None else one_time[1]
    return handshake, _derive(handshake, recipient, one_time_key, [*secrets, kem_secret])


def respond(
    own: DeviceKeys,
    own_account: AccountId,
    prekeys: OwnPrekeys,
    one_time: OneTimePrekey | None,
    handshake: Handshake,
) -> SessionKeys:
    """The keys of the session that `handshake` starts.

    The caller has checked that the handshake's identity key is that of its device on the sender's verified list
    (`sealed.open_sender`), and passes exactly the prekeys that it names. Nothing is proven before the first message
    under these keys is opened. Raises CryptoRefusal: WRONG_RECIPIENT, OWN_DEVICE, UNKNOWN_PREKEY, BAD_KEY.
    """
    if (prekeys.account_id, prekeys.device_id) != (own_account, own.device_id):
        raise CryptoRefusal(Reason.WRONG_RECIPIENT, "the prekeys are not this device's")
    if handshake.device_id == own.device_id:
        raise CryptoRefusal(Reason.OWN_DEVICE, "the handshake names the device that received it")
    if (handshake.record_id, handshake.one_time_id) != (prekeys.record_id, None if one_time is None else one_time.id):
        raise CryptoRefusal(Reason.UNKNOWN_PREKEY, "the handshake names other prekeys")
    identity_a, ephemeral = PeerExchangeKey(handshake.identity_key), PeerExchangeKey(handshake.ephemeral_key)
    secrets = [
        prekeys.signed_prekey.exchange(identity_a),
        own.identity.exchange(ephemeral),
        prekeys.signed_prekey.exchange(ephemeral),
    ]
    if one_time is not None:
        secrets.append(one_time.key.exchange(ephemeral))
    kem_secret = prekeys.pq_prekey.decapsulate(handshake.kem_ciphertext)
    recipient = _Recipient(own_account, own.device_id, own.identity_public, prekeys.record)
    one_time_key = None if one_time is None else one_time.public
    return _derive(handshake, recipient, one_time_key, [*secrets, kem_secret])


def _transcript(handshake: Handshake, recipient: _Recipient, one_time_key: bytes | None) -> bytes:
    """Every field of both sides; all lengths are fixed, so no two handshakes share a transcript."""
    return b"".join(
        (
            handshake.pack(),
            recipient.account_id,
            recipient.device_id,
            recipient.identity_key,
            recipient.signed_record,
            bytes(primitives.KEY_LENGTH) if one_time_key is None else one_time_key,
        )
    )


def _derive(
    handshake: Handshake, recipient: _Recipient, one_time_key: bytes | None, secrets: list[bytes]
) -> SessionKeys:
    transcript = _transcript(handshake, recipient, one_time_key)
    session_id = primitives.sha256(labels.SESSION_ID, transcript)
    output = primitives.hkdf_sha256(b"".join(secrets), labels.SESSION + session_id, _OUTPUT.size)
    return SessionKeys(session_id, *_OUTPUT.unpack(output))
