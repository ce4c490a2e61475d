"""The sockets that a server listens on, and the origins that follow from them.

Nothing is served here. Whatever stands in the way is one StartError.
"""

import errno
import ipaddress
import resource
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import trio

from .errors import StartError
from .service import Origins
from .settings import HostingSettings

Listener: TypeAlias = trio.abc.Listener[trio.abc.Stream]

#: File descriptors kept for databases, logs and the loop's own.
_RESERVED_FILES: Final = 64


@dataclass(frozen=True)
class Address:
    """Where a server is reached: `url` is the first bound socket, `origins` what its clients' signatures may name.

    `metrics`: where they are read on this machine, if they are served.
    """

    url: str
    origins: Origins
    metrics: str | None = None


async def bind(settings: HostingSettings) -> tuple[list[Listener], Address]:
    """Open the listening sockets. Raises StartError: the port is taken, the interface is not loopback and has no
    public_url, the certificate cannot be read.

    Cancellation: nothing stays open.
    """
    context = _tls_context(settings)
    try:
        sockets = await trio.open_tcp_listeners(settings.port, host=settings.host)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        advice = (
            "; a server may be running there already: stop it, or choose another with --port"
            if error.errno == errno.EADDRINUSE
            else ""
        )
        raise StartError(f"cannot listen on {settings.host} port {settings.port}: {reason}{advice}") from None
    names = [socket.socket.getsockname() for socket in sockets]
    if settings.public_url is None and not all(ipaddress.ip_address(name[0]).is_loopback for name in names):
        for socket in sockets:
            socket.socket.close()
        raise StartError(
            f"{settings.host} is not a loopback address: set the public URL (--public-url https://...) under which"
            " clients reach this server"
        )
    scheme = "http" if context is None else "https"
    url = f"{scheme}://{_shown(names[0][0])}:{names[0][1]}"
    return _listeners(sockets, context), Address(url, Origins(settings.public_url, [name[1] for name in names]))


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listeners(sockets: Sequence[trio.SocketListener], context: ssl.SSLContext | None) -> list[Listener]:
    if context is None:
        return list(sockets)
    return [trio.SSLListener(socket, context, https_compatible=True) for socket in sockets]


def _tls_context(settings: HostingSettings) -> ssl.SSLContext | None:
    if settings.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        # A passphrase that opens nothing: without one, an encrypted key would be asked for on the terminal.
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    except OSError as error:  # an error of TLS is one, too
        raise StartError(_certificate_fault(settings, error)) from None
    return context


def _certificate_fault(settings: HostingSettings, error: OSError) -> str:
    """Which of the two files is at fault: the library does not say."""
    cert, key = settings.tls_cert, settings.tls_key
    for path in filter(None, (cert, key)):
        try:
            path.open("rb").close()
        except OSError as unread:
            return f"cannot read {path}: {unread.strerror}"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cert)
    except ssl.SSLError:
        return f"{cert} is not a certificate in PEM"
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return f"{key} is not the key of the certificate in {cert}"
    return f"{key} is not a private key in PEM, or has a passphrase"


def raise_file_limit(connections: int) -> int:
    """Let this process have enough open files for `connections`, as far as the system allows.

    Returns how many connections there may be. Raises StartError if hardly any.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    allowed = connections if soft == resource.RLIM_INFINITY else min(connections, soft - _RESERVED_FILES)
    if allowed < 1:
        raise StartError(f"the system allows {soft} open files, which is too few: raise the limit (ulimit -n)")
    return allowed
