"""Vectors of sender-keys.md: membership hashes, distributions, what a member reads of another device's chain, its
table of tags, the stored forms of both."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sottovoce.crypto.errors import Reason
from sottovoce.crypto.primitives import SigningKey
from sottovoce.crypto.sender_key import membership_hash
from sottovoce_wire import padding
from sottovoce_wire.ids import AccountId, GroupId
from tests.second import sender_keys as second
from tests.second import stored
from tests.second.message import seal, silent, tag
from tests.second.ratchet_keys import walk
from tests.vectors.form import Value

from .build import HEX, HEX_LIST, NUMBER, Construction, Group, Test, Type, invalid, valid
from .cast import ALICE, BOB, MALLORY, NOW, flipped, stream
from .keys import ED25519_SMALL

#: A member is its account id (32) ‖ role (1).
MEMBERSHIP = Type("membershipHash", {"groupId": HEX}, {"epoch": NUMBER, "members": HEX_LIST}, {"membershipHash": HEX})
DISTRIBUTION = Type(
    "distribution",
    {"deviceId": HEX},
    {"distribution": HEX},
    {"chainId": HEX, "groupId": HEX, "epoch": NUMBER, "tags": HEX_LIST},
)
#: `memberships` holds what the receiver's log says: epoch (4) ‖ membership hash (32). `history` was read before.
GROUP_MESSAGE = Type(
    "groupMessage",
    {"deviceId": HEX, "distribution": HEX, "memberships": HEX_LIST},
    {"history": HEX_LIST, "message": HEX, "number": NUMBER, "ephemeral": NUMBER},
    {"content": HEX},
)

#: `tables` are hashes of the table of tags at the beginning and after each message.
GROUP_TAGS = Type(
    "groupTags",
    {"memberships": HEX_LIST},
    {"state": HEX, "history": HEX_LIST},
    {"tables": HEX_LIST, "tags": HEX_LIST, "packed": HEX},
)
#: An ephemeral message is written, then one in order, with these nonces.
OWN_STATE = Type(
    "ownSenderKey",
    {"membershipHash": HEX, "content": HEX, "nonces": HEX_LIST},
    {"state": HEX, "epoch": NUMBER},
    {"ephemeral": HEX, "message": HEX, "distribution": HEX, "packed": HEX},
)
PEER_STATE = Type("peerSenderKey", {}, {"state": HEX}, {"chainId": HEX, "tags": HEX_LIST, "packed": HEX})

_GROUP: Final = GroupId(stream("group"))
_SIGNER: Final = SigningKey(stream("Alice, group signing key"))
_EPOCH: Final = 5
_FIRST: Final = 3


def _members(*members: tuple[AccountId, int]) -> list[bytes]:
    return [account + bytes([role]) for account, role in members]


def _hash(epoch: int) -> bytes:
    return membership_hash(_GROUP, epoch, [(ALICE.account, 2), (BOB.account, epoch % 2)])


def _membership() -> Group:
    alice, bob, mallory = (ALICE.account, 2), (BOB.account, 0), (MALLORY.account, 0)
    twice = Reason.BAD_RECORD
    tests = [
        valid("three members", epoch=1, members=_members(alice, bob, mallory)),
        valid("in another order: the same", epoch=1, members=_members(mallory, alice, bob)),
        valid("nobody", "Boundary", epoch=0, members=[]),
        invalid(twice, "an account with two roles", "Forgery", epoch=1, members=_members(alice, (ALICE.account, 0))),
        invalid(twice, "an account twice", "Forgery", epoch=1, members=_members(bob, alice, bob)),
    ]
    return Group(MEMBERSHIP, tests, {"groupId": _GROUP})


def _distribution(*, signing_key: bytes = _SIGNER.public, n: int = _FIRST, w: int = 0) -> bytes:
    secret = stream("group, route secret")
    chain = stream("group, CK") + n.to_bytes(4, "big") + stream("group, ECK") + w.to_bytes(4, "big")
    return _GROUP + _EPOCH.to_bytes(4, "big") + signing_key + secret + chain


def _distributions() -> Group:
    good = _distribution()
    malformed = {
        "171 bytes": good[:-1],
        "173 bytes": good + b"\x00",
        "no bytes": b"",
        "n beyond the end": _distribution(n=2**20 + 1),
        "w beyond the end": _distribution(w=25_001),
    }
    tests = [
        valid("a chain from its fourth message on", distribution=good),
        valid("before its last messages", "Boundary", distribution=_distribution(n=2**20 - 1, w=24_999)),
        valid("at its end", "Boundary", distribution=_distribution(n=2**20, w=25_000)),
        valid("another signing key: other tags", distribution=_distribution(signing_key=MALLORY.device.signing_public)),
        *(invalid(Reason.MALFORMED, c, "Encoding", distribution=d) for c, d in malformed.items()),
    ]
    for name, y in ED25519_SMALL.items():
        weak = _distribution(signing_key=y.to_bytes(32, "little"))
        tests.append(invalid(Reason.BAD_KEY, f"a signing key of {name}", "InvalidKey", distribution=weak))
    return Group(DISTRIBUTION, tests, {"deviceId": ALICE.device.device_id})


_CHAIN: Final = second.accept(_distribution(), ALICE.device.device_id)


def _write(
    n: int,
    *,
    w: int = 0,
    kind: int = 0,
    epoch: int = _EPOCH,
    header: bytes | None = None,
    signer: SigningKey = _SIGNER,
    membership: bytes | None = None,
    signed: tuple[int, int, int] | None = None,
    signed_kind: int | None = None,
    signed_r: bytes | None = None,
    signature: bytes | None = None,
    padded: bytes | None = None,
    tag_number: int | None = None,
) -> bytes:
    """Message n of Alice's chain; whatever is given goes in the place of what belongs there."""
    content = f"message {n} to all".encode()
    r = stream(f"r of the group's {n}, {kind}", 12)
    key = _CHAIN.ephemeral_key if kind else _CHAIN.key
    message_key = walk(key, min(n - (0 if kind else _FIRST), 3000))[0]
    start = tag(_CHAIN.route, n if tag_number is None else tag_number, is_ephemeral=bool(kind))
    said = second.statement(
        _CHAIN,
        _hash(epoch) if membership is None else membership,
        signed or (epoch, n, w),
        kind if signed_kind is None else signed_kind,
        signed_r or r,
        content,
    )
    body = padding.pad((signature or signer.sign(said)) + content) if padded is None else padded
    return seal(_CHAIN.route, message_key, start, r, header or _header(n, w=w, epoch=epoch), _CHAIN.id, body)


