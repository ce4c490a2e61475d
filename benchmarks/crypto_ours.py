"""Sottovoce at the work of `crypto_work`: the calls that the client makes, with the table of tags kept up to date.

Writing the state down is not part of it. No shortcut into the core stands here: only what the packages publish.
"""

import os
from collections.abc import Callable, Iterable
from typing import Final

from sottovoce.crypto import agreement, sealed
from sottovoce.crypto.agreement import Handshake
from sottovoce.crypto.attachment import Encryptor
from sottovoce.crypto.identity import DeviceKeys, RootKey, make_device_list
from sottovoce.crypto.message import Expected, Window, routing_tag
from sottovoce.crypto.prekeys import OneTimePrekey, OwnPrekeys, PeerPrekeys, open_prekeys
from sottovoce.crypto.ratchet import Decrypted, Ratchet, SkippedKey
from sottovoce.crypto.sender_key import OwnSenderKey, PeerSenderKey, membership_hash
from sottovoce_wire.ids import AccountId, GroupId
from sottovoce_wire.records import NO_LIST_HASH, ListFlag

from . import crypto_work
from .crypto_work import BODY, MICROSECONDS, Counts, Figures, Group, Meeting, Pair, Side, WrongResult

_NOW: Final = 1_800_000_000
#: An attachment is read from a file and sent in pieces of this size.
_PIECE: Final = 1024 * 1024


class _Ours:
    name = "sottovoce"

    def __init__(self) -> None:
        self.works = {
            **crypto_work.sessions(_handshake),
            "set-up": _set_up,
            "reverse": _reverse,
            "group": crypto_work.group(_group),
            "seal": _seal,
            "serialise": _serialise,
            "attachment": _attachment,
        }


class _Tags:
    """What a client's table of tags and its store of skipped keys hold for one session or one member of a group."""

    def __init__(self, windows: Iterable[Window]) -> None:
        self.searches = 0
        self._windows = {tag: window for window in windows for tag in window.tags}
        self._skipped: dict[tuple[int, int], SkippedKey] = {}

    def announced(self, message: bytes, recognise: Callable[[bytes], Expected | None]) -> Expected:
        """What the message is: by its tag, or by a search."""
        tag = routing_tag(message)
        window = self._windows.get(tag)
        if window is not None:
            return window.find(tag)
        self.searches += 1
        expected = recognise(message)
        if expected is None:
            raise WrongResult("a message was not recognised")
        return expected

    def find_skipped(self, chain: int, number: int) -> SkippedKey | None:
        return self._skipped.get((chain, number))

    def keep(self, opened: Decrypted) -> None:
        _, _, skipped, used, appeared, vanished = opened
        for tag in vanished:
            self._windows.pop(tag, None)
        for window in appeared:
            for tag in window.tags:
                self._windows[tag] = window
        for key in skipped:
            self._skipped[key.chain, key.number] = key
        if used is not None:
            del self._skipped[used.chain, used.number]


class _Session:
    """One end of a session."""

    def __init__(self, ratchet: Ratchet) -> None:
        self.ratchet = ratchet
        self.tags = _Tags(ratchet.expected())

    @property
    def side(self) -> Side:
        return Side(self.encrypt, self.decrypt)

    def encrypt(self, body: bytes) -> bytes:
        return self.ratchet.encrypt(body, _NOW)

    def decrypt(self, message: bytes) -> bytes:
        tags, ratchet = self.tags, self.ratchet
        expected = tags.announced(message, ratchet.recognise)
        opened = ratchet.decrypt(message, expected, tags.find_skipped, _spend, _NOW)
        tags.keep(opened)
        return opened.body


def _spend(steps: int) -> None:
    """A peer that may walk as far as it likes."""


class _Person:
    """An account with one device and its published prekeys."""

    def __init__(self) -> None:
        self.root = RootKey.generate()
        self.device = DeviceKeys.generate()
        self.entry = self.device.consent(self.account)
        self.device_list = make_device_list(
            self.root, [self.entry], version=1, previous=NO_LIST_HASH, time=_NOW, flag=ListFlag.NORMAL
        )
        self.prekeys = OwnPrekeys.generate(self.device, self.account, 1, _NOW)

    @property
    def account(self) -> AccountId:
        return self.root.account_id

    def looked_up(self) -> PeerPrekeys:
        """The prekeys as somebody verifies them who begins a session."""
        return open_prekeys(self.entry, self.account, self.prekeys.record, _NOW)


def _begin(alice: _Person, bob: _Person, one_time: OneTimePrekey) -> tuple[PeerPrekeys, Handshake, _Session]:
    peer = bob.looked_up()
    identity = bob.device.identity_public
    handshake, keys = agreement.initiate(
        alice.device, alice.account, peer, identity, (one_time.id, one_time.public), generation=1
    )
    return peer, handshake, _Session(Ratchet.initiator(keys, peer.record.signed_prekey, _NOW))


def _answer(bob: _Person, one_time: OneTimePrekey, handshake: Handshake, message: bytes) -> _Session:
    keys = agreement.respond(bob.device, bob.account, bob.prekeys, one_time, handshake)
    session = _Session(Ratchet.responder(keys, bob.prekeys.signed_prekey, _NOW))
    crypto_work.check([session.decrypt(message)])
    return session


