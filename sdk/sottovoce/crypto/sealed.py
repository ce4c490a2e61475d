"""The sealed first message: one envelope that only the recipient's sealing key opens, and what it says of its sender.

Here stand sealing and the first message's layout. The handshake in it is `agreement`'s, the message `ratchet`'s.
Spec: sealed.
"""

from dataclasses import dataclass
from typing import Final

from sottovoce_wire import ids, labels, padding
from sottovoce_wire.errors import WireError
from sottovoce_wire.ids import AccountId, DeviceId
from sottovoce_wire.records import DeviceEntry, DeviceList

from . import primitives
from .agreement import Handshake
from .errors import CryptoRefusal, Reason
from .identity import open_device_list
from .prekeys import OwnPrekeys, PeerPrekeys

KIND_SEALED: Final = 0x02
#: The content is padded to at least this, so that its length does not tell how many devices the sender has.
MINIMUM_CONTENT: Final = 4096
_HEAD: Final = 2
_AROUND: Final = _HEAD + primitives.SEALED_ENC_LENGTH + primitives.TAG_LENGTH


def _info(account_id: AccountId, device_id: DeviceId, record_hash: bytes) -> bytes:
    return labels.SEALED + account_id + device_id + record_hash


def seal(peer: PeerPrekeys, content: bytes) -> bytes:
    """The envelope: 0x02 ‖ record id mod 256 ‖ enc (1,120) ‖ ciphertext of the padded content ‖ tag (16)."""
    info = _info(peer.record.account_id, peer.record.device_id, peer.record_hash)
    padded = padding.pad(content, minimum=MINIMUM_CONTENT)
    return bytes([KIND_SEALED, peer.record.record_id % 256]) + peer.sealing_key.seal(padded, info)


def sealed_record_id(envelope: bytes) -> int:
    """The prekey record's id mod 256. Raises CryptoRefusal (MALFORMED) for what is not a sealed envelope, or has a
    length that no padding gives: the key agreement behind it costs a hundred times as much."""
    padded = len(envelope) - _AROUND
    if envelope[:1] != bytes([KIND_SEALED]) or padding.padded_length(padded - 1, minimum=MINIMUM_CONTENT) != padded:
        raise CryptoRefusal(Reason.MALFORMED, "this is not a sealed message")
    return envelope[1]


def open_sealed(prekeys: OwnPrekeys, account_id: AccountId, device_id: DeviceId, envelope: bytes) -> bytes:
    """The content of an envelope sealed to this record of this device. It says nothing yet about who sealed it.

    Raises CryptoRefusal: MALFORMED, UNKNOWN_PREKEY (sealed to another record), NOT_AUTHENTIC.
    """
    if sealed_record_id(envelope) != prekeys.record_id % 256:
        raise CryptoRefusal(Reason.UNKNOWN_PREKEY, "the message is sealed to another prekey record")
    padded = prekeys.sealing_key.open(envelope[_HEAD:], _info(account_id, device_id, prekeys.record_hash))
    try:
        return padding.unpad(padded)
    except WireError as error:
        raise CryptoRefusal(Reason.MALFORMED, error.detail) from None


@dataclass(frozen=True, slots=True, repr=False)
class FirstMessage:
    """What is sealed: handshake (1,215) ‖ root public key (32) ‖ length (2) ‖ signed device list ‖ ratchet message."""

    handshake: Handshake
    root_public: bytes
    device_list: bytes
    message: bytes

    def pack(self) -> bytes:
        """The content for `seal`."""
        length = len(self.device_list).to_bytes(2, "big")
        return self.handshake.pack() + self.root_public + length + self.device_list + self.message

    @classmethod
    def parse(cls, content: bytes) -> "FirstMessage":
        """Strict inverse of `pack`; the ratchet message is all that remains. Raises CryptoRefusal (MALFORMED)."""
        handshake = Handshake.parse(content[: Handshake.LENGTH])
        root_end = Handshake.LENGTH + primitives.KEY_LENGTH
        list_start = root_end + 2
        list_end = list_start + int.from_bytes(content[root_end:list_start], "big")
        if len(content) < list_start or len(content) <= list_end:
            raise CryptoRefusal(Reason.MALFORMED, "the first message is too short")
        root_public = content[Handshake.LENGTH : root_end]
        return cls(handshake, root_public, content[list_start:list_end], content[list_end:])


def open_sender(first: FirstMessage) -> tuple[DeviceList, DeviceEntry]:
    """The sender's verified device list, and the device on it that the handshake claims to come from.

    The claim is proven by the ratchet message alone: only the owner of that identity key can have derived its keys.
    A caller who knows the account already checks the list with `identity.check_successor` as well. Raises
    CryptoRefusal: WRONG_ACCOUNT, NOT_LISTED, and as `identity.open_device_list`.
    """
    handshake = first.handshake
    if ids.account_id_of(first.root_public) != handshake.account_id:
        raise CryptoRefusal(Reason.WRONG_ACCOUNT, "the root key is not that of the account in the handshake")
    device_list = open_device_list(first.root_public, first.device_list)
    for entry in device_list.devices:
        if entry.device_id == handshake.device_id and entry.identity_key == handshake.identity_key:
            return device_list, entry
    raise CryptoRefusal(Reason.NOT_LISTED, "the handshake comes from no device on its account's list")