def _header(n: int, *, w: int = 0, epoch: int = _EPOCH, chain_id: bytes | None = None) -> bytes:
    return (chain_id or _CHAIN.id) + b"".join(value.to_bytes(4, "big") for value in (epoch, n, w))


def _fields(n: int, message: bytes | None = None, *history: bytes, kind: int = 0) -> dict[str, Value]:
    written = _write(n, kind=kind) if message is None else message
    return {"history": list(history), "message": written, "number": n, "ephemeral": kind}


def _read() -> list[Test]:
    m = {n: _write(n) for n in range(3, 7)}
    e = {n: _write(n, kind=1) for n in range(3)}
    caught_up = _write(4, w=20)
    return [
        valid("the first message", **_fields(3)),
        valid("the next", **_fields(4, None, m[3])),
        valid("one that others were overtaken by", **_fields(6)),
        valid("an overtaken one", **_fields(4, None, m[6])),
        valid("far ahead", "Boundary", **_fields(1003)),
        valid("in a later epoch", **_fields(3, _write(3, epoch=6))),
        valid("an ephemeral message", **_fields(0, None, kind=1)),
        valid("the last in the window", "Boundary", **_fields(7, None, kind=1)),
        valid("an ephemeral message after others", **_fields(2, None, e[0], m[3], kind=1)),
        valid("an ephemeral message that one in order caught up with", **_fields(22, None, m[3], caught_up, kind=1)),
    ]


