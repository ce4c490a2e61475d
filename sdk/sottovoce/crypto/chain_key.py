"""Chain keys: one step of HMAC per message, forward only. Sending and receiving chains are different types.

Here stands the symmetric ratchet and how far it may be walked. New chains come from `root_key`. Spec: ratchet.
"""

from collections import deque
from typing import Final

from . import primitives
from .message_key import MessageKey

#: Skipped message keys that one message may leave behind: a week of a busy contact. Older ones are given up.
MAX_SKIPPED: Final = 2_000

_MESSAGE: Final = b"\x01"
_NEXT: Final = b"\x02"


class SendingChain:
    """One's own chain: the key and number of the next message. Never changes; `after` is the chain one step on."""

    __slots__ = ("key", "number")

    def __init__(self, key: bytes, number: int) -> None:
        self.key: Final = key
        self.number: Final = number

    def message_key(self) -> MessageKey:
        """The key of message `number`."""
        return MessageKey(primitives.hmac_sha256(self.key, _MESSAGE))

    def after(self) -> "SendingChain":
        """The chain once message `number` is sent."""
        return SendingChain(primitives.hmac_sha256(self.key, _NEXT), self.number + 1)


class ReceivingChain:
    """A peer's chain: the key and number of the next message in order. Never changes; walking it makes a new one."""

    __slots__ = ("key", "number")

    def __init__(self, key: bytes, number: int) -> None:
        self.key: Final = key
        self.number: Final = number

    def message_key(self) -> MessageKey:
        """The key of message `number`."""
        return MessageKey(primitives.hmac_sha256(self.key, _MESSAGE))

    def after(self) -> "ReceivingChain":
        """The chain once message `number` is received."""
        return ReceivingChain(primitives.hmac_sha256(self.key, _NEXT), self.number + 1)

    def walk(self, number: int) -> tuple["ReceivingChain", "deque[ReceivingChain]"]:
        """The chain at `number`, not behind this one, and the newest MAX_SKIPPED positions passed on the way.

        One HMAC a step; the message keys of the positions are derived only once the message has proven authentic, so
        a forged number costs no more than the walk. The caller bounds the distance.
        """
        passed: deque[ReceivingChain] = deque(maxlen=MAX_SKIPPED)
        chain = self
        while chain.number < number:
            passed.append(chain)
            chain = chain.after()
        return chain, passed