def _seal_first(alice: _Person, peer: PeerPrekeys, handshake: Handshake, message: bytes) -> bytes:
    return sealed.seal(peer, sealed.FirstMessage(handshake, alice.root.public, alice.device_list, message).pack())


def _open_first(bob: _Person, envelope: bytes) -> sealed.FirstMessage:
    content = sealed.open_sealed(bob.prekeys, bob.account, bob.device.device_id, envelope)
    first = sealed.FirstMessage.parse(content)
    sealed.open_sender(first)
    return first


def _sessions(alice: _Person, bob: _Person) -> tuple[_Session, _Session]:
    """Both ends of a session that both have used."""
    one_time = OneTimePrekey.generate(1)
    _, handshake, initiator = _begin(alice, bob, one_time)
    responder = _answer(bob, one_time, handshake, initiator.encrypt(BODY))
    crypto_work.check([initiator.decrypt(responder.encrypt(BODY)), responder.decrypt(initiator.encrypt(BODY))])
    return initiator, responder


def _handshake() -> Meeting:
    """As the peers set up: the prekeys verified, the keys agreed, and the first message not sealed."""
    alice, bob, one_time = _Person(), _Person(), OneTimePrekey.generate(1)

    def meet() -> Pair:
        _, handshake, initiator = _begin(alice, bob, one_time)
        responder = _answer(bob, one_time, Handshake.parse(handshake.pack()), initiator.encrypt(BODY))
        return initiator.side, responder.side

    return meet


def _sealed_handshake() -> Callable[[], object]:
    """The same as it travels: sealed, and who sent it verified before the first text is read."""
    alice, bob, one_time = _Person(), _Person(), OneTimePrekey.generate(1)

    def meet() -> _Session:
        peer, handshake, initiator = _begin(alice, bob, one_time)
        first = _open_first(bob, _seal_first(alice, peer, handshake, initiator.encrypt(BODY)))
        return _answer(bob, one_time, first.handshake, first.message)

    return meet


def _set_up(counts: Counts) -> Figures:
    return {
        "handshake_us": crypto_work.each(_handshake() for _ in range(counts.setups)),
        "setup_us": crypto_work.each(_sealed_handshake() for _ in range(counts.setups)),
    }


def _reverse(counts: Counts) -> Figures:
    """As everybody's; besides, nothing is lost, and no more than the first message is searched for."""
    initiator, responder = _sessions(_Person(), _Person())
    figures = crypto_work.reverse(lambda: lambda: (initiator.side, responder.side))(counts)
    if "reverse_us" not in figures or responder.tags.searches > 1:
        raise WrongResult(f"in reverse, {responder.tags.searches} searches: {figures}")
    return figures


def _group() -> Group:
    """A speaker of a group and a member, who has been handed the speaker's keys."""
    group, epoch, device = GroupId(os.urandom(32)), 1, DeviceKeys.generate().device_id
    membership = membership_hash(group, epoch, [(RootKey.generate().account_id, 1)])
    memberships = {epoch: membership}
    speaker = OwnSenderKey.begin(group, device, epoch, _NOW)
    member = PeerSenderKey.accept(speaker.distribution(), device)
    tags = _Tags(member.expected())

    def decrypt(message: bytes) -> bytes:
        expected = tags.announced(message, member.recognise)
        opened = member.decrypt(message, expected, memberships.get, tags.find_skipped, _spend)
        tags.keep(opened)
        return opened.body

    return (lambda body: speaker.encrypt(body, epoch, membership)), decrypt


def _seal(counts: Counts) -> Figures:
    """The envelope around a first message, alone: packed, padded and sealed; opened, and its sender verified."""
    alice, bob = _Person(), _Person()
    peer, handshake, session = _begin(alice, bob, OneTimePrekey.generate(1))
    message = session.encrypt(BODY)
    envelopes, seal_us = crypto_work.mapped(
        lambda _: _seal_first(alice, peer, handshake, message), [None] * counts.setups
    )
    opened, open_us = crypto_work.mapped(lambda envelope: _open_first(bob, envelope), envelopes)
    if any(first.message != message for first in opened):
        raise WrongResult("a sealed message came out changed")
    return {"seal_us": seal_us, "open_us": open_us}


def _serialise(counts: Counts) -> Figures:
    session, _ = _sessions(_Person(), _Person())
    packed, serialise_us = crypto_work.mapped(lambda _: session.ratchet.pack(), [None] * counts.packs)
    if Ratchet.unpack(packed[0]).pack() != packed[0]:
        raise WrongResult("a packed session comes out as another")
    return {"serialise_us": serialise_us}


def _attachment(counts: Counts) -> Figures:
    """Encrypted in pieces, with the digest that the pointer names."""
    piece = os.urandom(_PIECE)
    encryptor = Encryptor()

    def encrypt(_: object) -> int:
        length = sum(len(encryptor.update(piece)) for _ in range(counts.attachment_mib))
        return length + sum(len(last) for last in encryptor.finish())

    (length,), taken_us = crypto_work.mapped(encrypt, [None])
    if length != encryptor.pointer.container_size or encryptor.pointer.size != counts.attachment_mib * _PIECE:
        raise WrongResult("an attachment is not whole")
    return {"attachment_mib_s": counts.attachment_mib / taken_us * MICROSECONDS}


OURS: Final = _Ours()
