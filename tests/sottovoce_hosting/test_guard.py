"""Every opening that is known to end, freeze, pin or bloat a server of this stack, and that the server outlives it."""

import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import hypercorn.protocol.ws_stream
import pytest
import trio
import trio.testing
from hypercorn.trio.worker_context import WorkerContext
from quart import request
from quart_trio import QuartTrio

from sottovoce_hosting.errors import StartError
from sottovoce_hosting.guard import Deadlines, _Connection, _hypercorn_config, check_patch_points
from sottovoce_hosting.logs import Rare
from sottovoce_hosting.service import Receive, Scope, Send, Service, WebSocketHandler
from sottovoce_hosting.settings import HostingSettings
from sottovoce_hosting.testing import PATIENCE, ServedForTest, read_until_closed, start_server
from sottovoce_wire import limits

UPGRADE: Final = (
    b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%s\r\n"
)
FRAME = b"\x82\x82\x00\x00\x00\x00hi"
CLOSE = b"\x88\x80\x00\x00\x00\x00"
SOON = 0.1
LATE = 60.0


@dataclass
class Probe:
    """A service with a handler for each thing that a handler can do."""

    name: str = "probe"
    sends: int = 0
    ended: trio.Event = field(default_factory=trio.Event)

    @property
    def websockets(self) -> dict[str, WebSocketHandler]:
        return {"/echo": self.echo, "/flood": self.flood, "/stop": self.stop, "/raise": self.fail, "/late": self.late}

    def add_routes(self, app: QuartTrio) -> None:
        @app.post("/double")
        async def double() -> bytes:
            body: bytes = await request.body
            return body + body

    def not_ready(self) -> str | None:
        return None

    async def drain(self) -> None:
        return

    async def echo(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": message["bytes"] or b""})
        self.ended.set()

    async def flood(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Sends for ever and never looks whether anybody is there."""
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(2**16)})
                self.sends += 1
        finally:
            self.ended.set()

    async def stop(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Ends after one message, however many more there are."""
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await trio.testing.wait_all_tasks_blocked()
        self.ended.set()

    async def fail(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        raise ValueError("a text with a secret in it")

    async def late(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Does not mind that the peer is gone."""
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await trio.sleep_forever()
        finally:
            self.ended.set()


@dataclass
class Started:
    """A served probe."""

    server: ServedForTest
    probe: Probe

    async def upgrade(self, path: bytes, headers: bytes = b"", then: bytes = b"") -> tuple[trio.SocketStream, bytes]:
        """A WebSocket connection, and the head of the answer; `then` is said after it."""
        stream = await self.server.connect()
        await stream.send_all(UPGRADE % (path, headers))
        head = b""
        with trio.fail_after(PATIENCE):
            while b"\r\n\r\n" not in head and (piece := await stream.receive_some()):
                head += piece
        await stream.send_all(then)
        return stream, head


Start = Callable[..., Awaitable[Started]]


@pytest.fixture
def start(nursery: trio.Nursery) -> Start:
    async def start_probe(deadlines: Deadlines | None = None, **settings: object) -> Started:
        probe = Probe()

        @asynccontextmanager
        async def open_probe() -> AsyncIterator[Service]:
            yield probe

        chosen = HostingSettings.model_validate({"port": 0, **settings})
        return Started(await start_server(nursery, lambda _: [open_probe()], chosen, deadlines), probe)

    return start_probe


def deflated_frame(size: int) -> bytes:
    """A frame marked as compressed that would inflate to `size` bytes."""
    packer = zlib.compressobj(wbits=-15)
    payload = (packer.compress(bytes(size)) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    return b"\xc2\xff" + struct.pack(">Q", len(payload)) + bytes(4) + payload


async def send_for_ever(stream: trio.SocketStream, data: bytes, pause: float = 0) -> None:
    """Raises trio.BrokenResourceError once the server has had enough."""
    with trio.fail_after(PATIENCE):
        while True:
            await stream.send_all(data)
            await trio.sleep(pause)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until `condition`, which pauses by itself, holds."""
    with trio.fail_after(PATIENCE):
        while not await condition():
            pass


# --- Openings that would end the process --------------------------------------------------------------------

OPENINGS: Final[dict[str, bytes]] = {
    "bytes after the upgrade": UPGRADE % (b"/echo", b"") + FRAME,
    "half a frame after the upgrade": UPGRADE % (b"/echo", b"") + FRAME[:3],
    "one byte after the upgrade": UPGRADE % (b"/echo", b"") + b"x",
    "an extension that is no number": UPGRADE % (
        b"/echo", b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=x\r\n"
    ),
    "an extension that is not ASCII": UPGRADE % (b"/echo", b"Sec-WebSocket-Extensions: \xff\r\n"),
    "a subprotocol that is not ASCII": UPGRADE % (b"/echo", b"Sec-WebSocket-Protocol: \xe9\r\n"),
    "an upgrade to an unknown path": UPGRADE % (b"/nowhere", b""),
    "an upgrade without a key": b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "an upgrade with two upgrades": UPGRADE % (b"/echo", b"Upgrade: h2c\r\n"),
    "an upgrade with a body": UPGRADE % (b"/echo", b"Content-Length: 4\r\n") + b"abcd",
    "an upgrade with another version": (UPGRADE % (b"/echo", b"")).replace(b": 13", b": 99"),
    "an upgrade in HTTP/1.0": (UPGRADE % (b"/echo", b"")).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "HTTP/2 by prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "HTTP/2 with a settings flood": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" * 99,
    "a method of bytes": b"\xff\xfe / HTTP/1.1\r\n\r\n",
    "a path of bytes": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path that decodes to bytes": b"GET /%ff%00 HTTP/1.0\r\n\r\n",
    "an absolute path": b"GET http://x/livez HTTP/1.0\r\n\r\n",
    "an asterisk": b"OPTIONS * HTTP/1.0\r\n\r\n",
    "no path": b"GET  HTTP/1.0\r\n\r\n",
    "a header of bytes": b"GET /livez HTTP/1.0\r\nX: \xff\xfe\r\n\r\n",
    "a head without end": b"GET /livez HTTP/1.1\r\nX: " + b"a" * 70_000,
    "two lengths": b"POST /double HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a length that is no number": b"POST /double HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a chunk that is no number": b"POST /double HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "two hosts": b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "noise": bytes(range(256)) * 300,
    "newlines": b"\r\n" * 1000,
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("opening", OPENINGS.values(), ids=OPENINGS.keys())
async def test_an_opening_ends_its_own_connection_at_most(start: Start, opening: bytes) -> None:
    started = await start(Deadlines(first_request=SOON, request=SOON, first_message=SOON, close=SOON))
    await started.server.exchange(opening)
    assert await started.server.is_alive()


@pytest.mark.parametrize("opening", OPENINGS.values(), ids=OPENINGS.keys())
async def test_an_opening_byte_by_byte_ends_its_own_connection_at_most(start: Start, opening: bytes) -> None:
    started = await start(Deadlines(first_request=SOON, request=SOON, first_message=SOON, close=SOON))
    stream = await started.server.connect()
    try:
        for byte in opening[:400]:
            await stream.send_all(bytes([byte]))
        await stream.send_eof()
    except trio.BrokenResourceError:
        pass
    await read_until_closed(stream)
    assert await started.server.is_alive()


FRAMES: Final[dict[str, bytes]] = {
    "a text that is not UTF-8": b"\x81\x81\x00\x00\x00\x00\xff",
    "a frame without mask": b"\x82\x02hi",
    "an unknown opcode": b"\x83\x80\x00\x00\x00\x00",
    "a fragmented ping": b"\x09\x80\x00\x00\x00\x00",
    "a ping that is too long": b"\x89\xfe\x00\x80\x00\x00\x00\x00" + bytes(128),
    "a continuation of nothing": b"\x80\x81\x00\x00\x00\x00x",
    "a length with the highest bit": b"\x82\xff" + b"\xff" * 8 + bytes(4),
    "a close with one byte": b"\x88\x81\x00\x00\x00\x00x",
    "a close with a reserved code": b"\x88\x82\x00\x00\x00\x00\x03\xed",
    "two closes": CLOSE + CLOSE,
    "bytes after a close": CLOSE + FRAME + b"noise",
    "a compressed frame": deflated_frame(1000),
}  # fmt: skip


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
async def test_a_bad_frame_ends_its_own_connection_and_its_handler(start: Start, frame: bytes) -> None:
    started = await start(Deadlines(close=SOON))
    stream, _ = await started.upgrade(b"/echo", then=FRAME + frame)
    await read_until_closed(stream)
    with trio.fail_after(PATIENCE):
        await started.probe.ended.wait()
    assert await started.server.is_alive()


# --- Compression --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offer", [b"permessage-deflate", b"permessage-deflate; client_max_window_bits", b"x, , ;"])
async def test_no_extension_is_ever_accepted(start: Start, offer: bytes) -> None:
    started = await start()
    stream, head = await started.upgrade(b"/echo", b"Sec-WebSocket-Extensions: %s\r\n" % offer)
    assert head.startswith(b"HTTP/1.1 101")
    assert b"extensions" not in head.lower()
    await stream.aclose()


async def test_a_compressed_message_is_refused_unread(start: Start) -> None:
    started = await start(Deadlines(close=SOON))
    stream, _ = await started.upgrade(
        b"/echo", b"Sec-WebSocket-Extensions: permessage-deflate\r\n", then=deflated_frame(2**20)
    )
    assert await read_until_closed(stream) == b""
    with trio.fail_after(PATIENCE):
        await started.probe.ended.wait()
    assert await started.server.is_alive()


# --- Sizes --------------------------------------------------------------------------------------------------


async def test_a_message_of_the_largest_size_is_taken(start: Start) -> None:
    started = await start()
    payload = bytes(limits.MAX_FRAME)
    stream, _ = await started.upgrade(b"/echo", then=b"\x82\xff" + struct.pack(">Q", len(payload)) + bytes(4) + payload)
    answer = bytearray()
    with trio.fail_after(PATIENCE):
        while len(answer) < 10 + len(payload):
            answer += await stream.receive_some()
    await stream.aclose()


async def test_a_message_without_end_is_cut_off_with_its_connection(start: Start) -> None:
    started = await start(Deadlines(close=SOON))
    stream, _ = await started.upgrade(b"/echo", then=b"\x02\xfe\xff\xff\x00\x00\x00\x00" + bytes(0xFFFF))
    fragment = b"\x00\xfe\xff\xff\x00\x00\x00\x00" + bytes(0xFFFF)
    with pytest.raises(trio.BrokenResourceError):
        await send_for_ever(stream, fragment)
    await stream.aclose()
    assert await started.server.is_alive()


async def test_a_refusal_is_read_even_when_the_body_is_still_coming(start: Start) -> None:
    started = await start()
    head = b"POST /double HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % 2**30
    assert (await started.server.exchange(head + bytes(2**20))).startswith(b"HTTP/1.1 413")


async def test_a_body_in_chunks_is_bounded_too(start: Start) -> None:
    started = await start()
    head = b"POST /double HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%s\r\n" % (limits.MAX_DIRECTORY_BODY, bytes(limits.MAX_DIRECTORY_BODY))
    assert (await started.server.exchange(head + 4 * chunk)).startswith(b"HTTP/1.1 413")


# --- Slowness -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET /livez HTTP/1.1\r\n",
        b"POST /double HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
        b"POST /double HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx",
        UPGRADE % (b"/echo", b""),
        UPGRADE % (b"/echo", b"") + b"",
    ],
)
async def test_who_does_not_finish_a_request_or_begin_a_conversation_is_closed(start: Start, said: bytes) -> None:
    started = await start(Deadlines(first_request=SOON, request=SOON, first_message=SOON))
    await started.server.exchange(said)
    assert await started.server.is_alive()


async def test_a_connection_has_less_time_for_its_first_request_than_for_later_ones(start: Start) -> None:
    started = await start(Deadlines(first_request=SOON, request=LATE))
    assert await started.server.exchange(b"") == b""
    async with await started.server.connect() as stream:
        for _ in range(2):
            await stream.send_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            with trio.fail_after(PATIENCE):
                while not answer.endswith(b"live\n"):
                    answer += await stream.receive_some()
            await trio.sleep(2 * SOON)
    assert Deadlines() == Deadlines(first_request=10, request=30)


async def test_a_body_that_dribbles_does_not_move_the_deadline(start: Start) -> None:
    started = await start(Deadlines(first_request=0.3))
    stream = await started.server.connect()
    await stream.send_all(b"POST /double HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n")
    with pytest.raises(trio.BrokenResourceError):
        await send_for_ever(stream, b"x", pause=0.01)
    await stream.aclose()


async def test_a_connection_that_spoke_in_time_may_fall_silent(start: Start) -> None:
    started = await start(Deadlines(first_request=SOON, request=SOON, first_message=SOON, close=SOON))
    stream, _ = await started.upgrade(b"/echo", then=FRAME)
    with trio.fail_after(PATIENCE):
        assert await stream.receive_some() == b"\x82\x02hi"
        await trio.sleep(3 * SOON)
        await stream.send_all(FRAME)
        assert await stream.receive_some() == b"\x82\x02hi"
    await stream.aclose()


async def test_two_requests_may_share_a_connection(start: Start) -> None:
    started = await start(Deadlines(request=SOON))
    both = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 2
    assert (await started.server.exchange(both)).count(b"HTTP/1.1 200") == 2


async def test_who_never_reads_is_cut_off(start: Start) -> None:
    started = await start(Deadlines(write=SOON))
    stream, _ = await started.upgrade(b"/flood", then=FRAME)
    with trio.fail_after(PATIENCE):
        await started.probe.ended.wait()
    assert await started.server.is_alive()
    await stream.aclose()


async def test_who_never_reads_does_not_hold_up_the_end(start: Start) -> None:
    started = await start(Deadlines(write=LATE), drain_seconds=SOON)
    stream, _ = await started.upgrade(b"/flood", then=FRAME)
    await until(partial(stands_still, started.probe))
    started.server.stop.set()
    with trio.fail_after(PATIENCE):
        await started.server.stopped.wait()
    await stream.aclose()


class CutOffWhileTaken:
    """A lock whose taking is the moment at which the connection is cut off."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    async def __aenter__(self) -> None:
        self._connection.cut_off()

    async def __aexit__(self, *_: object) -> None:
        pass


async def test_a_write_that_is_about_to_begin_when_the_connection_is_cut_off_does_not_begin(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stream, _peer_that_never_reads = trio.testing.lockstep_stream_pair()
    connection = _Connection(app, _hypercorn_config(), WorkerContext(None), stream, Deadlines(write=LATE), Rare("x"))
    connection._write_lock = CutOffWhileTaken(connection)  # type: ignore[assignment] # as much of a lock as is used
    await connection._write(b"never sent")
    assert autojump_clock.current_time() == 0


async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Is never called."""


async def stands_still(probe: Probe) -> bool:
    """Whether the flood has begun and its peer's buffers are full."""
    before = probe.sends
    await trio.sleep(SOON)
    return 0 < before == probe.sends


# --- Handlers -----------------------------------------------------------------------------------------------


async def test_a_handler_that_only_sends_lets_go_when_the_peer_has_closed(start: Start) -> None:
    started = await start(Deadlines(close=SOON))
    stream, _ = await started.upgrade(b"/flood", then=FRAME + CLOSE)
    await read_until_closed(stream)
    with trio.fail_after(PATIENCE):
        await started.probe.ended.wait()
    assert await started.server.is_alive()


async def test_a_handler_that_ends_with_messages_waiting_closes_its_connection(start: Start) -> None:
    started = await start(Deadlines(first_request=LATE, request=LATE, first_message=LATE, close=SOON))
    stream, _ = await started.upgrade(b"/stop", then=FRAME * 100)
    with trio.fail_after(PATIENCE):
        await started.probe.ended.wait()
    await read_until_closed(stream)
    started.server.stop.set()
    with trio.fail_after(PATIENCE):
        await started.server.stopped.wait()


async def test_a_handler_that_does_not_mind_a_lost_peer_is_ended(start: Start) -> None:
    started = await start(Deadlines(first_message=LATE, close=SOON))
    stream, _ = await started.upgrade(b"/late", then=FRAME)
    await stream.aclose()
    with trio.fail_after(PATIENCE):
        await started.probe.ended.wait()


async def test_a_handler_that_fails_is_logged_without_its_words(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    started = await start(Deadlines(close=SOON))
    stream, _ = await started.upgrade(b"/raise", then=FRAME)
    assert (await read_until_closed(stream))[2:4] == struct.pack(">H", 1011)
    assert await started.server.is_alive()
    logged = "".join(capsys.readouterr())
    assert "ValueError" in logged
    assert "secret" not in logged
    assert "127.0.0.1" not in logged


# --- Numbers of connections ---------------------------------------------------------------------------------


async def test_one_connection_too_many_is_closed_and_the_next_after_a_departure_is_served(start: Start) -> None:
    started = await start(max_connections=2)
    first, second = await started.server.connect(), await started.server.connect()
    assert await started.server.exchange(b"GET /livez HTTP/1.0\r\n\r\n") == b""
    await first.aclose()
    await until(partial(answers, started.server))
    await second.aclose()


async def answers(server: ServedForTest) -> bool:
    await trio.sleep(0.01)
    return await server.is_alive()


# --- Hypercorn ----------------------------------------------------------------------------------------------


def test_an_unknown_hypercorn_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sottovoce_hosting.guard.metadata.version", lambda _: "0.19.0")
    with pytest.raises(StartError, match=r"install hypercorn 0\.18"):
        check_patch_points()


def test_a_hypercorn_without_the_guarded_names_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(hypercorn.protocol.ws_stream, "PerMessageDeflate")
    with pytest.raises(StartError, match=r"install hypercorn 0\.18"):
        check_patch_points()


def test_a_hypercorn_with_another_protocol_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sottovoce_hosting.guard._Protocol", dict)
    with pytest.raises(StartError, match=r"install hypercorn 0\.18"):
        check_patch_points()