def _forged() -> list[Test]:
    """By fellow members, who have all keys but the signing key."""
    bad = Reason.BAD_SIGNATURE
    good = second.decrypt(_CHAIN, _write(3), 3, {_EPOCH: _hash(_EPOCH)}, is_ephemeral=False)[0]
    other = SigningKey(stream("Mallory, group signing key"))
    written = {
        "signed by another member": _write(3, signer=other),
        "with the signature of another message": _write(3, signed=(_EPOCH, 4, 0)),
        "signed for another nonce": _write(3, signed_r=bytes(12)),
        "signed for another w": _write(3, signed=(_EPOCH, 3, 8)),
        "signed for an earlier epoch": _write(3, epoch=6, signed=(_EPOCH, 3, 0)),
        "signed for an ephemeral message": _write(3, signed_kind=1),
        "signed under other members": _write(3, membership=stream("other members")),
        "without a signature": _write(3, padded=padding.pad(good)),
        "with half a signature": _write(3, padded=padding.pad(bytes(32))),
        "with a signature of zeros": _write(3, signature=bytes(64)),
    }
    as_ephemeral = _write(0, kind=1, signed_kind=0)
    return [
        *(invalid(bad, comment, "Forgery", **_fields(3, message)) for comment, message in written.items()),
        invalid(bad, "an ephemeral message signed for one in order", "Forgery", **_fields(0, as_ephemeral, kind=1)),
    ]


def _refused() -> list[Test]:
    good, later = _write(3), _write(4)
    malformed, ended, epoch = Reason.MALFORMED, Reason.CHAIN_ENDED, Reason.WRONG_EPOCH
    used, far = Reason.ALREADY_USED, Reason.TOO_FAR_AHEAD
    places = {"tag": 1, "header": 21, "body": 81, "body's tag": -1}
    foreign = _write(3, header=_header(3, chain_id=stream("another chain")))
    with_w = _write(0, kind=1, header=_header(0, w=1))
    return [
        *(
            invalid(Reason.NOT_AUTHENTIC, f"changed in the {place}", "ChangedBytes", **_fields(3, flipped(good, at)))
            for place, at in places.items()
        ),
        invalid(malformed, "of another kind", "Encoding", **_fields(3, b"\x02" + good[1:])),
        invalid(malformed, "352 bytes", "Boundary", **_fields(3, good[:352])),
        invalid(malformed, "another number than announced", "Misplaced", **_fields(4, _write(3, tag_number=4))),
        invalid(malformed, "of another chain", "Misplaced", **_fields(3, foreign)),
        invalid(malformed, "an ephemeral message that names w", "Encoding", **_fields(0, with_w, kind=1)),
        invalid(malformed, "padding without a mark", "Encoding", **_fields(3, _write(3, padded=b"\x01" * 256))),
        invalid(ended, "a number beyond the end", "Boundary", **_fields(2**20, _write(2**20))),
        invalid(
            ended, "an ephemeral number beyond the end", "Boundary", **_fields(25_000, _write(25_000, kind=1), kind=1)
        ),
        invalid(ended, "w beyond the end", "Boundary", **_fields(3, _write(3, w=25_001))),
        invalid(epoch, "an epoch before the chain's", "Misplaced", **_fields(3, _write(3, epoch=4))),
        invalid(epoch, "an epoch that the receiver does not know", "Misplaced", **_fields(3, _write(3, epoch=7))),
        invalid(far, "25,001 steps ahead", "Boundary", **_fields(25_004)),
        invalid(far, "an ephemeral message beyond the window", "Boundary", **_fields(8, None, kind=1)),
        invalid(used, "a number used before", "Misplaced", **_fields(3, good, good)),
        invalid(used, "a kept key used before", "Misplaced", **_fields(3, good, later, good)),
        invalid(
            used,
            "a number before the distribution",
            "Misplaced",
            **_fields(2, _write(3, header=_header(2), tag_number=2)),
        ),
        invalid(used, "an ephemeral number used before", "Misplaced", **_fields(0, None, _write(0, kind=1), kind=1)),
        invalid(
            used,
            "an ephemeral message that was caught up with",
            "Misplaced",
            **_fields(1, None, _write(3, w=2), kind=1),
        ),
    ]


