"""ratchet.md: both sides of a session, sending and receiving, with the post-quantum part mixed in. No stored form.

State changes by replacement of the whole session: what is refused leaves the old one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from . import keys, padding, pq
from .agreement import SessionKeys
from .message import END, Announced, Route, check_layout, moved, open_body, open_header, seal, tag, window
from .notation import hmac, number
from .ratchet_keys import root_step
from .refusal import RefusedError

_MAX_STEPS, _MAX_KEPT, _WINDOW, _RESERVE = 25_000, 2_000, 8, 8


class Drawn(NamedTuple):
    """What is random otherwise: r, and what a step may need besides."""

    nonce: bytes = b""
    ratchet_secret: bytes = b""
    kem_seed: bytes = b""
    kem_coins: bytes = b""


@dataclass(frozen=True)
class Ephemeral:
    """The ephemeral chain beside a sending chain. `stored` is the number that is written for it."""

    route: Route
    own_public: bytes
    previous: int
    epoch: int
    key: bytes
    next: int = 0
    stored: int = 0


@dataclass(frozen=True)
class Unanswered:
    """B before it opened anything."""

    secret: bytes


@dataclass(frozen=True)
class StepDue:
    """The next message begins a chain."""

    peer_key: bytes
    previous: int
    ephemeral: Ephemeral | None


@dataclass(frozen=True)
class Sending:
    """A chain of one's own."""

    secret: bytes
    key: bytes
    n: int
    ephemeral: Ephemeral


@dataclass(frozen=True)
class Receiving:
    """The peer's present chain."""

    index: int
    ratchet_key: bytes
    previous: int
    epoch: int
    route: Route
    key: bytes
    next: int
    ahead: int
    ephemeral_key: bytes
    ephemeral_next: int


class Kept(NamedTuple):
    """What is kept of a skipped message, besides its place."""

    tag: bytes
    header_key: bytes
    message_key: bytes


KeptKeys = Mapping[tuple[int, int], Kept]


@dataclass(frozen=True)
class Session:
    """One side of a session."""

    session_id: bytes
    root_key: bytes
    next_sending: Route
    next_receiving: Route
    sending: Unanswered | StepDue | Sending
    pq: pq.State
    receiving: Receiving | None = None
    epoch: int = 0
    messages: int = 0
    kept: KeptKeys = field(default_factory=dict)

    @property
    def seen(self) -> int:
        """How many of the peer's chains were seen."""
        return self.receiving.index if self.receiving else 0


def initiator(found: SessionKeys, peer_key: bytes, now: int) -> Session:
    """A at the beginning; `peer_key` is SPK_B."""
    own, peer = _routes(found)
    return Session(found.session_id, found.root_key, own, peer, StepDue(peer_key, 0, None), pq.Resting(now))


def responder(found: SessionKeys, signed_prekey: bytes) -> Session:
    """B at the beginning; `signed_prekey` is the secret of SPK_B."""
    peer, own = _routes(found)
    return Session(found.session_id, found.root_key, own, peer, Unanswered(signed_prekey), pq.Waiting({}))


def _routes(found: SessionKeys) -> tuple[Route, Route]:
    return Route(found.header_key_a, found.tag_key_a), Route(found.header_key_b, found.tag_key_b)


# --- Sending ----------------------------------------------------------------------------------------------------


def encrypt(session: Session, body: bytes, now: int, drawn: Drawn) -> tuple[bytes, Session]:
    """(message, the session afterwards)."""
    if isinstance(session.sending, Unanswered):
        raise RefusedError("nothing_received")
    if isinstance(session.sending, StepDue):
        session = sending_half(session, session.sending, now, drawn.ratchet_secret)
    chain = session.sending
    assert isinstance(chain, Sending)
    if chain.n >= END:
        raise RefusedError("chain_ended")
    carried, state = pq.give(session.pq, session.epoch, session.messages, len(body), now, drawn.kem_seed)
    message_key = hmac(chain.key, b"\x01")
    message = _sealed(session, chain.ephemeral, message_key, chain.n, drawn.nonce, carried + body)
    chain = replace(chain, key=hmac(chain.key, b"\x02"), n=chain.n + 1)
    return message, replace(session, sending=chain, pq=state, messages=session.messages + 1)


def sending_half(session: Session, due: StepDue, now: int, secret: bytes) -> Session:
    """The session with a chain begun, under a new ratchet key."""
    mixed, epoch, messages, state = b"", session.epoch, session.messages, session.pq
    if isinstance(state, pq.Due):
        mixed, epoch, messages, state = state.secret, epoch + 1, 0, pq.Resting(now)
    shared = keys.exchange(secret, due.peer_key)
    root_key, chain_key, hk, tk, ephemeral_key = root_step(session.root_key, shared, mixed, epoch)
    public = keys.exchange_public(secret)
    ephemeral = Ephemeral(session.next_sending, public, due.previous, epoch, ephemeral_key)
    return replace(
        session,
        root_key=root_key,
        next_sending=Route(hk, tk),
        sending=Sending(secret, chain_key, 0, ephemeral),
        pq=state,
        epoch=epoch,
        messages=messages,
    )


