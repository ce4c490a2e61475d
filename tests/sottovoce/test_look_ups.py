"""What a look-up tells the keyserver of whoever asks: nothing. Real HTTP, read byte by byte by the test."""

import base64
import json
from functools import partial

import pytest
import trio

from sottovoce import errors
from sottovoce.directory import Directory
from sottovoce.network import Internet
from sottovoce_wire.ids import AccountId

ASKED_FOR = AccountId(bytes(range(32)))
REFUSAL = b'{"code": 404, "detail": ""}'


async def said_by(*look_ups: str) -> list[bytes]:
    """What a keyserver that refuses all hears of these look-ups."""
    heard = list[bytes]()

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            request = b""
            async for piece in stream:
                request += piece
                if request.endswith(b"}"):
                    break
            heard.append(request)
            head = f"HTTP/1.1 404 X\r\nContent-Length: {len(REFUSAL)}\r\nConnection: close\r\n\r\n"
            await stream.send_all(head.encode() + REFUSAL)

    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        directory = Directory(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", Internet())
        for name in look_ups:
            with pytest.raises(errors.SottovoceError):
                await (directory.find(name) if name else directory.bundles(ASKED_FOR, None, 0))
        await directory.aclose()
        nursery.cancel_scope.cancel()
    return heard


#: What every client of this version says alike.
HEADERS = {"host", "accept", "accept-encoding", "connection", "content-length", "content-type", "user-agent"}


async def test_a_look_up_says_nothing_of_who_asks() -> None:
    bodies = []
    for request in await said_by("bob", ""):
        head, _, body = request.partition(b"\r\n\r\n")
        assert {line.partition(b":")[0].lower().decode() for line in head.splitlines()[1:]} <= HEADERS
        bodies.append(json.loads(body))
    assert bodies == [{"username": "bob"}, {"account_id": base64.b64encode(ASKED_FOR).decode()}]
