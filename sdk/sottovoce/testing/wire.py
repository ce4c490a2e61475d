"""The recorder: all that went between clients and servers of a world, and what can be proven from it.

It sees what a server sees, bytes without keys, and decides nothing.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from sottovoce_wire import frames, ids
from sottovoce_wire.errors import WireError
from sottovoce_wire.frames import Ttl
from sottovoce_wire.ids import QueueId

from ..crypto import message, sealed
from ..crypto.primitives import NONCE_LENGTH, SEALED_ENC_LENGTH

_QUOTED: Final = re.compile(rb'"([A-Za-z0-9+/]{8,}={0,2})"')
_TAG: Final = slice(1, 1 + message.ROUTING_TAG_LENGTH)
_NONCE: Final = slice(_TAG.stop, _TAG.stop + NONCE_LENGTH)
_ENC: Final = slice(2, 2 + SEALED_ENC_LENGTH)
#: What two different envelopes of a kind never share.
_ONCE: Final = ((message.KIND_MESSAGE, _TAG), (message.KIND_MESSAGE, _NONCE), (sealed.KIND_SEALED, _ENC))


@dataclass(frozen=True, slots=True)
class Passed:
    """An envelope on its way into a queue, whatever became of it; one that was sent again stands here again.

    `sender` and `recipient` are the names of people; no server knows either. `at`: unix seconds.
    """

    at: float
    sender: str
    recipient: str | None
    ttl: Ttl
    body: bytes = field(repr=False)

    @property
    def is_sealed(self) -> bool:
        """Whether it is a first message, sealed to the recipient's device."""
        return self.body[0] == sealed.KIND_SEALED


@dataclass(frozen=True, slots=True)
class Delivered:
    """An envelope on its way to its recipient; one that was delivered again stands here again."""

    at: float
    recipient: str
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to the keyserver, and its answer."""

    at: float
    who: str
    path: str
    body: bytes = field(repr=False)
    status: int
    answer: bytes = field(repr=False)


class Wire:
    """What passed, from the beginning of the world. It keeps everything."""

    def __init__(self) -> None:
        self.envelopes: list[Passed] = []
        self.deliveries: list[Delivered] = []
        self.requests: list[Asked] = []
        self._bytes: list[bytes] = []
        self._owners: dict[QueueId, str] = {}

    def said(self, at: float, who: str, data: bytes) -> None:
        """A client's message to the relay."""
        self._bytes.append(data)
        try:
            said = frames.decode_client_message(data)
        except WireError:
            return
        for frame in said:
            match frame:
                case frames.CreateQueue():
                    self._owners[ids.queue_id_of(frame.owner_key)] = who
                case frames.Send():
                    for item in frame.items:
                        self._passed(at, who, item.queue, item.ttl, item.body)
                case frames.SendMany():
                    for target in frame.targets:
                        self._passed(at, who, target.queue, frame.ttl, frame.body)

    def heard(self, at: float, who: str, data: bytes) -> None:
        """The relay's message to a client."""
        self._bytes.append(data)
        for frame in frames.decode_relay_message(data):
            if isinstance(frame, frames.Deliver | frames.DeliverNow):
                self.deliveries += [Delivered(at, who, item.body) for item in frame.items]

    def asked(self, asked: Asked) -> None:
        """A request to the keyserver was answered."""
        self.requests.append(asked)
        for data in (asked.body, asked.answer):
            self._bytes += [data, *_unquoted(data)]

    def owner_of(self, queue: QueueId) -> str | None:
        """Whose queue it is."""
        return self._owners.get(queue)

    def shows(self, plain: str | bytes) -> bool:
        """Whether these bytes occur anywhere in what passed, in requests to the keyserver also inside base64."""
        wanted = plain.encode() if isinstance(plain, str) else plain
        if not wanted:
            raise ValueError("nothing occurs everywhere")
        return any(wanted in data for data in self._bytes)

    def between(self, sender: str, recipient: str) -> list[Passed]:
        """The envelopes from one person to another, repeats included."""
        return [passed for passed in self.envelopes if (passed.sender, passed.recipient) == (sender, recipient)]

    def reused(self) -> list[tuple[Passed, Passed]]:
        """Pairs of different envelopes that share what must be used once, which proves a key used twice: the number of
        a chain (its tag), or a nonce; of sealed ones the encapsulated key. An honest client gives none."""
        return [pair for kind, part in _ONCE for pair in self._sharing(kind, part)]

    def _passed(self, at: float, who: str, queue: QueueId, ttl: Ttl, body: bytes) -> None:
        self.envelopes.append(Passed(at, who, self.owner_of(queue), ttl, body))

    def _sharing(self, kind: int, part: slice) -> Iterator[tuple[Passed, Passed]]:
        different = {passed.body: passed for passed in self.envelopes if passed.body[0] == kind}
        in_order = sorted(different.values(), key=lambda passed: passed.body[part])
        return ((one, other) for one, other in pairwise(in_order) if one.body[part] == other.body[part])


def _unquoted(data: bytes) -> Iterator[bytes]:
    """What stands in JSON as base64."""
    for quoted in _QUOTED.findall(data):
        try:
            yield base64.b64decode(quoted, validate=True)
        except binascii.Error:
            continue