def _header(chain: Ephemeral, n: int) -> bytes:
    return chain.own_public + b"".join(value.to_bytes(4, "big") for value in (chain.previous, n, chain.epoch))


def _sealed(
    session: Session, chain: Ephemeral, key: bytes, n: int, r: bytes, content: bytes, *, is_ephemeral: bool = False
) -> bytes:
    start = tag(chain.route, n, is_ephemeral=is_ephemeral)
    return seal(chain.route, key, start, r, _header(chain, n), session.session_id, padding.pad(content))


def encrypt_ephemeral(session: Session, body: bytes, drawn: Drawn) -> tuple[bytes, Session]:
    """(message, the session afterwards)."""
    half = session.sending
    chain = None if isinstance(half, Unanswered) else half.ephemeral
    if chain is None or isinstance(half, Unanswered):
        raise RefusedError("nothing_sent")
    if chain.next >= END:
        raise RefusedError("chain_ended")
    content = b"\x00" + body
    key = hmac(chain.key, b"\x01")
    message = _sealed(session, chain, key, chain.next, drawn.nonce, content, is_ephemeral=True)
    stored = chain.stored + _RESERVE if chain.next == chain.stored else chain.stored
    chain = replace(chain, key=hmac(chain.key, b"\x02"), next=chain.next + 1, stored=stored)
    return message, replace(session, sending=replace(half, ephemeral=chain))


# --- Finding ----------------------------------------------------------------------------------------------------


def expected(session: Session) -> dict[bytes, Announced]:
    """The table of tags."""
    table = window(session.next_receiving, session.seen + 1, range(8))
    chain = session.receiving
    if chain:
        ephemeral = range(chain.ephemeral_next, chain.ephemeral_next + _WINDOW)
        table |= window(chain.route, chain.index, range(chain.next, chain.ahead))
        table |= window(chain.route, chain.index, ephemeral, is_ephemeral=True)
    return table | {kept.tag: Announced(*place, False) for place, kept in session.kept.items()}


def find(session: Session, message: bytes) -> Announced:
    """What a message is, by its tag or by its header."""
    check_layout(message)
    found = expected(session).get(message[1:9])
    if found:
        return found
    routes = [(session.next_receiving, session.seen + 1)]
    if session.receiving:
        routes.append((session.receiving.route, session.receiving.index))
    for route, chain in routes:
        try:
            n = number(open_header(route.header_key, message)[36:40])
        except RefusedError:
            continue
        for is_ephemeral in (False, True):
            if tag(route, n, is_ephemeral=is_ephemeral) == message[1:9] and (is_ephemeral or n < END):
                return Announced(chain, n, is_ephemeral)
    raise RefusedError("not_authentic")


# --- Receiving --------------------------------------------------------------------------------------------------


def decrypt(
    session: Session, message: bytes, announced: Announced, now: int = 0, drawn: Drawn | None = None
) -> tuple[bytes, Session]:
    """(body, the session afterwards)."""
    check_layout(message)
    c, m, is_ephemeral = announced
    coins = drawn.kem_coins if drawn else b""
    if m >= END:
        raise RefusedError("chain_ended")
    chain = session.receiving
    if c == session.seen + 1 and not is_ephemeral:
        return _receiving_half(session, message, m, now, coins)
    if chain and c == chain.index:
        _check_header(chain, open_header(chain.route.header_key, message), m)
        if is_ephemeral:
            return _ephemeral(session, chain, message, m)
        if m >= chain.next:
            return _advanced(session, chain, message, m, now, coins)
    return _late(session, message, announced, now, coins)


def _counted(session: Session, message: bytes, key: bytes, now: int, coins: bytes) -> tuple[bytes, Session]:
    """The body under a message key, its fragment taken and the message counted."""
    fragment, body = pq.split(open_body(key, message, session.session_id))
    state = pq.take(session.pq, session.epoch, fragment, now, coins)
    return body, replace(session, pq=state, messages=session.messages + 1)


def _walk(chain_key: bytes, route: Route, chain: int, span: range) -> tuple[bytes, dict[tuple[int, int], Kept]]:
    """The chain key at the end of `span`, and what is kept of the newest positions walked over."""
    kept = {}
    for n in span:
        if span.stop - n <= _MAX_KEPT:
            kept[chain, n] = Kept(tag(route, n), route.header_key, hmac(chain_key, b"\x01"))
        chain_key = hmac(chain_key, b"\x02")
    return chain_key, kept


