"""Every opening that is known to end, freeze, pin or bloat a server of this stack, and that the server outlives it."""

import gc
import ipaddress
import os
import socket
import struct
import tracemalloc
import zlib
from functools import partial
from typing import Final

import hypercorn.protocol.ws_stream
import pytest
import trio
import trio.testing

from sottovoce_hosting.addresses import Source
from sottovoce_hosting.errors import StartError
from sottovoce_hosting.guard import Deadlines, Guard, _Connection, _Shared, check_patch_points
from sottovoce_hosting.service import Receive, Scope, Send
from sottovoce_hosting.testing import PATIENCE, ServedForTest, read_until_closed
from sottovoce_wire import directory as wire
from sottovoce_wire import limits
from sottovoce_wire.errors import Code
from tests.sottovoce_hosting.probe import CLOSE, FRAME, LATE, SOON, UPGRADE, Start, Started, frame, stands_still, until


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
    await until(started.server.is_alive)


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
    await until(started.server.is_alive)


async def test_bad_openings_do_not_fill_the_log(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    started = await start(Deadlines(first_request=SOON, first_message=SOON, close=SOON))
    for opening in 5 * [OPENINGS["bytes after the upgrade"], OPENINGS["an extension that is not ASCII"]]:
        await started.server.exchange(opening)
    lines = "".join(capsys.readouterr()).splitlines()
    assert len([line for line in lines if "failed" in line]) == 1


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
    payload = bytes(limits.MAX_MESSAGE)
    stream, _ = await started.upgrade(b"/echo", then=frame(payload))
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
    await until(started.server.is_alive)


async def test_a_connection_has_little_time_for_its_first_request(start: Start) -> None:
    started = await start(Deadlines(first_request=SOON, request=LATE))
    assert await started.server.exchange(b"") == b""


async def pass_time(clock: trio.testing.MockClock, seconds: float) -> None:
    """Let the time pass that a test's clock has, when everybody has done what there was to do, and act on it."""
    await trio.testing.wait_all_tasks_blocked()
    clock.jump(seconds)
    await trio.testing.wait_all_tasks_blocked()


async def test_a_connection_has_more_time_for_later_requests(start: Start, mock_clock: trio.testing.MockClock) -> None:
    started = await start(Deadlines(first_request=1, request=4))
    async with await started.server.connect() as stream:
        for _ in range(3):
            await stream.send_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"live\n"):
                answer += await stream.receive_some()
            await pass_time(mock_clock, 3)
    assert Deadlines() == Deadlines(first_request=10, request=30)


async def test_a_body_that_dribbles_does_not_move_the_deadline(start: Start) -> None:
    started = await start(Deadlines(first_request=0.3))
    stream = await started.server.connect()
    await stream.send_all(b"POST /double HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n")
    with pytest.raises(trio.BrokenResourceError):
        await send_for_ever(stream, b"x", pause=0.01)
    await stream.aclose()


async def test_a_connection_that_spoke_in_time_may_fall_silent(
    start: Start, mock_clock: trio.testing.MockClock
) -> None:
    started = await start(Deadlines(first_request=1, request=1, first_message=1, close=1))
    stream, _ = await started.upgrade(b"/echo", then=FRAME)
    assert await stream.receive_some() == b"\x82\x02hi"
    await pass_time(mock_clock, 3)
    await stream.send_all(FRAME)
    assert await stream.receive_some() == b"\x82\x02hi"
    await stream.aclose()


async def test_two_requests_may_share_a_connection(start: Start) -> None:
    started = await start()
    first, last = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", get("/livez")
    assert (await started.server.exchange(first + last)).count(b"HTTP/1.1 200") == 2


async def test_who_never_reads_is_cut_off(start: Start) -> None:
    started = await start(Deadlines(write=SOON))
    stream, _ = await started.upgrade(b"/flood", then=FRAME)
    with trio.fail_after(PATIENCE):
        await started.probe.ended.wait()
    assert await started.server.is_alive()
    await stream.aclose()