def _given_up() -> list[Test]:
    """2,001 messages that one has overtaken: the newest 2,000 keys are kept."""
    far = _write(_FIRST + 2_001)
    return [
        valid("the first of 2,000 that were overtaken", "Boundary", **_fields(_FIRST + 1, None, far)),
        invalid(Reason.ALREADY_USED, "the first of 2,001", "Boundary", **_fields(_FIRST, None, far)),
    ]


def _messages() -> Group:
    known = [epoch.to_bytes(4, "big") + _hash(epoch) for epoch in (4, 5, 6)]
    shared: dict[str, Value] = {
        "deviceId": ALICE.device.device_id,
        "distribution": _distribution(),
        "memberships": known,
    }
    return Group(GROUP_MESSAGE, [*_read(), *_forged(), *_refused(), *_given_up()], shared)


# --- Tables of tags, stored states ------------------------------------------------------------------------------


def _own(*, n: int = 0, w: int = 0, epoch: int = _EPOCH) -> second.OwnChain:
    """Alice's own chain, as it is stored."""
    chain = replace(_CHAIN, epoch=epoch, next=n, ephemeral_next=w)
    return second.OwnChain(chain, NOW, _SIGNER.seed, w)


def _said(n: int, w: int, kinds: str) -> list[bytes]:
    """What Alice writes from there on: `m` in order, `e` ephemeral."""
    own, written = _own(n=n, w=w), []
    for at, kind in enumerate(kinds):
        write = second.encrypt if kind == "m" else second.encrypt_ephemeral
        r = stream(f"r of the group's {at}th from {n}", 12)
        message, own = write(own, _EPOCH, _hash(_EPOCH), b"to all", r)
        written.append(message)
    return written


def _read_from(n: int, w: int, kinds: str, *order: int, ahead: int | None = None) -> dict[str, Value]:
    """A member that reads some of it, in this order."""
    peer = replace(_CHAIN, next=n, ahead=silent(n) if ahead is None else ahead, ephemeral_next=w)
    written = _said(n, w, kinds)
    return {"state": stored.pack_peer(peer), "history": [written[index] for index in order]}


def _tables() -> Group:
    last, typed = 2**20, 25_000
    many = "m" * 45
    tests = [
        valid("before anything came", **_read_from(0, 0, "")),
        valid("in order, from the beginning", **_read_from(0, 0, "m" * 12, *range(12))),
        valid("in order, from the middle of a chain", **_read_from(700, 0, "m" * 12, *range(12))),
        valid("a gap, filled in part", **_read_from(3, 0, many, 5, 2, 0, 6, 7)),
        valid("beyond the window, and back", **_read_from(3, 0, many, 0, 44, 20, 1, 43)),
        valid("a gap in a window that has grown", **_read_from(3, 0, many, *range(6), 9, 10, 7)),
        valid("ephemeral messages, some passed", **_read_from(3, 0, "eeee" + "mm" + "ee", 0, 3, 4, 7, 5)),
        valid("ephemeral messages that were missed", **_read_from(3, 0, "m" + "e" * 30 + "me", 0, 31, 32)),
        valid("some of the window missed", **_read_from(3, 0, "m" + "e" * 5 + "me", 0, 1, 6, 7)),
        valid(
            "missed, and the one that says so comes late", **_read_from(3, 0, "m" + "e" * 20 + "mmme", 0, 22, 21, 24)
        ),
        valid("ephemeral messages that overtook", **_read_from(3, 0, "mmmeeme", 0, 3, 4, 2, 6, 1)),
        valid("up to the end", "Boundary", **_read_from(last - 3, 0, "mmm", 0, 1, 2)),
        valid("the end, out of order", "Boundary", **_read_from(last - 12, 0, "m" * 12, 1, 4, 5, 7, 9, 11, 0, 10)),
        valid("no tag beyond the end", "Boundary", **_read_from(last - 10, 0, "m" * 10, 2, 0, 9, ahead=last)),
        valid("the end of the ephemeral chain", "Boundary", **_read_from(3, typed - 2, "eem", 0, 1, 2)),
    ]
    return Group(GROUP_TAGS, tests, {"memberships": [_EPOCH.to_bytes(4, "big") + _hash(_EPOCH)]})


