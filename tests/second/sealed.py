"""sealed.md: the sealed first message and who sent it. The ratchet message in it stays as it is."""

from dataclasses import dataclass

from . import agreement, hpke, padding
from .agreement import Handshake, Responder
from .identity import Device, DeviceList, account_id, open_device_list
from .notation import label, number
from .prekeys import Prekeys, parse_prekeys
from .refusal import RefusedError

_AROUND = 2 + hpke.ENC_LENGTH + 16


def _info(account: bytes, device: bytes, record_hash: bytes) -> bytes:
    return label("sealed") + account + device + record_hash


def seal(peer: Prekeys, content: bytes, coins: bytes) -> bytes:
    """The envelope, with the randomness (64) of its KEM."""
    info = _info(peer.account, peer.device, peer.record_hash)
    return bytes([2, peer.record_id % 256]) + hpke.seal(peer.sealing_key, info, padding.pad(content, 4096), coins)


def open_sealed(own: Responder, envelope: bytes) -> bytes:
    """The content of an envelope that was sealed to this record of this device."""
    padded = len(envelope) - _AROUND
    if envelope[:1] != b"\x02" or padded < 4096 or padding.padme(padded) != padded:
        raise RefusedError("malformed")
    record = parse_prekeys(own.record)
    if envelope[1] != record.record_id % 256:
        raise RefusedError("unknown_prekey")
    info = _info(own.account, own.device, record.record_hash)
    return padding.unpad(hpke.open_sealed(own.sealing_key, info, envelope[2:]))


@dataclass(frozen=True)
class FirstMessage:
    """The parts of the content."""

    handshake: Handshake
    root_public: bytes
    device_list: bytes
    message: bytes


def parse_first_message(content: bytes) -> FirstMessage:
    """The content cut into its parts; the message is what remains, and is not empty."""
    handshake, rest = agreement.parse_handshake(content[: agreement.LENGTH]), content[agreement.LENGTH :]
    end = 34 + number(rest[32:34])
    if len(rest) <= end:
        raise RefusedError("malformed")
    return FirstMessage(handshake, rest[:32], rest[34:end], rest[end:])


def open_sender(first: FirstMessage) -> tuple[DeviceList, Device]:
    """The sender's list, and the device on it that the handshake names."""
    if account_id(first.root_public) != first.handshake.account:
        raise RefusedError("wrong_account")
    found = open_device_list(first.root_public, first.device_list)
    for device in found.devices:
        if (device.id, device.identity_key) == (first.handshake.device, first.handshake.identity_key):
            return found, device
    raise RefusedError("not_listed")
