"""A valid conversation of every frame that a client may say, for faults to be put into."""

import os

from sottovoce_wire import ids, limits
from sottovoce_wire.frames import (
    Ack,
    AddSendKey,
    ClientFrame,
    CreateQueue,
    DeleteQueue,
    DemoteSendKey,
    Hello,
    KeyClass,
    NewSendKey,
    OpenQueue,
    Ping,
    Receive,
    RevokeSendKey,
    Send,
    SendMany,
    Target,
    Ttl,
    message,
)
from sottovoce_wire.ids import EnvelopeId, SendKey
from tests.relay_clients import Client, Mailbox


def everything_said(client: Client, box: Mailbox) -> list[ClientFrame]:
    """All that a client can say after Hello, in an order that makes sense."""
    new = NewSendKey(ids.send_key_hash(SendKey(os.urandom(32))), KeyClass.INVITE)
    targets = [Target(box.queue, key, EnvelopeId(os.urandom(16))) for key in box.keys.values()]
    return [
        CreateQueue(1, box.owner_key, client.signature(box), box.send_keys, ""),
        OpenQueue(2, box.owner_key, client.signature(box)),
        AddSendKey(3, box.queue, new),
        Send(4, [box.item(b"one"), box.item(b"two", KeyClass.STRANGER), box.item(b"now", ttl=Ttl.NOW)]),
        SendMany(5, Ttl.HOUR, b"for all of them", targets),
        Receive(6, box.queue, 256, limits.MAX_UNACKNOWLEDGED_BYTES),
        Ping(7),
        Ack(box.queue, 1, [2]),
        DemoteSendKey(8, box.queue, new.key_hash),
        RevokeSendKey(9, box.queue, new.key_hash),
        DeleteQueue(10, box.queue),
    ]


def in_messages(said: list[ClientFrame]) -> list[bytes]:
    """Each frame in a message of its own, and all of them in one."""
    return [message(Hello([limits.PROTOCOL_VERSION])), *(message(frame) for frame in said), message(*said)]