def _writes(state: bytes, *, epoch: int = _EPOCH) -> dict[str, Value]:
    return {"state": state, "epoch": epoch}


def _lengths_and_versions(state: bytes) -> dict[str, bytes]:
    """What no reader takes for a stored state."""
    return {
        "no bytes": b"",
        "the version alone": state[:1],
        "cut short": state[:-1],
        "one byte more": state + b"\x00",
        **{f"version {version}": bytes([version]) + state[1:] for version in (0, 2, 255)},
    }


def _own_states() -> Group:
    state = stored.pack_own(_own(n=3, w=9))
    last = stored.pack_own(_own(n=2**20 - 1, w=24_999))
    ended, typed = stored.pack_own(_own(n=2**20)), stored.pack_own(_own(w=25_000))
    tests = [
        valid("in use", **_writes(state)),
        valid("at the beginning", **_writes(stored.pack_own(_own()))),
        valid("in a later epoch", **_writes(state, epoch=9)),
        valid("before the last message of each kind", "Boundary", **_writes(last)),
        invalid(Reason.CHAIN_ENDED, "after the last message", "Boundary", **_writes(ended)),
        invalid(Reason.CHAIN_ENDED, "after the last ephemeral message", "Boundary", **_writes(typed)),
        invalid(Reason.WRONG_EPOCH, "in an epoch before the chain's", "Misplaced", **_writes(state, epoch=_EPOCH - 1)),
        *(
            invalid(Reason.BAD_RECORD, comment, "Encoding", **_writes(bad))
            for comment, bad in _lengths_and_versions(state).items()
        ),
        invalid(Reason.BAD_RECORD, "another's chain", "Misplaced", **_writes(stored.pack_peer(_CHAIN))),
    ]
    shared: dict[str, Value] = {
        "membershipHash": _hash(_EPOCH),
        "content": b"to all",
        "nonces": [stream("r of an ephemeral one", 12), stream("r of one in order", 12)],
    }
    return Group(OWN_STATE, tests, shared)


def _peer_states() -> Group:
    state = stored.pack_peer(_CHAIN)
    used = replace(_CHAIN, next=40, ahead=72, ephemeral_next=16)
    ended = replace(_CHAIN, next=2**20, ahead=2**20, ephemeral_next=25_000)
    at = 1 + 32 + 16 + 4
    weak = {name: state[:at] + y.to_bytes(32, "little") + state[at + 32 :] for name, y in ED25519_SMALL.items()}
    tests = [
        valid("as it was handed over", state=state),
        valid("in use", state=stored.pack_peer(used)),
        valid("at its end", "Boundary", state=stored.pack_peer(ended)),
        *(
            invalid(Reason.BAD_RECORD, comment, "Encoding", state=bad)
            for comment, bad in _lengths_and_versions(state).items()
        ),
        invalid(Reason.BAD_RECORD, "one's own chain", "Misplaced", state=stored.pack_own(_own())),
        *(invalid(Reason.BAD_KEY, f"a signing key of {name}", "InvalidKey", state=bad) for name, bad in weak.items()),
    ]
    return Group(PEER_STATE, tests)


def _groups() -> Sequence[Group]:
    return [_membership(), _distributions(), _messages(), _tables(), _own_states(), _peer_states()]


SENDER_KEYS = Construction(
    "sender_keys",
    "Sender keys: a member's view, tables of tags, stored states",
    [MEMBERSHIP, DISTRIBUTION, GROUP_MESSAGE, GROUP_TAGS, OWN_STATE, PEER_STATE],
    _groups,
)
