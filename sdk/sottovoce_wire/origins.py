"""Origins: the scheme, host and port that name a server, in one canonical spelling.

Signatures cover an origin, so two programs must spell it alike: lower case, no default port, no path.
Plain http is for loopback addresses alone.
"""

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from . import limits
from .errors import Code, WireError

_DEFAULT_PORTS = {"https": 443, "http": 80}


#: A DNS name whose last label starts with a letter: what resolvers could read as a number is no name.
_NAME: Final = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
#: A DNS name's greatest length (RFC 1035, in text and without the root's dot).
_MAX_NAME: Final = 253
#: Names that never leave a network (RFC 6761, RFC 6762, RFC 8375, ICANN's .internal, and what routers hand out).
_PRIVATE_SUFFIXES: Final = (".localhost", ".local", ".internal", ".home.arpa", ".lan", ".localdomain", ".home", ".corp")
#: Addresses that carry another address inside: NAT64 (RFC 6052), 6to4 (RFC 3056), Teredo (RFC 4380), site-local.
_WRAPPING: Final = tuple(
    ipaddress.ip_network(network)
    for network in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "fec0::/10")
)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The literal address that `host` is, without a scope; None for a name."""
    try:
        return ipaddress.ip_address(host) if "%" not in host else None
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _is_public(host: str) -> bool:
    """False for names and literal addresses that cannot be reached from another network."""
    address = _address(host)
    if address is None:
        return "." in host and not host.endswith(_PRIVATE_SUFFIXES)
    return address.is_global and not address.is_multicast and not any(address in wrapping for wrapping in _WRAPPING)


def _refuse(detail: str) -> WireError:
    return WireError(Code.BAD_REQUEST, detail)


def _host(origin: str) -> str:
    return urlsplit(origin).hostname or ""


def parse_origin(text: str) -> str:
    """The canonical spelling of an origin such as `https://chat.example` or `http://127.0.0.1:8480`.

    Raises WireError (BAD_REQUEST) for user info, a path, a query, another scheme, a name that is not
    ASCII, or plain http to anything but a loopback address.
    """
    if len(text) > limits.MAX_ORIGIN or not text.isascii() or not text.isprintable() or " " in text:
        raise _refuse("an address has at most 255 printable ASCII characters")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise _refuse("the address cannot be read") from None
    host = parts.hostname
    if parts.scheme not in _DEFAULT_PORTS or not host:
        raise _refuse("an address starts with https:// (or http:// on this machine) and names a host")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise _refuse("an address has no user, query or fragment")
    if parts.path not in ("", "/"):
        raise _refuse("an address has no path")
    if port == 0:
        raise _refuse("port 0 is not an address")
    address = _address(host)
    if address is None and (len(host) > _MAX_NAME or not _NAME.fullmatch(host)):
        raise _refuse("the host is neither a name nor an address in its usual spelling")
    if parts.scheme == "http" and not _is_loopback(host):
        raise _refuse("plain http goes to this machine only; use https")
    shown = f"[{address}]" if isinstance(address, ipaddress.IPv6Address) else host
    suffix = "" if port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{port}"
    return f"{parts.scheme}://{shown}{suffix}"


def may_dial(origin: str, *, own: str) -> bool:
    """Whether a client of the server `own` may connect to the canonical `origin` that somebody else named.

    Private and loopback addresses only for a client whose own server is not public either (spec: identity,
    contact record): otherwise a stranger could point a client at machines inside its network.
    """
    return _is_public(_host(origin)) or not _is_public(_host(own))


def may_connect(origin: str, address: str, *, own: str) -> bool:
    """Whether a client of `own` may talk to `origin`, whose name led to the literal `address`.

    A public name can be made to lead to a private address; the client's own server may be reached however it is.
    """
    return origin == own or _is_public(address.partition("%")[0]) or not _is_public(_host(own))


def endpoint(origin: str) -> tuple[str, int, bool]:
    """(host without brackets, port, whether TLS is spoken) of a canonical `origin`."""
    parts = urlsplit(origin)
    return parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme], parts.scheme == "https"
