"""A group's speaker and its fellow members as a client keeps them, and a member that lies.

Here stands what every caller of a sender key must do around it: the log of membership hashes, the table of routing
tags, the skipped keys. Tests of sender keys send and read through it.
"""

import pytest

from sottovoce.crypto import message as layout
from sottovoce.crypto import primitives
from sottovoce.crypto.chain_key import SendingChain
from sottovoce.crypto.errors import CryptoRefusal, Reason
from sottovoce.crypto.message import Expected
from sottovoce.crypto.ratchet import Decrypted, SkippedKey
from sottovoce.crypto.sender_key import OwnSenderKey, PeerSenderKey, membership_hash
from sottovoce_wire import labels, padding
from sottovoce_wire.ids import AccountId, DeviceId, GroupId

from .windows import announced

NOW = 1_800_000_000
GROUP = GroupId(b"g" * 32)
DEVICE = DeviceId(b"speaker's device")
EPOCH = 3
MEMBERS = [(AccountId(b"a" * 32), 1), (AccountId(b"b" * 32), 0), (AccountId(b"c" * 32), 0)]


def hash_of(epoch: int) -> bytes:
    """The group's membership hash; its members stay the same here."""
    return membership_hash(GROUP, epoch, MEMBERS)


class Speaker:
    """The device that writes, with what its store holds."""

    def __init__(self) -> None:
        self.key = OwnSenderKey.begin(GROUP, DEVICE, EPOCH, NOW)
        self.stored = self.key.pack()

    def send(self, content: bytes = b"", epoch: int = EPOCH) -> bytes:
        """A message, once the state behind it is stored."""
        message = self.key.encrypt(content, epoch, hash_of(epoch))
        self.stored = self.key.pack()
        return message

    def whisper(self, content: bytes = b"", epoch: int = EPOCH) -> bytes:
        """An ephemeral message; the state is stored only if it must be."""
        message, must_store = self.key.encrypt_ephemeral(content, epoch, hash_of(epoch))
        if must_store:
            self.stored = self.key.pack()
        return message

    def restart(self) -> None:
        self.key = OwnSenderKey.unpack(self.stored)
        assert self.key.pack() == self.stored


class Member:
    """A device that was handed the chain, with all that it keeps for it."""

    def __init__(self, speaker: Speaker, *, device_id: DeviceId = DEVICE) -> None:
        self.key = PeerSenderKey.accept(speaker.key.distribution(), device_id)
        self.log = {epoch: hash_of(epoch) for epoch in range(EPOCH + 3)}
        self.table = announced(self.key.expected())
        self.skipped: dict[tuple[int, int], SkippedKey] = {}
        self.searches = 0
        self.walked: list[int] = []

    @property
    def memory(self) -> tuple[bytes, dict[bytes, Expected], dict[tuple[int, int], SkippedKey]]:
        """What a refusal leaves alone."""
        return self.key.pack(), dict(self.table), dict(self.skipped)

    def find(self, message: bytes) -> Expected:
        """What the message is, by its tag or else by its header."""
        found = self.table.get(layout.routing_tag(message))
        if found is None:
            self.searches += 1
            found = self.key.recognise(message)
        if found is None:
            raise CryptoRefusal(Reason.NOT_AUTHENTIC, "the message is of no chain that is known")
        return found

    def decrypt(self, message: bytes, expected: Expected) -> Decrypted:
        """Opened, and nothing kept of what that changed."""
        return self.key.decrypt(
            message, expected, self.log.get, lambda chain, n: self.skipped.get((chain, n)), self.walked.append
        )

    def read(self, message: bytes) -> Decrypted:
        """Opened, and everything kept."""
        opened = self.decrypt(message, self.find(message))
        for tag in opened.vanished:
            # The one tag that may be missing is that of a message which a search has found.
            assert tag in self.table or tag == layout.routing_tag(message)
            self.table.pop(tag, None)
        for window in opened.appeared:
            assert not set(window.tags) & set(self.table)
            self.table.update(announced([window]))
        self.skipped.update({(key.chain, key.number): key for key in opened.skipped})
        if opened.used is not None:
            del self.skipped[opened.used.chain, opened.used.number]
        return opened

    def refuses(self, message: bytes, *reasons: Reason, expected: Expected | None = None) -> None:
        """The message is refused, for one of the reasons if any are named, and nothing has changed. The caller may
        take it for something else than its tag and header say."""
        before = self.memory
        with pytest.raises(CryptoRefusal) as refusal:
            self.decrypt(message, self.find(message) if expected is None else expected)
        assert refusal.value.reason in (reasons or tuple(Reason))
        assert self.memory == before

    def restart(self) -> None:
        """The table is not made again: it must fit all the same."""
        packed = self.key.pack()
        self.key = PeerSenderKey.unpack(packed)
        assert self.key.pack() == packed

    def check_table(self) -> None:
        """The table that grew and shrank with each message is the one that would be made from the state."""
        wanted = announced(self.key.expected())
        wanted.update({key.tag: Expected(key.chain, key.number) for key in self.skipped.values()})
        assert self.table == wanted


def make_group() -> tuple[Speaker, Member]:
    """A speaker and one fellow member who was handed a fresh chain."""
    speaker = Speaker()
    return speaker, Member(speaker)


def jump(speaker: Speaker, number: int, *, is_ephemeral: bool = False) -> None:
    """The speaker's chain at `number`, under a made-up chain key."""
    chain = SendingChain(b"k" * 32, number)
    if is_ephemeral:
        speaker.key._whispers = speaker.key._reserve = chain
    else:
        speaker.key._chain = chain


def forge(
    speaker: Speaker,
    *,
    tag_number: int | None = None,
    number: int | None = None,
    whispers: int | None = None,
    epoch: int = EPOCH,
    chain_id: bytes | None = None,
    signing_key: primitives.SigningKey | None = None,
    signed: bytes | None = None,
    body: bytes | None = None,
    padded: bytes | None = None,
    is_ephemeral: bool = False,
) -> bytes:
    """The next message of the speaker's chain, sealed with all keys of that chain, as any member can who has them, and
    false where the caller says so. `signed` replaces what is signed, `body` signature and content."""
    key = speaker.key
    chain = key._whispers if is_ephemeral else key._chain
    nonce = b"n" * 12
    number = chain.number if number is None else number
    if whispers is None:
        whispers = 0 if is_ephemeral else key._whispers.number
    if signed is None:
        signed = statement(epoch, number, whispers, nonce, b"content", is_ephemeral=is_ephemeral)
    if body is None:
        body = (signing_key or key._signing_key).sign(signed) + b"content"
    header = (key.chain_id if chain_id is None else chain_id) + numbers(epoch, number, whispers)
    tag = key._route.tag(chain.number if tag_number is None else tag_number, is_ephemeral=is_ephemeral)
    sealed = padding.pad(body) if padded is None else padded
    return key._route.seal(tag, header, chain.message_key(), key.chain_id, sealed, nonce)


def numbers(*each: int) -> bytes:
    """u32 after u32."""
    return b"".join(number.to_bytes(4, "big") for number in each)


def statement(
    epoch: int,
    number: int,
    whispers: int,
    nonce: bytes,
    content: bytes,
    *,
    group: bytes = GROUP,
    membership: bytes | None = None,
    device: bytes = DEVICE,
    is_ephemeral: bool = False,
) -> bytes:
    """What is signed, by the formula of the specification."""
    members = hash_of(epoch) if membership is None else membership
    start = labels.GROUP_MESSAGE + group + numbers(epoch) + members + device + bytes([is_ephemeral])
    return start + numbers(number, whispers) + nonce + primitives.sha256(content)
