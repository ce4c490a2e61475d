"""What a thief of a device's state can read: which messages of the past, and until when those to come.

The thief has the code, all that the device stores for the session at one moment, and every byte on the wire, before
and after. It changes nothing. In some tests it breaks X25519 too: then it is given every private key that is made.
"""

from collections.abc import Callable

import pytest

from sottovoce.crypto import message as layout
from sottovoce.crypto import pq_ratchet, primitives
from sottovoce.crypto.chain_key import ReceivingChain
from sottovoce.crypto.errors import CryptoRefusal
from sottovoce.crypto.message import Route
from sottovoce.crypto.pq_ratchet import Answering, Due, Offering, Resting, Waiting
from sottovoce.crypto.primitives import OwnExchangeKey, PeerExchangeKey
from sottovoce.crypto.ratchet import Ratchet, SkippedKey
from sottovoce.crypto.ratchet_state import Receiving, Sending
from tests.sottovoce.crypto.sides import NOW, Side, epoch_state, make_pair, talk

Pair = tuple[Side, Side]
#: How much of a message the thief reads.
NOTHING, HEADER, BODY = "nothing", "header", "body"


class Line:
    """What the thief has of one direction: the present chain from its stolen position on, and the next one's route."""

    def __init__(self, route: Route | None, chain: ReceivingChain | None, following: Route, newest: bytes) -> None:
        self.route = route
        self.chain = chain
        self.following = following
        self.newest = newest  # the ratchet key of the side that sends here


def lines(state: Ratchet) -> tuple[Line, Line]:
    """The victim's direction, then the peer's."""
    own, peer = Line(None, None, state._next_sending, b""), Line(None, None, state._next_receiving, b"")
    sending, receiving = state._sending, state._receiving
    if isinstance(sending, Sending):
        chain = ReceivingChain(sending.chain.key, sending.chain.number)
        own = Line(sending.whispers.route, chain, state._next_sending, sending.own.public)
    if isinstance(receiving, Receiving):
        peer = Line(receiving.route, receiving.chain, state._next_receiving, receiving.head[:32])
    return own, peer


class Thief:
    """Follows a session from a stolen state on, with a ratchet of its own that belongs to neither side."""

    def __init__(self, stolen: bytes, skipped: dict[tuple[int, int], SkippedKey]) -> None:
        state = Ratchet.unpack(stolen)
        self.session_id, self.epoch = state.session_id, state.epoch
        self.root = state._root
        self.skipped = [key.key for key in skipped.values()]
        self.of_victim, self.of_peer = lines(state)
        self.private: dict[bytes, OwnExchangeKey] = {}
        if isinstance(state._sending, Sending):
            self.learn(state._sending.own)
        self.agreement = state._agreement

    def learn(self, key: OwnExchangeKey) -> None:
        """A private key, stolen or computed from the public one."""
        self.private[key.public] = key

    def hear(self, message: bytes, *, is_from_victim: bool) -> str:
        """How much of the message it reads; what is in it, it goes on with."""
        if any(self._body(key, message) is not None for key in self.skipped):
            return BODY
        line, other = (self.of_victim, self.of_peer) if is_from_victim else (self.of_peer, self.of_victim)
        header = self._header(line.route, message)
        if header is None:
            header = self._header(line.following, message)
            if header is None:
                return NOTHING
            self._step(line, other, header)
        number = int.from_bytes(header[36:40], "big")
        if line.chain is None or number < line.chain.number:
            return HEADER
        content = self._body(line.chain.walk(number)[0].message_key(), message)
        if content is None:
            return HEADER
        if isinstance(self.agreement, Offering) and not is_from_victim:  # it stole the seed: it can decapsulate
            field, _ = pq_ratchet.split(content)
            self.agreement = pq_ratchet.take(self.agreement, self.epoch, field, NOW)
        return BODY

    def _header(self, route: Route | None, message: bytes) -> bytes | None:
        try:
            return None if route is None else route.open_header(message)
        except CryptoRefusal:
            return None

    def _body(self, key: bytes, message: bytes) -> bytes | None:
        try:
            return layout.open_body(message, key, self.session_id)
        except CryptoRefusal:
            return None

    def _step(self, line: Line, other: Line, header: bytes) -> None:
        """The root step of a new chain, with whatever it has to put in; what it lacks it leaves out."""
        line.route, line.newest, epoch = line.following, header[:32], int.from_bytes(header[40:], "big")
        own = self.private.get(line.newest) or self.private.get(other.newest)
        shared = bytes(32)
        if own is not None:
            shared = own.exchange(PeerExchangeKey(other.newest if own.public == line.newest else line.newest))
        secret = b"" if epoch == self.epoch else getattr(self.agreement, "secret", b"")
        step = self.root.step(shared, secret, epoch)
        if epoch != self.epoch:
            self.epoch, self.agreement = epoch, Resting(NOW)
        self.root, line.chain, line.following = step.root, ReceivingChain(step.chain_key, 0), step.next_route


