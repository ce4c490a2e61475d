"""sender-keys.md: membership hash, distribution, a device's own chain and what a member reads of another's."""

from dataclasses import dataclass, field, replace
from functools import cached_property

from . import keys, padding
from .message import END, Announced, Route, check_layout, moved, open_body, open_header, seal, silent, tag, window
from .notation import fields, hkdf, hmac, label, number, sha256
from .refusal import RefusedError

_MOST_STEPS, _MOST_EPHEMERAL, _MAX_KEPT, _WINDOW, _RESERVE = 25_000, 25_000, 2_000, 8, 8


def membership_hash(group_id: bytes, epoch: int, members: list[tuple[bytes, int]]) -> bytes:
    """The hash of an epoch's members, (account id, role) each."""
    ordered = sorted(members)
    if len({account for account, _ in ordered}) != len(ordered):
        raise RefusedError("bad_record")
    listed = b"".join(account + bytes([role]) for account, role in ordered)
    return sha256(label("members") + group_id + epoch.to_bytes(4, "big") + listed)


@dataclass(frozen=True)
class PeerChain:
    """A fellow member's chain."""

    group: bytes
    device: bytes
    epoch: int
    signing_key: bytes
    route_secret: bytes
    key: bytes
    next: int
    ahead: int
    ephemeral_key: bytes
    ephemeral_next: int
    kept: dict[int, bytes] = field(default_factory=dict)

    @property
    def id(self) -> bytes:
        """The chain id."""
        return sha256(label("group chain") + self.group + self.device + self.signing_key)

    @cached_property
    def route(self) -> Route:
        """HK and TK."""
        keys = hkdf(bytes(32), self.route_secret, label("group route") + self.id, 64)
        return Route(keys[:32], keys[32:])


def accept(distribution: bytes, device: bytes) -> PeerChain:
    """The chain of a distribution that came by a session of `device`."""
    group, epoch, signing_key, secret, ck, n, eck, w = fields(distribution, (32, 4, 32, 32, 32, 4, 32, 4), "malformed")
    if number(n) > END or number(w) > _MOST_EPHEMERAL:
        raise RefusedError("malformed")
    keys.check_signing_key(signing_key)
    return PeerChain(
        group, device, number(epoch), signing_key, secret, ck, number(n), silent(number(n)), eck, number(w)
    )


@dataclass(frozen=True)
class _Header:
    chain_id: bytes
    epoch: int
    n: int
    w: int


def _opened_header(chain: PeerChain, message: bytes, announced: int, *, is_ephemeral: bool) -> _Header:
    chain_id, *numbers = fields(open_header(chain.route.header_key, message), (32, 4, 4, 4), "malformed")
    header = _Header(chain_id, *(number(value) for value in numbers))
    if header.chain_id != chain.id or header.n != announced:
        raise RefusedError("malformed")
    if header.n >= (_MOST_EPHEMERAL if is_ephemeral else END) or header.w > _MOST_EPHEMERAL:
        raise RefusedError("chain_ended")
    if is_ephemeral and header.w:
        raise RefusedError("malformed")
    return header


def statement(
    chain: PeerChain, membership: bytes, numbers: tuple[int, int, int], kind: int, r: bytes, c: bytes
) -> bytes:
    """What is signed over content `c`; `numbers` are epoch, n and w."""
    epoch, n, w = (value.to_bytes(4, "big") for value in numbers)
    who = label("group message") + chain.group + epoch + membership + chain.device
    return who + bytes([kind]) + n + w + r + sha256(c)


def _content(chain: PeerChain, message: bytes, key: bytes, header: _Header, membership: bytes, kind: int) -> bytes:
    r, body = message[9:21], open_body(key, message, chain.id)
    numbers = (header.epoch, header.n, header.w)
    keys.verify(chain.signing_key, statement(chain, membership, numbers, kind, r, body[64:]), body[:64])
    return body[64:]


def _walked(key: bytes, steps: int) -> tuple[bytes, list[bytes]]:
    """The chain key so many steps on, and the message keys passed."""
    passed = []
    for _ in range(steps):
        passed.append(hmac(key, b"\x01"))
        key = hmac(key, b"\x02")
    return key, passed


def expected(chain: PeerChain) -> dict[bytes, Announced]:
    """The table of tags."""
    ephemeral = range(chain.ephemeral_next, chain.ephemeral_next + _WINDOW)
    table = window(chain.route, 1, range(chain.next, chain.ahead))
    table |= window(chain.route, 1, ephemeral, is_ephemeral=True)
    return table | {tag(chain.route, n): Announced(1, n, False) for n in chain.kept}


def find(chain: PeerChain, message: bytes) -> tuple[int, bool]:
    """(number, whether it is ephemeral) of a message, by its header and its tag."""
    check_layout(message)
    header = open_header(chain.route.header_key, message)
    if header[:32] != chain.id:
        raise RefusedError("not_authentic")
    n = number(header[36:40])
    for is_ephemeral in (False, True):
        if tag(chain.route, n, is_ephemeral=is_ephemeral) == message[1:9]:
            return n, is_ephemeral
    raise RefusedError("not_authentic")


