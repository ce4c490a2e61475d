"""Clients of the peers, no more than the measurements need: an XMPP stream with XEP-0198, an MQTT 3.1.1 session.

Which servers they talk to stands in peers.py.
"""

import asyncio
import base64
import os
import re
from collections.abc import Awaitable, Sequence
from itertools import islice
from typing import Final, Protocol

from .client import BODY, Tally
from .wire import BenchError, Wire

#: Messages that a sender has unanswered at most.
_WINDOW: Final = 100


class Talker(Protocol):
    """A client of some server, logged in. `tally` counts the messages that come."""

    wire: Wire
    tally: Tally | None

    async def receive(self) -> None:
        """Be there: what waits and what comes is delivered from now on."""

    async def send_all(self, to: Sequence[str], count: int) -> None:
        """Send so many bodies to these in turn; returns when the server has taken all."""

    def acknowledge(self) -> None:
        """Acknowledge what came, if it is not yet."""


class LogIn(Protocol):
    """Logs in as this user of the server at this port: to send, or with a tally as far as one can before `receive`."""

    def __call__(self, port: int, name: str, tally: Tally | None = None) -> Awaitable[Talker]:
        """Raises BenchError or OSError."""


class _Pace:
    """Messages to be said, a window of them unanswered at most."""

    def __init__(self, wire: Wire, messages: Sequence[bytes]) -> None:
        self._wire = wire
        self._unsaid = iter(messages)
        self._left = len(messages)
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._say(_WINDOW)

    def answer(self, count: int) -> None:
        """The server has taken so many more."""
        self._left -= count
        if self._left == 0:
            self.answered.set_result(None)
        elif self._left < 0:
            raise BenchError("more was taken than was sent")
        self._say(count)

    def _say(self, count: int) -> None:
        for message in islice(self._unsaid, count):
            self._wire.say(message)


# --- XMPP -----------------------------------------------------------------------------------------------------

_HOST: Final = "localhost"
_STREAM: Final = (
    f"<stream:stream to='{_HOST}' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
)
_REGISTER: Final = (
    "<iq type='set' id='reg'><query xmlns='jabber:iq:register'><username>{name}</username>"
    "<password>password</password></query></iq>"
)
_AUTH: Final = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>"
_BIND: Final = "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
_ENABLE: Final = "<enable xmlns='urn:xmpp:sm:3'/>"
_ASK: Final = b"<r xmlns='urn:xmpp:sm:3'/>"
#: Messages between two requests for an acknowledgement.
_ASK_EVERY: Final = 10
_FEATURES: Final = rb"</stream:features>"
_IQ: Final = rb"</iq>|<iq[^>]*/>"
_TOKENS: Final = re.compile(
    rb"(?P<message></message>)|(?P<other></presence>|<presence[^>]*/>|</iq>|<iq[^>]*/>)"
    rb"|<a\s[^>]*?h=['\"](?P<h>\d+)['\"][^>]*>|(?P<ask><r[\s/][^>]*>)|(?P<error><stream:error|type=['\"]error['\"])"
)
#: No token is longer.
_TOKEN: Final = 1_024


class XmppTalker:
    """One XMPP stream. Reads no XML: bodies hold no angle brackets, so the ends of stanzas are enough."""

    def __init__(self, tally: Tally | None) -> None:
        self.wire: Wire
        self.tally = tally
        self._pace: _Pace | None = None
        self._heard = b""
        self._awaited: tuple[bytes, asyncio.Future[None]] | None = None  # while logging in
        self._received = 0
        self._taken = 0

    @classmethod
    async def log_in(cls, port: int, name: str, tally: Tally | None = None) -> "XmppTalker":
        """Register if need be, and log in."""
        talker = cls(tally)
        talker.wire = await Wire.connect("127.0.0.1", port, talker._hear)
        await talker._exchange(_STREAM, _FEATURES)
        await talker._exchange(_REGISTER.format(name=name), _IQ)
        plain = base64.b64encode(f"\0{name}\0password".encode()).decode()
        await talker._exchange(_AUTH.format(plain=plain), rb"<success")
        await talker._exchange(_STREAM, _FEATURES)
        await talker._exchange(_BIND, _IQ)
        await talker._exchange(_ENABLE, rb"<enabled[^>]*>")
        talker._heard, talker._awaited = b"", None
        return talker

    async def receive(self) -> None:
        """Be present."""
        self.wire.say(b"<presence/>")
        self.wire.flush()

    async def _exchange(self, text: str, answer: bytes) -> None:
        self._heard = b""
        self._awaited = answer, asyncio.get_running_loop().create_future()
        self.wire.say(text.encode())
        self.wire.flush()
        await self.wire.wait(self._awaited[1])

    async def send_all(self, to: Sequence[str], count: int) -> None:
        """Send so many bodies to these in turn; returns when the server has taken all."""
        self._pace = _Pace(self.wire, [_stanza(to[number % len(to)], number, count) for number in range(count)])
        self.wire.flush()
        await self.wire.wait(self._pace.answered)

    def acknowledge(self) -> None:
        """Tell how many stanzas came."""
        self._say_received()
        self.wire.flush()

    def _say_received(self) -> None:
        self.wire.say(f"<a xmlns='urn:xmpp:sm:3' h='{self._received}'/>".encode())

    def _hear(self, data: bytes) -> None:
        self._heard += data
        if self._awaited is None:
            self._hear_stanzas()
        elif not self._awaited[1].done() and re.search(self._awaited[0], self._heard):
            self._awaited[1].set_result(None)

    def _hear_stanzas(self) -> None:
        messages = end = 0
        for token in _TOKENS.finditer(self._heard):
            end = token.end()
            messages += self._take(token)
        self._heard = self._heard[max(end, len(self._heard) - _TOKEN) :]
        if messages and self.tally is not None:
            self.tally.add(messages)

    def _take(self, token: "re.Match[bytes]") -> int:
        """What one token means; 1 if it is the end of a message."""
        if token.lastgroup == "h":
            self._take_answer(int(token["h"]))
        elif token.lastgroup == "ask":
            self._say_received()
        elif token.lastgroup == "error":
            raise BenchError(f"XMPP: {self._heard[token.start() : token.start() + 300]!r}")
        else:
            self._received += 1
        return int(token.lastgroup == "message")

    def _take_answer(self, taken: int) -> None:
        if self._pace is not None and taken > self._taken:
            self._pace.answer(taken - self._taken)
        self._taken = taken


