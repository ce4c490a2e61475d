"""Chain keys: one step of HMAC per message, forward only. Sending and receiving chains are different types.

Here stands the symmetric ratchet and how far it may be walked. New chains come from `root_key`. Spec: ratchet.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final, TypeAlias

from . import primitives

#: Skipped message keys that one message may leave behind: a week of a busy contact. Older ones are given up.
MAX_SKIPPED: Final = 2_000

_MESSAGE: Final = b"\x01"
_NEXT: Final = b"\x02"

#: A place that a walk has passed: the number of a message that has not come, and the chain's key there (32).
Passed: TypeAlias = tuple[int, bytes]


class SendingChain:
    """One's own chain: the key and number of the next message. Never changes; `after` is the chain one step on."""

    __slots__ = ("key", "number")

    def __init__(self, key: bytes, number: int) -> None:
        self.key: Final = key
        self.number: Final = number

    def message_key(self) -> bytes:
        """The key (32) of message `number`."""
        return primitives.hmac_sha256(self.key, _MESSAGE)

    def after(self) -> "SendingChain":
        """The chain once message `number` is sent."""
        return SendingChain(primitives.hmac_sha256(self.key, _NEXT), self.number + 1)

    def step(self) -> tuple[bytes, "SendingChain"]:
        """`message_key` and `after` at once, for a message in its turn."""
        key, following = primitives.hmac_sha256_twice(self.key, _MESSAGE, _NEXT)
        return key, SendingChain(following, self.number + 1)


class ReceivingChain:
    """A peer's chain: the key and number of the next message in order. Never changes; walking it makes a new one."""

    __slots__ = ("key", "number")

    def __init__(self, key: bytes, number: int) -> None:
        self.key: Final = key
        self.number: Final = number

    def message_key(self) -> bytes:
        """The key (32) of message `number`."""
        return primitives.hmac_sha256(self.key, _MESSAGE)

    def after(self) -> "ReceivingChain":
        """The chain once message `number` is received."""
        return ReceivingChain(primitives.hmac_sha256(self.key, _NEXT), self.number + 1)

    def step(self) -> tuple[bytes, "ReceivingChain"]:
        """`message_key` and `after` at once, for a message in its turn."""
        key, following = primitives.hmac_sha256_twice(self.key, _MESSAGE, _NEXT)
        return key, ReceivingChain(following, self.number + 1)

    def walk(self, number: int) -> tuple["ReceivingChain", Sequence[Passed]]:
        """The chain at `number`, not behind this one, and the newest MAX_SKIPPED places passed on the way.

        One HMAC a step; the message keys of the places are derived only once the message has proven authentic, so a
        forged number costs no more than the walk. The caller bounds the distance.
        """
        if number == self.number:
            return self, ()
        passed: deque[Passed] = deque(maxlen=MAX_SKIPPED)
        key = self.key
        for place in range(self.number, number):
            passed.append((place, key))
            key = primitives.hmac_sha256(key, _NEXT)
        return ReceivingChain(key, number), passed


def skipped_message_key(chain_key: bytes) -> bytes:
    """The message key (32) of a place that was passed, for the store."""
    return primitives.hmac_sha256(chain_key, _MESSAGE)