def steal(side: Side) -> Thief:
    """All that the device stores for the session, now."""
    return Thief(side.ratchet.pack(), side.skipped)


# The past


class Keys:
    """The keys of all message bodies that were encrypted, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used: list[bytes] = []
        encrypt = primitives.encrypt

        def watched(key: bytes, nonce: bytes, plaintext: bytes, associated_data: bytes) -> bytes:
            self.used.append(key)
            return encrypt(key, nonce, plaintext, associated_data)

        monkeypatch.setattr(primitives, "encrypt", watched)


def within_reach(stolen: bytes, steps: int = 40) -> set[bytes]:
    """Every 32 bytes of what was stolen, taken for a message key or for a chain key to be walked."""
    found = set[bytes]()
    for start in range(len(stolen) - 31):
        chain = ReceivingChain(stolen[start : start + 32], 0)
        found.add(chain.key)
        for _ in range(steps):
            found.add(chain.message_key())
            chain = chain.after()
    return found


@pytest.mark.parametrize("turns", [1, 20, 30, 40])
def test_no_key_of_the_past_is_within_reach_of_what_a_device_stores(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    alice, bob = pair
    keys = Keys(monkeypatch)
    for _ in range(turns):
        for sender, reader in ((alice, bob), (bob, alice)):
            reader.read(sender.send(b"text"))
            reader.read(sender.send(b"more text"))
            reader.read(sender.whisper(b"typing"))
    assert len(keys.used) == 6 * turns
    for side in pair:
        reach = within_reach(side.ratchet.pack())
        assert not reach & set(keys.used)
        # What comes next on a chain that is in use is within reach: the search above looks in the right places.
        side.send(b"")
        stolen = side.ratchet.pack()
        side.send(b"")
        assert keys.used[-1] in within_reach(stolen, 2)


def test_the_stolen_state_reads_no_message_that_was_read(pair: Pair) -> None:
    alice, bob = pair
    wire: list[tuple[Side, bytes]] = []
    for _ in range(40):
        for sender, reader in ((alice, bob), (bob, alice)):
            for message in (sender.send(b"text"), sender.send(b"more text")):
                reader.read(message)
                wire.append((sender, message))
    for victim in pair:
        for sender, message in wire:
            assert steal(victim).hear(message, is_from_victim=sender is victim) != BODY


def test_the_stolen_state_reads_what_is_still_to_come_and_nothing_beside_it(pair: Pair) -> None:
    """The price of reading messages in any order: the keys of those that are missing are kept."""
    alice, bob = pair
    talk(alice, bob)
    sent = [alice.send(b"%d" % n) for n in range(6)]
    for n in (0, 2, 4):
        bob.read(sent[n])
    alice.read(bob.send(b"turn"))
    late = [alice.send(b"%d" % n) for n in range(6, 9)]
    bob.read(late[1])
    outcome = [steal(bob).hear(message, is_from_victim=False) for message in sent + late]
    assert [n for n, each in enumerate(outcome) if each == BODY] == [1, 3, 5, 6, 8]
    for n in (1, 3, 5):
        bob.read(sent[n])
    outcome = [steal(bob).hear(message, is_from_victim=False) for message in sent + late]
    assert [n for n, each in enumerate(outcome) if each == BODY] == [6, 8]


def test_the_sender_cannot_read_what_it_sent(pair: Pair) -> None:
    alice, bob = pair
    talk(alice, bob)
    sent = [alice.send(b"never arrives") for _ in range(3)]
    assert [steal(alice).hear(message, is_from_victim=True) for message in sent] == [HEADER] * 3


def test_ephemeral_messages_that_were_sent_are_out_of_reach_though_their_numbers_were_not_stored(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = pair
    talk(alice, bob)
    bob.read(alice.send(b""))
    keys = Keys(monkeypatch)
    for _ in range(5):
        bob.read(alice.whisper(b"typing"))
    for side in pair:
        assert not within_reach(side.stored) & set(keys.used)


# Healing


def chains(alice: Side, bob: Side, thief: Thief, victim: Side, count: int) -> list[str]:
    """How much the thief reads of so many chains in turn, Alice's first; of each two messages, which agree."""
    found: list[str] = []
    for n in range(count):
        sender, reader = (alice, bob) if n % 2 == 0 else (bob, alice)
        outcome = set()
        for _ in range(2):
            message = sender.send(b"text")
            outcome.add(thief.hear(message, is_from_victim=sender is victim))
            reader.read(message)
        assert len(outcome) == 1
        found += outcome
    return found


