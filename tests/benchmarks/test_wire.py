"""The generator's WebSocket: every frame it makes can be read, every message that comes is found however it is cut."""

import asyncio

import pytest
from wsproto.frame_protocol import FrameProtocol

from benchmarks.wire import BenchError, _Reader, dial, framed
from tests.benchmarks.loops import against, run

ACCEPTED = b"HTTP/1.1 101 \r\nUpgrade: WebSocket\r\n\r\n"
MESSAGES = [b"", b"a", b"b" * 125, b"c" * 126, b"d" * 300, b"e" * 70_000]


def unmasked(message: bytes) -> bytes:
    """As a server frames it."""
    size = len(message)
    if size < 126:
        return bytes([0x82, size]) + message
    length = b"\x7e" + size.to_bytes(2, "big") if size < 2**16 else b"\x7f" + size.to_bytes(8, "big")
    return b"\x82" + length + message


@pytest.mark.parametrize("message", MESSAGES, ids=len)
def test_a_server_reads_what_is_framed(message: bytes) -> None:
    server = FrameProtocol(client=False, extensions=[])
    server.receive_bytes(framed(message))
    (frame,) = server.received_frames()
    assert frame.payload == message


@pytest.mark.parametrize("step", [1, 7, 1_000_000])
def test_messages_are_found_however_they_are_cut(step: int) -> None:
    heard: list[bytes] = []

    async def take() -> None:
        reader = _Reader(heard.append)
        data = ACCEPTED + b"".join(map(unmasked, MESSAGES[:5]))
        for at in range(0, len(data), step):
            reader.take(data[at : at + step])

    run(take())
    assert heard == MESSAGES[:5]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 404 \r\n\r\n", ACCEPTED + b"\x88\x00"])
def test_a_server_that_says_something_else_ends_every_wait(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async def wait_for_ever(port: int) -> None:
        wire = await dial(f"http://127.0.0.1:{port}", lambda _: None)
        await wire.wait(asyncio.get_running_loop().create_future())

    with pytest.raises(BenchError, match=r"no WebSocket here|the server sent frame 0x88"):
        against(serve, wait_for_ever)
