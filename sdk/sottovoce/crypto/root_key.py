"""The root key of a session: one Diffie-Hellman secret goes in, the next root key and a new chain come out.

Here stands the root step alone. Who steps when is `ratchet`'s business. Spec: ratchet.
"""

import struct
from typing import Final

from sottovoce_wire import labels

from . import primitives
from .chain_key import ReceivingChain, SendingChain
from .primitives import OwnExchangeKey, PeerExchangeKey

#: RK' ‖ CK ‖ NHK ‖ NTK ‖ ECK. Header, tag and ephemeral chain keys are part of the derivation, so that the chain keys
#: stay what they are when headers are encrypted.
_OUTPUT: Final = struct.Struct(">32s32s96x")
_EPOCH: Final = (0).to_bytes(4, "big")


class SessionRootKey:
    """32 bytes that every step replaces."""

    __slots__ = ("key",)

    def __init__(self, key: bytes) -> None:
        self.key: Final = key

    def start_sending(self, own: OwnExchangeKey, peer: PeerExchangeKey) -> tuple["SessionRootKey", SendingChain]:
        """The next root key, and the chain that begins with one's own new ratchet key `own`."""
        root, chain_key = self._step(own, peer)
        return SessionRootKey(root), SendingChain(chain_key, 0)

    def start_receiving(self, own: OwnExchangeKey, peer: PeerExchangeKey) -> tuple["SessionRootKey", ReceivingChain]:
        """The next root key, and the chain that begins with the peer's new ratchet key `peer`."""
        root, chain_key = self._step(own, peer)
        return SessionRootKey(root), ReceivingChain(chain_key, 0)

    def _step(self, own: OwnExchangeKey, peer: PeerExchangeKey) -> tuple[bytes, bytes]:
        info = labels.RATCHET_ROOT + _EPOCH
        output = primitives.hkdf_sha256(own.exchange(peer), info, _OUTPUT.size, salt=self.key)
        root, chain_key = _OUTPUT.unpack(output)
        return root, chain_key