def test_who_steals_the_keys_is_shut_out_from_the_victims_next_chain_on(pair: Pair) -> None:
    """Of bodies at once; of headers and tags one chain later in each direction."""
    alice, bob = pair
    talk(alice, bob)
    bob.read(alice.send(b"a chain of Alice's"))
    thief = steal(alice)  # it has the key to which Bob's next chain answers
    assert thief.hear(alice.send(b"still on that chain"), is_from_victim=True) == BODY
    message = bob.send(b"an answer")
    assert thief.hear(message, is_from_victim=False) == BODY
    alice.read(message)
    assert chains(alice, bob, thief, alice, 8) == [HEADER, HEADER] + [NOTHING] * 6


def test_who_steals_the_keys_while_a_step_is_due_reads_what_comes_on_the_present_chain_and_no_more(pair: Pair) -> None:
    alice, bob = pair
    talk(alice, bob)
    thief = steal(alice)
    message = bob.send(b"one more of this chain")
    assert thief.hear(message, is_from_victim=False) == BODY
    alice.read(message)
    assert chains(alice, bob, thief, alice, 8) == [HEADER, HEADER] + [NOTHING] * 6


def test_a_victim_that_only_listens_never_shuts_the_thief_out(pair: Pair) -> None:
    """Why a device acknowledges a session now and then, receipts or not."""
    alice, bob = pair
    talk(alice, bob)
    thief = steal(alice)
    for _ in range(100):
        message = bob.send(b"news")
        assert thief.hear(message, is_from_victim=False) == BODY
        alice.read(message)


def leak(monkeypatch: pytest.MonkeyPatch, tell: Callable[[OwnExchangeKey], None]) -> None:
    """Every ratchet key that is made from now on, told as soon as it is made."""
    generate = OwnExchangeKey.generate_for_a_turn

    def watched() -> OwnExchangeKey:
        key = generate()
        tell(key)
        return key

    monkeypatch.setattr(OwnExchangeKey, "generate_for_a_turn", watched)


def steal_in(state: type, monkeypatch: pytest.MonkeyPatch) -> tuple[Side, Side, Side, Thief]:
    """Both sides, the victim, and a thief that breaks X25519, who stole when the victim's agreement was in `state`."""
    alice, bob = make_pair()
    victim = bob if state in (Waiting, Answering) else alice
    talk(alice, bob)
    for _ in range(200):
        if epoch_state(victim) is state:
            break
        bob.read(alice.send(b""))
        alice, bob = bob, alice
    assert epoch_state(victim) is state
    thief = steal(victim)
    leak(monkeypatch, thief.learn)
    for half in (alice.ratchet._sending, bob.ratchet._sending):
        if isinstance(half, Sending):
            thief.learn(half.own)
    return alice, bob, victim, thief


def epochs_read(alice: Side, bob: Side, victim: Side, thief: Thief, turns: int) -> dict[int, set[str]]:
    """Of the messages of each epoch, how much the thief reads."""
    found: dict[int, set[str]] = {}
    for _ in range(turns):
        for sender, reader in ((alice, bob), (bob, alice)):
            message = sender.send(b"")
            epoch = sender.ratchet.epoch
            found.setdefault(epoch, set()).add(thief.hear(message, is_from_victim=sender is victim))
            reader.read(message)
    return found


@pytest.mark.parametrize("state", [Resting, Waiting])
def test_who_breaks_x25519_too_is_shut_out_by_the_next_epoch(monkeypatch: pytest.MonkeyPatch, state: type) -> None:
    alice, bob, victim, thief = steal_in(state, monkeypatch)
    found = epochs_read(alice, bob, victim, thief, 90)
    assert found[0] == {BODY}
    assert found[1] <= {HEADER, NOTHING}
    assert len(found) >= 3
    assert all(found[epoch] == {NOTHING} for epoch in found if epoch > 1)


@pytest.mark.parametrize("state", [Offering, Due, Answering])
def test_a_secret_that_was_stolen_on_its_way_costs_one_epoch_more(monkeypatch: pytest.MonkeyPatch, state: type) -> None:
    alice, bob, victim, thief = steal_in(state, monkeypatch)
    found = epochs_read(alice, bob, victim, thief, 120)
    assert found[1] == {BODY}
    assert found.get(0, {BODY}) == {BODY}
    assert found[2] <= {HEADER, NOTHING}
    assert len(found) >= 4
    assert all(found[epoch] == {NOTHING} for epoch in found if epoch > 2)


def test_without_epochs_who_breaks_x25519_reads_on_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is the epoch that shuts the thief out in the tests above, and nothing that it forgot to do."""
    monkeypatch.setattr(pq_ratchet, "EPOCH_MESSAGES", 10**6)
    alice, bob, victim, thief = steal_in(Resting, monkeypatch)
    assert epochs_read(alice, bob, victim, thief, 200) == {0: {BODY}}
