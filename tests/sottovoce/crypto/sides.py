"""Both sides of a session as a client keeps them, and a peer that lies.

Here stands what every caller of `Ratchet` must do around it: the table of routing tags, the skipped keys, what is
stored when. Tests of the ratchet send and read through it.
"""

import hashlib

import pytest

from sottovoce.crypto import message as layout
from sottovoce.crypto import pq_ratchet
from sottovoce.crypto.agreement import SessionKeys
from sottovoce.crypto.chain_key import ReceivingChain, SendingChain
from sottovoce.crypto.errors import CryptoRefusal, Reason
from sottovoce.crypto.message import Expected
from sottovoce.crypto.primitives import OwnExchangeKey
from sottovoce.crypto.ratchet import Decrypted, Ratchet, SkippedKey
from sottovoce.crypto.ratchet_state import Receiving, Sending, StepDue
from sottovoce_wire import padding

from .windows import announced

NOW = 1_800_000_000
KEYS = SessionKeys(b"i" * 32, b"r" * 32, b"a" * 32, b"b" * 32, b"c" * 32, b"d" * 32)
SIGNED_PREKEY = OwnExchangeKey(b"s" * 32)


class Side:
    """One side, with all that it keeps for the session."""

    def __init__(self, ratchet: Ratchet) -> None:
        self.ratchet = ratchet
        self.stored = ratchet.pack()
        self.table = announced(ratchet.expected())
        self.skipped: dict[tuple[int, int], SkippedKey] = {}
        self.searches = 0
        self.walked: list[int] = []

    @property
    def memory(self) -> tuple[bytes, dict[bytes, Expected], dict[tuple[int, int], SkippedKey]]:
        """What a refusal leaves alone."""
        return self.ratchet.pack(), dict(self.table), dict(self.skipped)

    def send(self, body: bytes = b"", now: int = NOW) -> bytes:
        """A message, once the state behind it is stored."""
        message = self.ratchet.encrypt(body, now)
        self.stored = self.ratchet.pack()
        return message

    def whisper(self, body: bytes = b"") -> bytes:
        """An ephemeral message; the state is stored only if it must be."""
        message, must_store = self.ratchet.encrypt_ephemeral(body)
        if must_store:
            self.stored = self.ratchet.pack()
        return message

    def find(self, message: bytes) -> Expected:
        """What the message is, by its tag or else by its header."""
        found = self.table.get(layout.routing_tag(message))
        if found is None:
            self.searches += 1
            found = self.ratchet.recognise(message)
        if found is None:
            raise CryptoRefusal(Reason.NOT_AUTHENTIC, "the message is of no chain that is known")
        return found

    def decrypt(self, message: bytes, expected: Expected, now: int = NOW) -> Decrypted:
        """Opened, and nothing kept of what that changed."""
        return self.ratchet.decrypt(
            message, expected, lambda chain, number: self.skipped.get((chain, number)), self.walked.append, now
        )

    def read(self, message: bytes, now: int = NOW) -> Decrypted:
        """Opened, and everything kept."""
        opened = self.decrypt(message, self.find(message), now)
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
        self.stored = self.ratchet.pack()
        return opened

    def refuses(self, message: bytes, *reasons: Reason, now: int = NOW) -> None:
        """The message is refused, for one of the reasons if any are named, and nothing has changed."""
        before = self.memory
        with pytest.raises(CryptoRefusal) as refusal:
            self.read(message, now)
        assert refusal.value.reason in (reasons or tuple(Reason))
        assert self.memory == before

    def refuses_as(self, message: bytes, expected: Expected, *reasons: Reason) -> None:
        """The same for a message that the caller takes for `expected`, whatever its tag and header say."""
        before = self.memory
        with pytest.raises(CryptoRefusal) as refusal:
            self.decrypt(message, expected)
        assert refusal.value.reason in reasons
        assert self.memory == before

    def restart(self) -> None:
        """From what was stored last. The table is not made again: it must fit all the same."""
        self.ratchet = Ratchet.unpack(self.stored)
        assert self.ratchet.pack() == self.stored

    def check_table(self) -> None:
        """The table that grew and shrank with each message is the one that would be made from the state."""
        wanted = announced(self.ratchet.expected())
        wanted.update({key.tag: Expected(key.chain, key.number) for key in self.skipped.values()})
        assert self.table == wanted