def _stanza(to: str, number: int, count: int) -> bytes:
    body = base64.b64encode(os.urandom(BODY * 3 // 4))
    stanza = f"<message to='{to}@{_HOST}' type='chat'><body>".encode() + body + b"</body></message>"
    asks = number % _ASK_EVERY == _ASK_EVERY - 1 or number == count - 1
    return stanza + _ASK if asks else stanza


# --- MQTT -----------------------------------------------------------------------------------------------------

_CONNACK, _PUBLISH, _PUBACK, _SUBACK = 2, 3, 4, 9
_QOS_1: Final = 0x02
_KEPT_SESSION: Final = b"\x04\x00"  # protocol level 3.1.1, flags: the server keeps the session
_NO_KEEP_ALIVE: Final = bytes(2)


class MqttTalker:
    """One MQTT connection with a session that the server keeps, subscribed to a topic of the user's name."""

    def __init__(self, name: str, tally: Tally | None) -> None:
        self.wire: Wire
        self.tally = tally
        self._name = name
        self._pace: _Pace | None = None
        self._rest = b""
        self._awaited: tuple[int, asyncio.Future[None]]

    @classmethod
    async def log_in(cls, port: int, name: str, tally: Tally | None = None) -> "MqttTalker":
        """Connect. MQTT delivers with the answer to the first packet, so with a tally that is left to `receive`."""
        talker = cls(name, tally)
        talker.wire = await Wire.connect("127.0.0.1", port, talker._hear)
        if tally is None:
            await talker.receive()
        return talker

    async def receive(self) -> None:
        """Begin the session, or go on with it."""
        name = _text(self._name)
        await self._exchange(_packet(0x10, _text("MQTT") + _KEPT_SESSION + _NO_KEEP_ALIVE + name), _CONNACK)
        await self._exchange(_packet(0x82, b"\0\1" + name + b"\1"), _SUBACK)

    async def _exchange(self, packet: bytes, answer: int) -> None:
        self._awaited = answer, asyncio.get_running_loop().create_future()
        self.wire.say(packet)
        self.wire.flush()
        await self.wire.wait(self._awaited[1])

    async def send_all(self, to: Sequence[str], count: int) -> None:
        """Send so many bodies to these in turn; returns when the server has taken all."""
        self._pace = _Pace(self.wire, [_publish(to[number % len(to)], number) for number in range(count)])
        self.wire.flush()
        await self.wire.wait(self._pace.answered)

    def acknowledge(self) -> None:
        """Each message was acknowledged when it came."""

    def _hear(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        at = answered = received = 0
        while (whole := _next_packet(data, at)) is not None:
            kind, start, at = whole
            answered += kind == _PUBACK
            received += kind == _PUBLISH
            if kind == _PUBLISH:
                self._say_received(data, start)
            elif kind == self._awaited[0] and not self._awaited[1].done():
                self._awaited[1].set_result(None)
            elif kind != _PUBACK:
                raise BenchError(f"MQTT: a packet of type {kind}")
        self._rest = data[at:]
        if answered and self._pace is not None:
            self._pace.answer(answered)
        if received and self.tally is not None:
            self.tally.add(received)

    def _say_received(self, data: bytes, start: int) -> None:
        topic = int.from_bytes(data[start : start + 2], "big")
        self.wire.say(b"\x40\x02" + data[start + 2 + topic : start + 4 + topic])


def _text(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()


def _packet(head: int, content: bytes) -> bytes:
    size, length = len(content), b""
    while size >= 128:
        length += bytes([0x80 | size % 128])
        size //= 128
    return bytes([head]) + length + bytes([size]) + content


def _publish(topic: str, number: int) -> bytes:
    identifier = number % 65_535 + 1
    return _packet(_PUBLISH << 4 | _QOS_1, _text(topic) + identifier.to_bytes(2, "big") + os.urandom(BODY))


def _next_packet(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Kind, start of the content and end of the packet at `at`, if it is whole."""
    size = 0
    for place in range(at + 1, min(at + 5, len(data))):
        size |= (data[place] & 0x7F) << 7 * (place - at - 1)
        if data[place] < 0x80:
            end = place + 1 + size
            return (data[at] >> 4, place + 1, end) if end <= len(data) else None
    return None
