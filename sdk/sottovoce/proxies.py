"""Proxies: their addresses, and what is said to one at first: SOCKS5 (RFC 1928 and 1929) or CONNECT (RFC 9110).

Names are never resolved here: the proxy is told the name. What a proxy answers is read to the byte and bounded. No
address or password of a proxy stands in an error.
"""

import base64
import ipaddress
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias
from urllib.parse import unquote_to_bytes, urlsplit

import trio

from . import errors
from .crypto import primitives

Read: TypeAlias = Callable[[int], Awaitable[bytes | bytearray]]
Write: TypeAlias = Callable[[bytes], Awaitable[None]]
Scheme: TypeAlias = Literal["socks5h", "http"]

#: A user name and a password have at most this many bytes (RFC 1929).
MAX_CREDENTIAL: Final = 255
#: The head of the answer to CONNECT.
MAX_ANSWER: Final = 8 * 1024
_CONNECTED: Final = re.compile(rb"HTTP/1\.[01] 2[0-9][0-9][ \r]")
_HINT: Final = "check that the proxy is running, its address is right, and it lets this client through"
_NO_USER: Final = 0
_USER: Final = 2
#: How many bytes of address the last answer of SOCKS carries, by the kind of address; 0: a name that says its length.
_ADDRESS_SIZES: Final = {1: 4, 3: 0, 4: 16}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy. `user` and `password` (bytes) are empty where none were given."""

    scheme: Scheme
    host: str
    port: int
    user: bytes = field(default=b"", repr=False)
    password: bytes = field(default=b"", repr=False)

    def check(self, origin: str) -> None:
        """Plain http is for one machine: through a proxy elsewhere, everybody on the way could read and change it.

        Raises ServerUnreachable if the proxy is not to be asked for `origin`."""
        if origin.startswith("http:") and not self._is_on_this_machine():
            raise errors.ServerUnreachable(f"{origin} is not asked for at a proxy elsewhere", hint="use https")

    def _is_on_this_machine(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    async def lead_to(self, host: str, port: int, read: Read, write: Write) -> None:
        """Have the proxy at the other end connect to `host`; after this the server's bytes follow.

        `read(n)` gives 1 to n bytes, or none at the end. Raises ServerUnreachable, or what reading and writing raise.
        Cancellation: the connection is to be given up."""
        await (_socks if self.scheme == "socks5h" else _connect)(self, host, port, read, write)


def parse_proxy(text: str) -> Proxy:
    """The proxy at `socks5h://host:port` or `http://host:port`, with `user:password@` before the host or without.

    Raises InvalidInput, which does not repeat the text. `socks5://` is refused: it would have names resolved here.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise _not_a_proxy() from None
    scheme: Scheme | None = "socks5h" if parts.scheme == "socks5h" else "http" if parts.scheme == "http" else None
    user, password = (unquote_to_bytes(part or "") for part in (parts.username, parts.password))
    is_bare = parts.path in ("", "/") and not parts.query and not parts.fragment
    is_plain = text.isascii() and text.isprintable() and " " not in text
    if scheme is None or not parts.hostname or not port or not is_bare or not is_plain:
        raise _not_a_proxy()
    if bool(user) != bool(password) or max(len(user), len(password)) > MAX_CREDENTIAL or b":" in user:
        raise errors.InvalidInput("a proxy's user name and password have 1 to 255 bytes each, the name no colon")
    return Proxy(scheme, parts.hostname, port, user, password)


def _not_a_proxy() -> errors.InvalidInput:
    return errors.InvalidInput("a proxy is named as socks5h://host:port or http://host:port")


def _refused(text: str) -> errors.ServerUnreachable:
    return errors.ServerUnreachable(text, hint=_HINT)


def no_proxy() -> errors.ServerUnreachable:
    """The proxy itself cannot be reached."""
    return _refused("nothing answers at the proxy")


async def open_proxy(proxy: Proxy) -> trio.SocketStream:
    """A connection to the proxy itself. Raises ServerUnreachable. Cancellation: closes it."""
    try:
        return await trio.open_tcp_stream(proxy.host, proxy.port)
    except (OSError, UnicodeError):
        raise no_proxy() from None


async def _socks(proxy: Proxy, host: str, port: int, read: Read, write: Write) -> None:
    await write(bytes([5, 2, _NO_USER, _USER]))
    version, method = await _exactly(read, 2)
    if version != 5 or method not in (_NO_USER, _USER):
        raise _refused("the proxy does not speak SOCKS5 with this client")
    if method == _USER:
        await _introduce(proxy, read, write)
    await write(bytes([5, 1, 0]) + _address(host) + port.to_bytes(2, "big"))
    version, reply, _, kind = await _exactly(read, 4)
    if version != 5 or reply != 0:
        raise _refused(f"the proxy does not reach {host} (SOCKS5 reply {reply})")
    if kind not in _ADDRESS_SIZES:
        raise _refused("the proxy does not speak SOCKS5 with this client")
    size = _ADDRESS_SIZES[kind] or (await _exactly(read, 1))[0]
    await _exactly(read, size + 2)


async def _introduce(proxy: Proxy, read: Read, write: Write) -> None:
    """Without a name of one's own, a new one for each connection: Tor gives each name a circuit of its own, so that
    the addresses from which one client comes do not link its connections."""
    user = proxy.user or primitives.random_bytes(8).hex().encode("ascii")
    password = proxy.password or b"0"
    await write(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
    if (await _exactly(read, 2))[1] != 0:
        raise _refused("the proxy refuses the user name or password")


def _address(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("ascii")
        return bytes([3, len(name)]) + name
    return bytes([1 if address.version == 4 else 4]) + address.packed


async def _connect(proxy: Proxy, host: str, port: int, read: Read, write: Write) -> None:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n".encode("ascii")
    if proxy.user:
        head += b"Proxy-Authorization: Basic " + base64.b64encode(proxy.user + b":" + proxy.password) + b"\r\n"
    await write(head + b"\r\n")
    answer = bytearray()
    while b"\r\n\r\n" not in answer:
        piece = await read(MAX_ANSWER - len(answer))
        answer += piece
        if not piece or len(answer) >= MAX_ANSWER:
            raise _refused("the proxy does not answer as an HTTP proxy does")
    if not _CONNECTED.match(answer):
        raise _refused(f"the proxy does not reach {host}")
    if not answer.endswith(b"\r\n\r\n"):  # the client speaks first: these bytes are not the server's
        raise _refused("the proxy says more than its answer")


async def _exactly(read: Read, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        piece = await read(count - len(received))
        if not piece:
            raise _refused("the proxy closes the connection")
        received += piece
    return bytes(received)
