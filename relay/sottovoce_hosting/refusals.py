"""Refusals in bare ASGI: for what must not reach a handler, or Quart.

What is refused, and why, is decided elsewhere.
"""

from math import ceil

import msgspec

from sottovoce_wire.directory import Problem
from sottovoce_wire.errors import Code

from .service import Scope, Send


async def refuse(scope: Scope, send: Send, status: int, problem: Problem, retry_after: float | None = None) -> None:
    """Answer a request, or a WebSocket's handshake, with a problem. `retry_after`: in seconds.

    Cancellation: the answer may be cut short.
    """
    body = msgspec.json.encode(problem)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, ceil(retry_after))))
    kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


async def refuse_crowd(scope: Scope, send: Send, retry_after: float) -> None:
    """Too many, or too fast, from one address block."""
    problem = Problem(Code.TRY_AGAIN, "too much comes from your network; try again later")
    await refuse(scope, send, 429, problem, retry_after)
