"""The one module that knows which HTTP client the SDK uses: bounded requests to one origin, errors in our words."""

import ssl
from typing import Final

import httpx
import trio

from sottovoce_wire import limits

from . import errors

_TIMEOUT: Final = httpx.Timeout(20.0, connect=10.0)
_DEADLINE: Final = 30.0


def is_untrusted(error: BaseException | None) -> bool:
    """Whether a connection failed because of the server's certificate."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None


class Http:
    """Requests to one origin. Redirects are not followed: a signature names the origin that was dialled."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._client = httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False, follow_redirects=False)

    async def request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """(status, body of at most 64 KiB). Raises ServerUnreachable, or WrongServer for an answer without an end.

        Cancellation: the request may or may not have been carried out.
        """
        problem = f"no answer from {self._origin}"
        try:
            with trio.fail_after(_DEADLINE):
                async with self._client.stream(
                    method,
                    self._origin + path,
                    content=body,
                    headers={"Content-Type": "application/json", "Accept-Encoding": "identity", **headers},
                ) as response:
                    return response.status_code, await self._bounded(response)
        except (httpx.TransportError, trio.TooSlowError) as error:
            if is_untrusted(error):
                problem = f"the certificate of {self._origin} is not trusted"
            raise errors.ServerUnreachable(problem) from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, ValueError):
            raise errors.WrongServer(f"{self._origin} does not speak HTTP as expected") from None

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