def make_pair() -> tuple[Side, Side]:
    """A fresh session: the initiator, then the responder."""
    initiator = Ratchet.initiator(KEYS, SIGNED_PREKEY.public, NOW)
    return Side(initiator), Side(Ratchet.responder(KEYS, SIGNED_PREKEY, NOW))


def talk(alice: Side, bob: Side, turns: int = 1, now: int = NOW) -> None:
    """A message each way, so many times: both halves of both sides are in use."""
    for _ in range(turns):
        bob.read(alice.send(b"hello", now), now)
        alice.read(bob.send(b"hello yourself", now), now)


# --- A look inside ------------------------------------------------------------------------------------------------


def sending_of(side: Side) -> Sending:
    """The sending half of a side that has sent since it last read; the step is taken if it is due."""
    sending = side.ratchet._sending
    if isinstance(sending, StepDue):
        return side.ratchet._start_chain(sending, NOW)
    assert isinstance(sending, Sending)
    return sending


def receiving_of(side: Side) -> Receiving:
    """The receiving half of a side that has read."""
    assert isinstance(side.ratchet._receiving, Receiving)
    return side.ratchet._receiving


def lose(side: Side, count: int) -> None:
    """As if the side had sent so many messages that nobody will ever see."""
    sending = sending_of(side)
    for _ in range(count):
        sending.chain = sending.chain.after()


def jump(side: Side, peer: Side, number: int) -> None:
    """Both ends of the side's present chain at `number`, under one made-up chain key."""
    sending_of(side).chain = SendingChain(b"k" * 32, number)
    receiving = receiving_of(peer)
    receiving.chain, receiving.ahead = ReceivingChain(b"k" * 32, number), layout.silent_end(number)
    peer.table = announced(peer.ratchet.expected())


# --- A peer that lies ---------------------------------------------------------------------------------------------


def forge(
    side: Side,
    *,
    tag_number: int | None = None,
    number: int | None = None,
    ratchet_key: bytes | None = None,
    previous_length: int | None = None,
    epoch: int | None = None,
    content: bytes = b"\x00body",
    padded: bytes | None = None,
    is_ephemeral: bool = False,
) -> bytes:
    """The next message of the side's chain, sealed with the keys of that chain, and false where the caller says so."""
    sending = sending_of(side)
    line = sending.whispers
    chain = line.chain if is_ephemeral else sending.chain
    header = (
        (line.head[:32] if ratchet_key is None else ratchet_key)
        + (line.head[32:] if previous_length is None else previous_length.to_bytes(4, "big"))
        + (chain.number if number is None else number).to_bytes(4, "big")
        + (line.epoch if epoch is None else epoch).to_bytes(4, "big")
    )
    tag = line.route.tag(chain.number if tag_number is None else tag_number, is_ephemeral=is_ephemeral)
    body = padding.pad(content) if padded is None else padded
    return line.route.seal(tag, header, chain.message_key(), side.ratchet.session_id, body)


def field(blocks: int, epoch: int, first: int) -> bytes:
    """A fragment field by hand: blocks u8, epoch u32, first block u8."""
    return bytes([blocks]) + epoch.to_bytes(4, "big") + bytes([first])


def tag_of_the_spec(tag_key: bytes, number: int, *, is_ephemeral: bool = False) -> bytes:
    """The routing tag by the formula: the hash of a run of eight, and 8 of its 64 bytes."""
    run = hashlib.blake2b(bytes([is_ephemeral]) + (number // 8).to_bytes(4, "big"), key=tag_key).digest()
    return run[8 * (number % 8) :][:8]


def epoch_state(side: Side) -> type[pq_ratchet.State]:
    """The state of the post-quantum part."""
    return type(side.ratchet._agreement)