def _check_header(chain: Receiving, header: bytes, m: int) -> None:
    numbers = b"".join(value.to_bytes(4, "big") for value in (chain.previous, m, chain.epoch))
    wanted = chain.ratchet_key + numbers
    if header[:36] + header[40:] != wanted[:36] + wanted[40:]:
        raise RefusedError("clone_suspected")
    if header != wanted:
        raise RefusedError("malformed")


def _moved(chain: Receiving, key: bytes, m: int, *, begins: bool) -> Receiving:
    """After message m, whose chain key is `key`."""
    following, ahead = moved(chain.next, chain.ahead, m, begins=begins)
    return replace(chain, key=hmac(key, b"\x02"), next=following, ahead=ahead)


def _advanced(
    session: Session, chain: Receiving, message: bytes, m: int, now: int, coins: bytes
) -> tuple[bytes, Session]:
    if m - chain.next > _MAX_STEPS:
        raise RefusedError("too_far_ahead")
    key, kept = _walk(chain.key, chain.route, chain.index, range(chain.next, m))
    body, session = _counted(session, message, hmac(key, b"\x01"), now, coins)
    chain = _moved(chain, key, m, begins=False)
    return body, replace(session, receiving=chain, kept={**session.kept, **kept})


def _secret_named(session: Session, epoch: int) -> bytes:
    """What a root step mixes for a header that names this epoch."""
    if epoch == session.epoch:
        return b""
    if epoch == session.epoch + 1 and isinstance(session.pq, pq.Answering):
        return session.pq.secret
    raise RefusedError("wrong_epoch")


def _receiving_half(session: Session, message: bytes, m: int, now: int, coins: bytes) -> tuple[bytes, Session]:
    route, known, half = session.next_receiving, session.receiving, session.sending
    header = open_header(route.header_key, message)
    ratchet_key, previous, n, epoch = header[:32], number(header[32:36]), number(header[36:40]), number(header[40:])
    if n != m:
        raise RefusedError("malformed")
    if previous > END:
        raise RefusedError("chain_ended")
    if isinstance(half, StepDue):
        raise RefusedError("not_authentic")
    mixed = _secret_named(session, epoch)
    received = known.next if known else 0
    if previous < received or (previous and not known):
        raise RefusedError("malformed")
    if previous - received + n > _MAX_STEPS:
        raise RefusedError("too_far_ahead")
    keys.check_exchange_key(ratchet_key)
    root_key, chain_key, hk, tk, ephemeral_key = root_step(
        session.root_key, keys.exchange(half.secret, ratchet_key), mixed, epoch
    )
    ended = _walk(known.key, known.route, known.index, range(received, previous))[1] if known else {}
    key, passed = _walk(chain_key, route, session.seen + 1, range(n))
    turned = replace(session, epoch=epoch, pq=pq.Waiting({}) if mixed else session.pq)
    body, turned = _counted(turned, message, hmac(key, b"\x01"), now, coins)
    chain = Receiving(session.seen + 1, ratchet_key, previous, epoch, route, chain_key, 0, 8, ephemeral_key, 0)
    newest = dict(list((ended | passed).items())[-_MAX_KEPT:])
    own = (half.n, half.ephemeral) if isinstance(half, Sending) else (0, None)
    return body, replace(
        turned,
        root_key=root_key,
        next_receiving=Route(hk, tk),
        sending=StepDue(ratchet_key, *own),
        receiving=_moved(chain, key, n, begins=True),
        kept={**session.kept, **newest},
    )


def _late(session: Session, message: bytes, announced: Announced, now: int, coins: bytes) -> tuple[bytes, Session]:
    c, m, is_ephemeral = announced
    kept = None if is_ephemeral else session.kept.get((c, m))
    if not kept:
        opened_here = session.receiving and c == session.receiving.index and not is_ephemeral
        raise RefusedError("clone_suspected" if opened_here else "already_used")
    if c != session.seen:
        header = open_header(kept.header_key, message)
        if number(header[36:40]) != m:
            raise RefusedError("malformed")
        if number(header[32:36]) > END:
            raise RefusedError("chain_ended")
    body, session = _counted(session, message, kept.message_key, now, coins)
    left = {place: rest for place, rest in session.kept.items() if place != (c, m)}
    return body, replace(session, kept=left)


def _ephemeral(session: Session, chain: Receiving, message: bytes, m: int) -> tuple[bytes, Session]:
    if m < chain.ephemeral_next:
        raise RefusedError("already_used")
    if m >= chain.ephemeral_next + _WINDOW:
        raise RefusedError("too_far_ahead")
    key, _ = _walk(chain.ephemeral_key, chain.route, chain.index, range(chain.ephemeral_next, m))
    body = pq.split(open_body(hmac(key, b"\x01"), message, session.session_id))[1]
    moved_on = replace(chain, ephemeral_key=hmac(key, b"\x02"), ephemeral_next=m + 1)
    return body, replace(session, receiving=moved_on)