def decrypt(
    chain: PeerChain, message: bytes, announced: int, memberships: dict[int, bytes], *, is_ephemeral: bool
) -> tuple[bytes, PeerChain]:
    """(content, the chain afterwards)."""
    check_layout(message)
    header = _opened_header(chain, message, announced, is_ephemeral=is_ephemeral)
    if header.epoch < chain.epoch or header.epoch not in memberships:
        raise RefusedError("wrong_epoch")
    membership = memberships[header.epoch]
    if is_ephemeral:
        return _ephemeral(chain, message, header, membership)
    if header.n < chain.next:
        if header.n not in chain.kept:
            raise RefusedError("already_used")
        content = _content(chain, message, chain.kept[header.n], header, membership, 0)
        return content, replace(chain, kept={n: key for n, key in chain.kept.items() if n != header.n})
    if header.n - chain.next > _MOST_STEPS:
        raise RefusedError("too_far_ahead")
    key, passed = _walked(chain.key, header.n - chain.next)
    content = _content(chain, message, hmac(key, b"\x01"), header, membership, 0)
    behind = max(header.w - chain.ephemeral_next, 0)
    following, ahead = moved(chain.next, chain.ahead, header.n, begins=False)
    newest = dict(list(enumerate(passed, chain.next))[-_MAX_KEPT:])
    return content, replace(
        chain,
        key=hmac(key, b"\x02"),
        next=following,
        ahead=ahead,
        ephemeral_key=_walked(chain.ephemeral_key, behind)[0],
        ephemeral_next=chain.ephemeral_next + behind,
        kept=chain.kept | newest,
    )


def _ephemeral(chain: PeerChain, message: bytes, header: _Header, membership: bytes) -> tuple[bytes, PeerChain]:
    steps = header.n - chain.ephemeral_next
    if not 0 <= steps < _WINDOW:
        raise RefusedError("already_used" if steps < 0 else "too_far_ahead")
    key, _ = _walked(chain.ephemeral_key, steps)
    content = _content(chain, message, hmac(key, b"\x01"), header, membership, 1)
    return content, replace(chain, ephemeral_key=hmac(key, b"\x02"), ephemeral_next=header.n + 1)


# --- Sending ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OwnChain:
    """A device's own chain: what others read of it, and what only the device has. `stored` is w as it is written."""

    chain: PeerChain
    begun: int
    seed: bytes
    stored: int

    def stored_ephemeral_key(self) -> bytes:
        """ECK at the stored number."""
        return _walked(self.chain.ephemeral_key, self.stored - self.chain.ephemeral_next)[0]


def distribution(own: OwnChain) -> bytes:
    """What a fellow member's device is handed now."""
    chain = own.chain
    head = chain.group + chain.epoch.to_bytes(4, "big") + chain.signing_key + chain.route_secret
    n, w = (value.to_bytes(4, "big") for value in (chain.next, chain.ephemeral_next))
    return head + chain.key + n + chain.ephemeral_key + w


def encrypt(own: OwnChain, epoch: int, membership: bytes, content: bytes, r: bytes) -> tuple[bytes, OwnChain]:
    """(message, the chain afterwards)."""
    chain = own.chain
    if chain.next >= END:
        raise RefusedError("chain_ended")
    message = _written(own, chain.key, (epoch, chain.next, chain.ephemeral_next), membership, content, r, 0)
    return message, replace(own, chain=replace(chain, key=hmac(chain.key, b"\x02"), next=chain.next + 1))


def encrypt_ephemeral(own: OwnChain, epoch: int, membership: bytes, content: bytes, r: bytes) -> tuple[bytes, OwnChain]:
    """(ephemeral message, the chain afterwards)."""
    chain = own.chain
    if chain.ephemeral_next >= _MOST_EPHEMERAL:
        raise RefusedError("chain_ended")
    message = _written(own, chain.ephemeral_key, (epoch, chain.ephemeral_next, 0), membership, content, r, 1)
    stored = own.stored + _RESERVE if chain.ephemeral_next == own.stored else own.stored
    following = chain.ephemeral_next + 1
    moved_on = replace(chain, ephemeral_key=hmac(chain.ephemeral_key, b"\x02"), ephemeral_next=following)
    return message, replace(own, chain=moved_on, stored=stored)


def _written(
    own: OwnChain, key: bytes, numbers: tuple[int, int, int], membership: bytes, content: bytes, r: bytes, kind: int
) -> bytes:
    chain = own.chain
    if numbers[0] < chain.epoch:
        raise RefusedError("wrong_epoch")
    signature = keys.sign(own.seed, statement(chain, membership, numbers, kind, r, content))
    header = chain.id + b"".join(value.to_bytes(4, "big") for value in numbers)
    start = tag(chain.route, numbers[1], is_ephemeral=bool(kind))
    return seal(chain.route, hmac(key, b"\x01"), start, r, header, chain.id, padding.pad(signature + content))