async def test_who_reads_a_byte_now_and_then_is_cut_off(start: Start) -> None:
    started = await start(Deadlines(write=3 * SOON))
    stream, _ = await started.upgrade(b"/flood", then=FRAME)
    with trio.fail_after(PATIENCE):
        while not started.probe.ended.is_set():
            await stream.receive_some(1)
            await trio.sleep(0.01)
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
    connection = _Connection(_Shared(app, Deadlines(write=LATE)), stream, Source(None))
    connection._write_lock = CutOffWhileTaken(connection)  # type: ignore[assignment] # as much of a lock as is used
    await connection._write(b"never sent")
    assert autojump_clock.current_time() == 0


async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Is never called."""


async def a_conversation(started: Started, path: bytes = b"/echo") -> trio.SocketStream:
    """A WebSocket connection on which one message was said and, by the echo, answered."""
    stream, _ = await started.upgrade(path, then=FRAME)
    if path == b"/echo":
        with trio.fail_after(PATIENCE):
            assert await stream.receive_some() == b"\x82\x02hi"
    return stream


@pytest.mark.parametrize(
    "part",
    [frame(b"half", missing=4), frame(bytes(100_000), missing=1), b"\x02\x81\x00\x00\x00\x00x"],
    ids=["half a frame", "a large frame but for one byte", "a first fragment"],
)
async def test_a_message_that_does_not_become_whole_in_time_ends_its_connection(start: Start, part: bytes) -> None:
    started = await start(Deadlines(message=SOON, close=SOON))
    stream = await a_conversation(started)
    await stream.send_all(part)
    assert await read_until_closed(stream) == b""
    assert await started.server.is_alive()


async def test_a_message_that_dribbles_does_not_move_its_deadline(start: Start) -> None:
    started = await start(Deadlines(message=0.3, close=SOON))
    stream = await a_conversation(started)
    await stream.send_all(frame(b"", missing=100_000))
    with pytest.raises(trio.BrokenResourceError):
        await send_for_ever(stream, b"x", pause=0.01)
    await stream.aclose()


async def test_after_a_message_in_two_parts_there_is_no_hurry(start: Start, mock_clock: trio.testing.MockClock) -> None:
    started = await start(Deadlines(message=2, close=1))
    stream = await a_conversation(started)
    await stream.send_all(frame(b"half", missing=4))
    await pass_time(mock_clock, 1)
    await stream.send_all(b"more")
    assert await stream.receive_some() == b"\x82\x08halfmore"
    await pass_time(mock_clock, 4)
    await stream.send_all(FRAME)
    assert await stream.receive_some() == b"\x82\x02hi"
    await stream.aclose()


async def test_who_waits_for_a_slow_handler_is_not_cut_off_for_it(
    start: Start, mock_clock: trio.testing.MockClock
) -> None:
    started = await start(Deadlines(message=1, write=1, close=1))
    async with await a_conversation(started, b"/late") as stream, trio.open_nursery() as pushing:
        pushing.start_soon(send_for_ever, stream, frame(bytes(60_000)))
        for _ in range(5):
            await pass_time(mock_clock, 1)
        assert not started.probe.ended.is_set()
        pushing.cancel_scope.cancel()


# --- Many messages at once ----------------------------------------------------------------------------------


async def test_what_comes_together_is_received_without_waiting_and_whole(start: Start) -> None:
    started = await start()
    stream, _ = await started.upgrade(b"/ready", then=b"".join(frame(bytes(size)) for size in range(1, 2001)))
    await stream.send_all(frame(b""))
    with trio.fail_after(PATIENCE):
        assert await stream.receive_some() == b"\x82\x042000"
    await stream.aclose()


async def receive_exactly(stream: trio.SocketStream, size: int) -> bytes:
    """Raises trio.TooSlowError after PATIENCE seconds."""
    data = bytearray()
    with trio.fail_after(PATIENCE):
        while len(data) < size and (piece := await stream.receive_some(size - len(data))):
            data += piece
    return bytes(data)


async def test_a_cancelled_handler_leaves_no_half_frame(start: Start) -> None:
    started = await start()
    stream, _ = await started.upgrade(b"/hurry", then=FRAME)
    with trio.fail_after(PATIENCE):
        await started.probe.hurried.wait()
        while (head := await receive_exactly(stream, 2)) == b"\x82\x7f":
            [size] = struct.unpack(">Q", await receive_exactly(stream, 8))
            assert await receive_exactly(stream, size) == bytes(size)
    assert head == b"\x82\x03"
    assert await receive_exactly(stream, 3) == b"end"
    await stream.aclose()


async def test_who_hoards_input_holds_up_others_that_do_and_nobody_else(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sottovoce_hosting.guard._UNHANDLED_BYTES", 200_000)
    started = await start(Deadlines(close=SOON))
    hoarder = await a_conversation(started, b"/late")
    other, light = [await a_conversation(started) for _ in range(2)]
    await hoarder.send_all(frame(b"x") * 1000)
    await light.send_all(FRAME)
    assert await receive_exactly(light, 4) == b"\x82\x02hi"  # by now the hoarder was read
    await other.send_all(frame(bytes(100_000)))
    for _ in range(5):
        assert await started.server.is_alive()
        await light.send_all(FRAME)
        assert await receive_exactly(light, 4) == b"\x82\x02hi"
    with trio.move_on_after(SOON):
        assert await other.receive_some() == b"never"
    await hoarder.aclose()
    assert len(await receive_exactly(other, 10 + 100_000)) == 10 + 100_000
    for stream in (other, light):
        await stream.aclose()


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


#: What dropped connections said, and what besides once they were answered.
DROPPED: Final = [
    (b"", b""),
    (b"GET / HT", b""),
    (UPGRADE % (b"/", b"") + FRAME, b""),
    (UPGRADE % (b"/", b""), FRAME),
    (UPGRADE % (b"/", b""), FRAME + frame(bytes(40_000), missing=1)),
    (b"\xff" * 20, b""),
]
#: 10,000 take up to a minute.
MANY: Final = int(os.environ.get("SOTTOVOCE_TEST_CONNECTIONS", "2000"))


@pytest.mark.parametrize("leaked", [0, 500], ids=["nothing is kept", "positive control"])
async def test_memory_returns_after_many_connections_were_opened_and_dropped(leaked: int) -> None:
    kept: list[bytes] = []
    guard = Guard(accept_and_wait, 10_000, Deadlines(first_message=LATE, close=SOON))

    async def handle(stream: trio.SocketStream) -> None:
        await guard.handle(stream)
        kept.append(bytes(leaked))

    check_patch_points()
    async with trio.open_nursery() as serving:
        [listener] = await serving.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        tracemalloc.start()
        await open_and_drop(listener, 1000, guard)  # trio keeps so many deadlines that have passed
        before = memory()
        await open_and_drop(listener, count := MANY if not leaked else 500, guard)
        grown = (memory() - before) / count
        tracemalloc.stop()
        serving.cancel_scope.cancel()
    assert guard._shared.budget.held == 0
    assert (grown > 400) if leaked else (grown < 200)


async def accept_and_wait(_scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await trio.sleep_forever()


async def open_and_drop(listener: trio.SocketListener, count: int, guard: Guard) -> None:
    """Open connections one after the other, and drop them in the middle of something, every other with a reset."""
    for number in range(count):
        opening, then = DROPPED[number % len(DROPPED)]
        with socket.create_connection(listener.socket.getsockname()) as client:
            client.sendall(opening)
            if then:
                await trio.lowlevel.wait_readable(client)
                client.sendall(then)
            await trio.lowlevel.checkpoint()
            if number % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with trio.fail_after(PATIENCE):
        await guard.wait_empty()


def memory() -> int:
    """Bytes that are in use."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


# --- Crowds -------------------------------------------------------------------------------------------------

BEHIND_A_PROXY: Final = {"trusted_proxies": ["127.0.0.0/8"]}


def coming_from(address: str) -> bytes:
    return b"X-Forwarded-For: %s\r\n" % address.encode()


def get(path: str, headers: bytes = b"") -> bytes:
    return b"GET %s HTTP/1.0\r\n%s\r\n" % (path.encode(), headers)


async def test_one_block_has_so_many_websockets_through_a_proxy_and_another_is_served(start: Start) -> None:
    started = await start(**BEHIND_A_PROXY, max_connections_per_block=2)
    one, other = coming_from("192.0.2.1"), coming_from("192.0.2.2")
    streams = [await started.upgrade(b"/ready", headers) for headers in (one, one, one, other)]
    assert [head.split()[1] for _, head in streams] == [b"101", b"101", b"429", b"101"]
    assert b"retry-after: 10" in streams[2][1].lower()
    await streams[0][0].aclose()
    await until(partial(is_let_in, started, one))
    for stream, _ in streams:
        await stream.aclose()


async def is_let_in(started: Started, headers: bytes) -> bool:
    stream, head = await started.upgrade(b"/ready", headers)
    await stream.aclose()
    return b" 101 " in head


async def test_one_block_has_so_many_connections_and_a_line_in_the_log_says_so_without_its_address(
    start: Start, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sottovoce_hosting.addresses._parse", lambda _: ipaddress.ip_address("192.0.2.1"))
    started = await start(max_connections_per_block=2)
    first, second = await started.server.connect(), await started.server.connect()
    assert await started.server.exchange(get("/livez")) == b""
    await first.aclose()
    await until(partial(answers, started.server))
    await second.aclose()
    logged = "".join(capfd.readouterr())
    assert "too many from one address block" in logged
    assert "192.0.2" not in logged


async def test_one_block_opens_connections_no_faster_than_allowed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sottovoce_hosting.addresses._parse", lambda _: ipaddress.ip_address("192.0.2.1"))
    started = await start(max_connections_per_block=3, connections_per_second=0.001)
    answers = [await started.server.exchange(get("/livez")) for _ in range(4)]
    assert [bool(answer) for answer in answers] == [True, True, True, False]


async def test_this_machine_is_not_limited_as_one_client(start: Start) -> None:
    started = await start(max_connections_per_block=1, connections_per_second=0.001, requests_per_second=0.001)
    async with await started.server.connect(), await started.server.connect():
        assert [b" 200 " in await started.server.exchange(get("/headers")) for _ in range(4)] == [True] * 4


async def test_requests_of_one_block_are_limited_and_health_is_not(start: Start) -> None:
    started = await start(**BEHIND_A_PROXY, requests_per_second=0.01)
    one, other = coming_from("2001:db8::1"), coming_from("2001:db8:0:1::1")
    answers = [await started.server.exchange(get("/headers", headers)) for headers in (one, one, other)]
    assert [answer.split()[1] for answer in answers] == [b"200", b"429", b"200"]
    head, _, body = answers[1].partition(b"\r\n\r\n")
    _, _, seconds = (head.lower() + b"\r\n").partition(b"\r\nretry-after: ")
    assert 50 < int(seconds.partition(b"\r\n")[0]) <= 100
    assert wire.decode(wire.Problem, body).code == Code.TRY_AGAIN
    for path in ("/livez", "/readyz"):
        assert b" 200 " in await started.server.exchange(get(path, one))


async def test_handlers_are_told_of_a_block_and_never_of_an_address(start: Start) -> None:
    started = await start(**BEHIND_A_PROXY)
    headers = coming_from("192.0.2.1") + b"X-Real-IP: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\n"
    assert b"192.0.2" not in await started.server.exchange(get("/headers", headers))
    stream, _ = await started.upgrade(b"/ready", headers)
    await stream.aclose()
    assert b" 200 " in await started.server.exchange(get("/headers"))
    http, socket, proxy = started.probe.peers
    assert http == socket
    assert http is not None
    assert proxy is None


async def test_what_a_stranger_says_about_his_address_is_ignored(start: Start) -> None:
    started = await start()
    await started.server.exchange(get("/headers", coming_from("192.0.2.1")))
    assert started.probe.peers == [None]


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
