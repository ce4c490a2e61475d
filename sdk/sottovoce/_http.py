"""The one module that knows which HTTP client the SDK uses: bounded requests to one origin, errors in our words."""

import ssl
from collections.abc import Iterable
from typing import Final

import httpcore
import httpx
import trio

from sottovoce_wire import limits

from . import errors
from .proxies import Proxy, no_proxy

CONNECT_TIMEOUT: Final = 10.0
#: Through a proxy, which may lead through several machines.
PROXIED_TIMEOUT: Final = 40.0
#: From a request to the end of its answer, on top of connecting.
ANSWER_WITHIN: Final = 20.0
#: A connection is used again within so many seconds.
KEPT_OPEN: Final = 5.0
_TRUSTED: Final = (
    "clients trust public authorities only: give the server a certificate of one, for its name and not expired"
)
#: What OpenSSL calls bytes that are no TLS.
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
_TRY_HTTP: Final = "try http:// if the server is on this machine and has no certificate"
_TRY_HTTPS: Final = "try https:// if the server has a certificate; else check the address"
_HEADERS: Final = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


def unreachable(problem: str, origin: str, error: BaseException | None) -> errors.ServerUnreachable:
    """What ended a connection to `origin`, for a person: `problem`, or what `error` says of TLS there."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    if isinstance(error, ssl.SSLCertVerificationError):
        return errors.ServerUnreachable(f"the certificate of {origin} is not trusted", hint=_TRUSTED)
    if error is not None and error.reason in _NO_TLS:
        return errors.ServerUnreachable(f"what answers at {origin} does not speak TLS", hint=_TRY_HTTP)
    return errors.ServerUnreachable(problem)


class Http:
    """Requests to one origin. Redirects are not followed: a signature names the origin that was dialled."""

    def __init__(self, origin: str, proxy: Proxy | None) -> None:
        self._origin = origin
        self._proxy = proxy
        self._connecting = CONNECT_TIMEOUT if proxy is None else PROXIED_TIMEOUT
        self._client = httpx.AsyncClient(
            transport=_Transport(proxy),
            timeout=httpx.Timeout(None, connect=self._connecting),
            headers=_HEADERS,
            trust_env=False,
            follow_redirects=False,
        )

    async def request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """(status, body of at most 64 KiB). Raises ServerUnreachable, or WrongServer for an answer without an end.

        Cancellation: the request may or may not have been carried out.
        """
        if self._proxy is not None:
            self._proxy.check(self._origin)
        problem = f"no answer from {self._origin}"
        try:
            with trio.fail_after(self._connecting + ANSWER_WITHIN):
                async with self._client.stream(method, self._origin + path, content=body, headers=headers) as response:
                    return response.status_code, await self._bounded(response)
        except (httpx.TimeoutException, httpx.NetworkError, trio.TooSlowError) as error:
            raise unreachable(problem, self._origin, error) from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, ValueError):
            hint = None if self._origin.startswith("https:") else _TRY_HTTPS
            raise errors.WrongServer(f"{self._origin} does not speak HTTP as expected", hint=hint) from None

    async def _bounded(self, response: httpx.Response) -> bytes:
        received = bytearray()
        with trio.CancelScope() as reading:
            async for piece in response.aiter_raw():
                received += piece
                if len(received) > limits.MAX_DIRECTORY_BODY:
                    reading.cancel()  # raised in the next read, it unwinds the library's generators in order
        if reading.cancelled_caught:
            raise errors.WrongServer(f"{self._origin} sent more than an answer")
        return bytes(received)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class _Transport(httpx.AsyncHTTPTransport):
    """httpx on the system's certificates, and through a proxy as `proxies` speaks to it: for WebSockets and HTTP alike.

    It has no way to say how to connect, so that its pool is made here; the minor version is pinned."""

    def __init__(self, proxy: Proxy | None) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            keepalive_expiry=KEPT_OPEN,
            network_backend=httpcore.TrioBackend() if proxy is None else _Proxied(proxy),
        )


class _Proxied(httpcore.AsyncNetworkBackend):
    """Connections that the library takes for direct ones: TLS and HTTP are spoken through the proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._direct = httpcore.TrioBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Have the proxy connect to `host`. The library always gives a `timeout`, in seconds."""
        with trio.fail_after(timeout or PROXIED_TIMEOUT):
            try:
                stream = await self._direct.connect_tcp(self._proxy.host, self._proxy.port)
            except httpcore.NetworkError:
                raise no_proxy() from None
            try:
                await self._proxy.lead_to(host, port, stream.read, stream.write)
            except BaseException:
                with trio.CancelScope(shield=True):
                    await stream.aclose()
                raise
        return stream
