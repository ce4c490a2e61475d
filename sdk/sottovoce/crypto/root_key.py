"""The root key of a session: one Diffie-Hellman secret goes in, and now and then a post-quantum one; the next root key
and all keys of a new chain come out.

Here stands the root step alone. Who steps when is `ratchet`'s business. Spec: ratchet.
"""

import struct
from typing import Final, NamedTuple

from sottovoce_wire import labels

from . import primitives
from .message import Route, new_tuple

#: RK' ‖ CK ‖ (NHK ‖ NTK) ‖ ECK
_OUTPUT: Final = struct.Struct("32s32s64s32s")


class Step(NamedTuple):
    """What a root step yields, besides the next root key: the new chain's key (32) and ephemeral chain key (32), and
    the route of the chain *after* it in the same direction."""

    root: "SessionRootKey"
    chain_key: bytes
    next_route: Route
    ephemeral_key: bytes

    def __repr__(self) -> str:
        return "Step(…)"


class SessionRootKey:
    """32 bytes that every step replaces."""

    __slots__ = ("key",)

    def __init__(self, key: bytes) -> None:
        self.key: Final = key

    def step(self, shared: bytes, post_quantum: bytes, epoch: int) -> Step:
        """The root step: `shared` is the Diffie-Hellman secret (32), `post_quantum` the secret of an epoch that begins
        here (32) or empty, `epoch` the u32 that the headers of the new chain name."""
        info = labels.RATCHET_ROOT + epoch.to_bytes(4, "big")
        output = primitives.hkdf_sha256(shared + post_quantum, info, _OUTPUT.size, salt=self.key)
        root_key, chain_key, route_keys, ephemeral_key = _OUTPUT.unpack(output)
        return new_tuple(Step, (SessionRootKey(root_key), chain_key, Route(route_keys), ephemeral_key))
