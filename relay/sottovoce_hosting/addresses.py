"""Who a connection comes from, as far as that is anybody's business: one opaque value for each block of addresses.

No address leaves this module, neither in a value nor in a log.
"""

import ipaddress
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, TypeAlias

import trio

from .rates import Rates

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Headers: TypeAlias = Iterable[tuple[bytes, bytes]]
#: An address block, under a key of this process: it can be compared and counted, and not be turned back.
Peer: TypeAlias = bytes

#: What one subscriber of IPv6 has at least (RFC 6177); in IPv4 it is the address.
_IPV6_BLOCK_BYTES: Final = 8
_PEER_BYTES: Final = 8
_FORWARDED_FOR: Final = b"x-forwarded-for"
#: Headers in which proxies put addresses. No handler sees them.
_NAMES: Final = frozenset({_FORWARDED_FOR, b"forwarded", b"x-real-ip"})


@dataclass(frozen=True, slots=True)
class Source:
    """Where a connection comes from. Without `peer` it is not one client's: this machine, or a proxy's own address."""

    peer: Peer | None
    is_trusted_proxy: bool = False


class Addresses:
    """Turns addresses into Peers. What proxies say counts only of those in `trusted`."""

    def __init__(self, trusted: Iterable[Network] = ()) -> None:
        self._trusted = tuple(trusted)
        self._key = os.urandom(blake2b.MAX_KEY_SIZE)

    def source_of(self, stream: trio.abc.Stream) -> Source:
        """The other end of a socket. Raises OSError if it is gone already."""
        inner = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        if not isinstance(inner, trio.SocketStream):
            return Source(None)
        name = inner.socket.getpeername()
        return self.source_at(name[0] if isinstance(name, tuple) else "")

    def source_at(self, host: str) -> Source:
        """The same from an address as a socket names it; "" where there is none, such as of a Unix socket."""
        address = _parse(host)
        if address is None:
            return Source(None)
        if self._is_trusted(address):
            return Source(None, is_trusted_proxy=True)
        return Source(None if address.is_loopback else self._peer(address))

    def forwarded(self, headers: Headers) -> Peer | None:
        """Whom a trusted proxy speaks for: the last address in X-Forwarded-For that is no trusted proxy itself.

        What stands before it was said by a stranger. None if there is no such address, or it is malformed.
        """
        values = [value for name, value in headers if name.lower() == _FORWARDED_FOR]
        for entry in reversed(b",".join(values).decode("latin-1").split(",")):
            address = _parse(entry.strip())
            if address is None:
                return None
            if not self._is_trusted(address):
                return self._peer(address)
        return None

    def _is_trusted(self, address: _Address) -> bool:
        return any(address in network for network in self._trusted)

    def _peer(self, address: _Address) -> Peer:
        block = address.packed if address.version == 4 else address.packed[:_IPV6_BLOCK_BYTES]
        return blake2b(block, digest_size=_PEER_BYTES, key=self._key).digest()


def without_addresses(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers that name no address."""
    return [(name, value) for name, value in headers if name.lower() not in _NAMES]


def _parse(text: str) -> _Address | None:
    """None if it is no address. An IPv4 address in IPv6's clothes is an IPv4 address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


class Doors:
    """Lets in `most` connections at a time of each Peer, as fast as `rates` allows. Memory: one entry for each Peer."""

    def __init__(self, most: int, rates: Rates) -> None:
        self._most = most
        self._rates = rates
        self._inside: Counter[Peer] = Counter()

    def enter(self, peer: Peer | None) -> bool:
        """Whether one more comes in; whoever did, leaves once. Without a Peer there is no limit."""
        if peer is None:
            return True
        if self._inside[peer] >= self._most or self._rates.take(peer):
            return False
        self._inside[peer] += 1
        return True

    def leave(self, peer: Peer | None) -> None:
        """One that came in has gone."""
        if peer is None:
            return
        self._inside[peer] -= 1
        if not self._inside[peer]:
            del self._inside[peer]
