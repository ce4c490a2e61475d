"""The peers' clients send what they say they send, count what comes, and acknowledge it, however the bytes are cut.

Against small servers that say each byte by itself; the real ones are measured where they are installed.
"""

import asyncio
import base64
import re

import pytest

from benchmarks.client import BODY, Tally
from benchmarks.talkers import MqttTalker, XmppTalker
from benchmarks.wire import BenchError
from tests.benchmarks.loops import against


async def dribble(writer: asyncio.StreamWriter, data: bytes) -> None:
    for at in range(len(data)):
        writer.write(data[at : at + 1])
        await writer.drain()


# --- MQTT -----------------------------------------------------------------------------------------------------


async def read_packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readexactly(1))[0]
    size = shift = 0
    while True:
        digit = (await reader.readexactly(1))[0]
        size |= (digit & 0x7F) << shift
        shift += 7
        if digit < 0x80:
            return head, await reader.readexactly(size)


def test_an_mqtt_client_sends_and_receives_with_an_acknowledgement_for_each() -> None:
    published: list[bytes] = []
    acknowledged: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await read_packet(reader))[0] == 0x10
        await dribble(writer, b"\x20\x02\x00\x00")
        assert await read_packet(reader) == (0x82, b"\0\1\0\2me\1")
        await dribble(writer, b"\x90\x03\x00\x01\x01")
        for _ in range(3):
            head, content = await read_packet(reader)
            assert head == 0x32
            published.append(content)
            await dribble(writer, b"\x40\x02" + content[4:6])
        for number in (7, 8):
            await dribble(writer, b"\x32\x0b\0\2me" + number.to_bytes(2, "big") + b"hello")
            head, content = await read_packet(reader)
            assert head == 0x40
            acknowledged.append(content)

    async def talk(port: int) -> None:
        talker = await MqttTalker.log_in(port, "me")
        talker.tally = tally = Tally(2)
        await talker.send_all(["you", "her"], 3)
        await talker.wire.wait(tally.reached)
        talker.wire.close()

    against(serve, talk)
    assert [content[2:5] for content in published] == [b"you", b"her", b"you"]
    assert {len(content[7:]) for content in published} == {BODY}
    assert acknowledged == [b"\0\7", b"\0\x08"]


# --- XMPP -----------------------------------------------------------------------------------------------------

LOGGING_IN = [
    (b"version='1.0'>", b"<?xml version='1.0'?><stream:stream><stream:features><x/></stream:features>"),
    (b"</query></iq>", b"<iq type='result' id='reg'/>"),
    (b"</auth>", b"<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"),
    (b"version='1.0'>", b"<stream:stream><stream:features><bind/></stream:features>"),
    (b"/></iq>", b"<iq type='result' id='bind'><bind><jid>me@localhost/1</jid></bind></iq>"),
    (b"<enable xmlns='urn:xmpp:sm:3'/>", b"<enabled xmlns='urn:xmpp:sm:3'/>"),
]


def test_an_xmpp_client_sends_and_receives_with_counted_acknowledgements() -> None:
    stanzas = answer = b""
    heard = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal stanzas, answer
        for asked, said in LOGGING_IN:
            await reader.readuntil(asked)
            await dribble(writer, said)
        await reader.readuntil(b"<presence/>")
        await dribble(writer, b"<presence from='me@localhost/1' to='me@localhost/1'/>")
        for _ in range(2):  # ten stanzas and a request, then the last two and another
            stanzas += await reader.readuntil(b"<r xmlns='urn:xmpp:sm:3'/>")
            await dribble(writer, b"<a h='%d' xmlns='urn:xmpp:sm:3'/>" % stanzas.count(b"</message>"))
        await dribble(writer, b"<message from='you'><body>x</body></message>" * 2 + b"<r xmlns='urn:xmpp:sm:3'/>")
        answer = await reader.readuntil(b"/>")
        heard.set()

    async def talk(port: int) -> None:
        tally = Tally(2)
        talker = await XmppTalker.log_in(port, "me", tally)
        await talker.receive()
        await talker.send_all(["you"], 12)
        await talker.wire.wait(tally.reached)
        await heard.wait()
        talker.wire.close()

    against(serve, talk)
    bodies = re.findall(rb"<message to='you@localhost' type='chat'><body>([^<]*)</body></message>", stanzas)
    assert len(bodies) == 12
    assert {len(body) for body in bodies} == {BODY}
    assert all(base64.b64decode(body, validate=True) for body in bodies)
    assert answer == b"<a xmlns='urn:xmpp:sm:3' h='3'/>"  # the presence counts too


def test_an_xmpp_error_ends_the_measurement() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for asked, said in LOGGING_IN:
            await reader.readuntil(asked)
            await dribble(writer, said)
        await reader.readuntil(b"</message>")
        await dribble(writer, b"<message type='error'><error/></message>")

    async def talk(port: int) -> None:
        talker = await XmppTalker.log_in(port, "me")
        with pytest.raises(BenchError, match="XMPP"):
            await talker.send_all(["you"], 1)
        talker.wire.close()

    against(serve, talk)
