"""Sottovoce: private messages between two Python programs, through servers that learn nothing of them.

    async with sottovoce.open_client("alice.db", server="https://chat.example") as me:
        await me.register("alice")
        await me.send("bob", "hello")
        async for message in me.messages():
            print(message.sender, message.text)

What stands here, and `sottovoce.testing`, is the whole public API. Names keep their meaning within a major version; the
wire protocol and the store's format have versions of their own and say so when they meet one they do not know.
"""

from sottovoce_wire.frames import Ttl

from . import aio, errors, events, stores, sync
from .client import Client, open_client
from .crypto.fingerprint import Comparison, Verdict
from .errors import SottovoceError
from .events import Event
from .message import Message, Sent, Status
from .people import Contact, Request, RequestedMessage, SafetyNumber

__all__ = [
    "Client",
    "Comparison",
    "Contact",
    "Event",
    "Message",
    "Request",
    "RequestedMessage",
    "SafetyNumber",
    "Sent",
    "SottovoceError",
    "Status",
    "Ttl",
    "Verdict",
    "aio",
    "errors",
    "events",
    "open_client",
    "stores",
    "sync",
]
