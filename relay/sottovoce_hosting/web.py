"""The HTTP side that every server has: health, JSON errors, bounded bodies, and the dispatch of WebSockets.

What a service's own routes mean stands in that service.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from quart import Response
from quart.typing import ResponseReturnValue
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.routing import RoutingException

from sottovoce_wire import limits
from sottovoce_wire.directory import Problem
from sottovoce_wire.errors import Code

from .database import DatabaseError
from .errors import name_of, place_of
from .logs import log
from .rates import Rates
from .refusals import refuse, refuse_crowd
from .service import Application, Receive, Scope, Send, Service

#: HTTP's own refusals, as the codes that clients know. Others are BAD_REQUEST.
_CODES: Final = {404: Code.UNKNOWN_PATH, 405: Code.UNKNOWN_PATH, 408: Code.TOO_SLOW, 413: Code.FRAME_TOO_LARGE}
_HEALTH: Final = ("/livez", "/readyz")


def answer(body: msgspec.Struct, status: int = 200) -> Response:
    """A JSON response."""
    return Response(msgspec.json.encode(body), status, content_type="application/json")


class _App(QuartTrio):
    """Quart, without its redirects: they would repeat the Host header, which anybody can choose."""

    async def handle_http_exception(self, error: HTTPException) -> HTTPException | ResponseReturnValue:
        """Upstream lets a redirect through to the client: it is no path of ours."""
        return await super().handle_http_exception(NotFound() if isinstance(error, RoutingException) else error)


def make_app(services: Sequence[Service], rates: Rates) -> Application:
    """The ASGI application of these services: WebSockets by exact path, everything else over one Quart app.

    `rates` are of HTTP requests by peer; health is asked for as often as anybody likes.
    """
    app = _App("sottovoce", static_folder=None)
    app.url_map.merge_slashes = False  # a path has one spelling
    app.config["MAX_CONTENT_LENGTH"] = limits.MAX_DIRECTORY_BODY
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    _add_health(app, services)
    app.register_error_handler(HTTPException, _refuse)
    app.register_error_handler(DatabaseError, _postpone)
    app.register_error_handler(Exception, _fail)
    for service in services:
        service.add_routes(app)
    sockets = {path: handler for service in services for path, handler in service.websockets.items()}

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["raw_path"].startswith(b"/"):
            await refuse(scope, send, 400, Problem(Code.BAD_REQUEST, "the request's target is no path"))
        elif scope["type"] != "websocket" and (wait := _wait_for(rates, scope)):
            await refuse_crowd(scope, send, wait)
        elif scope["type"] != "websocket":
            await app(scope, receive, send)  # type: ignore[arg-type] # the same ASGI, in narrower words
        elif handler := sockets.get(scope["path"]):
            await handler(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    return dispatch


def _wait_for(rates: Rates, scope: Scope) -> float:
    """Seconds until this peer's next request; 0.0 if it may have one now."""
    peer = scope["state"]["peer"]
    return 0.0 if peer is None or scope["path"] in _HEALTH else rates.take(peer)


def _add_health(app: QuartTrio, services: Sequence[Service]) -> None:
    @app.get("/livez")
    async def live() -> Response:
        return Response("live\n", content_type="text/plain")

    @app.get("/readyz")
    async def ready() -> Response:
        reasons = [reason for service in services if (reason := service.not_ready())]
        if reasons:
            return answer(Problem(Code.TRY_AGAIN, reasons[0]), 503)
        return Response("ready\n", content_type="text/plain")


async def _refuse(error: HTTPException) -> Response:
    status = error.code or 500
    response = answer(Problem(_CODES.get(status, Code.BAD_REQUEST), error.name.lower()), status)
    for name, value in error.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response


async def _postpone(error: DatabaseError) -> Response:
    log.error("the database failed", reason=str(error))
    return answer(Problem(Code.TRY_AGAIN, "the server's database cannot do this now; nothing was changed"), 503)


async def _fail(error: Exception) -> Response:
    log.error("a request failed", error=name_of(error), at=place_of(error))
    return answer(Problem(Code.INTERNAL, "the server failed; nothing was changed unless it answered"), 500)
