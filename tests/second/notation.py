"""notation.md and labels.md: hashes, key derivation, labels, strict reading. No keys and no rules of a construction."""

import hashlib
import hmac as standard_hmac
import ipaddress
import re

from .refusal import RefusedError

_NAME = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::([1-9][0-9]{0,4}))?", re.ASCII)
_DEFAULT_PORT = {"https": "443", "http": "80"}


def label(name: str) -> bytes:
    """`L(name)`."""
    text = f"Sottovoce v1 {name}".encode("ascii")
    return len(text).to_bytes(1, "big") + text


def sha256(data: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


def hmac(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA-256."""
    return standard_hmac.new(key, message, hashlib.sha256).digest()


def hkdf_expand(key: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 §2.3."""
    output, block = b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac(key, block + info + bytes([counter]))
        output += block
    return output[:length]


def hkdf(salt: bytes, key_material: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869."""
    return hkdf_expand(hmac(salt, key_material), info, length)


def fields(data: bytes, lengths: tuple[int, ...], reason: str) -> list[bytes]:
    """`data` cut into pieces of these lengths; shorter or longer data is refused."""
    if len(data) != sum(lengths):
        raise RefusedError(reason)
    pieces, at = [], 0
    for length in lengths:
        pieces.append(data[at : at + length])
        at += length
    return pieces


def number(data: bytes) -> int:
    """An unsigned big-endian number."""
    return int.from_bytes(data, "big")


def text(data: bytes, reason: str) -> str:
    """One length byte and as many ASCII characters, and nothing more."""
    if not data or len(data) != 1 + data[0] or not data.isascii():
        raise RefusedError(reason)
    return data[1:].decode("ascii")


def check_origin(origin: str, reason: str) -> None:
    """Refuse an origin that is not in its canonical form."""
    found = _ORIGIN.fullmatch(origin)
    if len(origin) > 255 or not found:
        raise RefusedError(reason)
    scheme, host, port = found.groups()
    if not _host_is_canonical(host) or (scheme == "http" and not _is_loopback(host)):
        raise RefusedError(reason)
    if port and (int(port) > 65535 or port == _DEFAULT_PORT[scheme]):
        raise RefusedError(reason)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.IPv6Address(host[1:-1]) if host.startswith("[") else ipaddress.IPv4Address(host)
    except ValueError:
        return None


def _host_is_canonical(host: str) -> bool:
    address = _address(host)
    if isinstance(address, ipaddress.IPv6Address):
        return host == f"[{address}]"
    return address is not None or (len(host) <= 253 and _NAME.fullmatch(host) is not None)


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback
