"""Whatever bytes come, the decoder of messages gives frames that mean what they say, or a WireError."""

import os
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.frames import (
    Acked,
    CaughtUp,
    ClientFrame,
    Deliver,
    DeliverNow,
    Delivery,
    Done,
    Failed,
    Gap,
    GapReason,
    Goodbye,
    KeyClass,
    Passing,
    Pong,
    RelayFrame,
    SendResult,
    SendResults,
    Welcome,
    decode_client_message,
    decode_relay_message,
    message,
)
from sottovoce_wire.ids import QueueId
from tests.faults import scale
from tests.faults.conversations import everything_said, in_messages
from tests.faults.mutations import damaged
from tests.relay_clients import Client, Mailbox

QUEUE = QueueId(os.urandom(16))
RELAY: list[RelayFrame] = [
    Welcome(1, bytes(32), 65_536, 2**20, 256),
    Done(1),
    Failed(1, Code.TRY_AGAIN, "later"),
    Deliver(QUEUE, [Delivery(1, KeyClass.CONTACT, b"body"), Delivery(2, KeyClass.GROUP, bytes(300))]),
    Acked(QUEUE, 1, [3]),
    CaughtUp(QUEUE),
    Gap(QUEUE, 4, GapReason.EXPIRED),
    SendResults(1, [SendResult(Code.ACCEPTED, 0), SendResult(Code.TRY_AGAIN, 500)]),
    Pong(1),
    Goodbye(Code.DISPLACED, "bye"),
    DeliverNow(QUEUE, [Passing(KeyClass.CONTACT, b"now")]),
]
#: Enough to see each kind of damage in each frame many times.
TIMES = 200_000 if scale.FULL else 5_000


def client_messages() -> list[bytes]:
    client = Client.__new__(Client)
    client.origin, client.nonce = "http://127.0.0.1:1", bytes(32)
    return in_messages(everything_said(client, Mailbox()))


def read_back(data: bytes) -> bool:
    """Whether it was a message; what is one says the same again."""
    for decode in (decode_client_message, decode_relay_message):
        try:
            frames: list[ClientFrame] | list[RelayFrame] = decode(data)
        except WireError:
            continue
        assert decode(message(*frames)) == frames
        return True
    return False


@pytest.mark.parametrize("messages", [client_messages(), [message(frame) for frame in RELAY]], ids=["client", "relay"])
def test_a_damaged_message_is_read_as_something_that_can_be_said_or_refused(messages: list[bytes]) -> None:
    rng = random.Random(scale.SEED)  # noqa: S311 - nobody guesses here
    assert all(read_back(data) for data in messages)
    results = [read_back(damaged(rng, rng.choice(messages))) for _ in range(TIMES)]
    assert 0.02 < sum(results) / TIMES < 0.5, "damage must mostly break a message, and sometimes be subtle"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_as_something_that_can_be_said_or_refused(data: bytes) -> None:
    read_back(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=70) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=30,
    )
)
def test_any_values_are_read_as_something_that_can_be_said_or_refused(tree: object) -> None:

    read_back(msgspec.msgpack.encode(tree))
