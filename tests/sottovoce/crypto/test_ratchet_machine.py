"""The ratchet under every schedule: sent, delivered, dropped, duplicated, reordered, damaged, restarted, days apart.

Whatever the order, every genuine message that arrives is read exactly once, a refusal leaves everything as it was,
the table of tags is the one that the state stands for, and both sides stay within one post-quantum epoch.
"""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sottovoce.crypto import pq_ratchet
from sottovoce.crypto.errors import CryptoRefusal, Reason
from sottovoce.crypto.ratchet_state import LOOK_AHEAD_EPHEMERAL, Sending, StepDue
from sottovoce_wire import limits
from tests.random_input import examples
from tests.sottovoce.crypto.sides import NOW, make_pair

SIDES = st.sampled_from([0, 1])
PICK = st.integers(min_value=0, max_value=2**16)
SIZES = st.sampled_from([0, 10, 240, 300])

#: A message on its way, and its body.
Travelling = tuple[bytes, bytes]
#: An ephemeral one, and the chain and number that it has.
Whispered = tuple[bytes, bytes, int, int]


class Schedule(RuleBasedStateMachine):
    """Two sides, and between them a network that does what it likes."""

    @initialize()
    def begin(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(pq_ratchet, "EPOCH_MESSAGES", 3)
        self.sides = make_pair()
        self.now = NOW
        self.travelling: tuple[list[Travelling], list[Travelling]] = ([], [])
        self.whispers: tuple[list[Whispered], list[Whispered]] = ([], [])
        self.read: tuple[list[bytes], list[bytes]] = ([], [])
        self.sent = self.bit = 0
        self.may_send = [True, False]
        #: The heads of each side's chains, the last being the newest, and the tags that it has used.
        self.chains: tuple[list[bytes], list[bytes]] = ([], [])
        self.tags: set[bytes] = set()
        #: Of each reader: the chain and the number of the next ephemeral message that it may read.
        self.next_whisper = [(0, 0), (0, 0)]

    def note(self, sender: int, message: bytes) -> None:
        assert message[1:9] not in self.tags, "a number is used twice"
        self.tags.add(message[1:9])
        half = self.sides[sender].ratchet._sending
        if isinstance(half, Sending) and half.whispers.head not in self.chains[sender]:
            self.chains[sender].append(half.whispers.head)

    def refuse_damaged(self, to: int, message: bytes) -> None:
        self.bit += 1_009
        damaged = bytearray(message)
        damaged[self.bit // 8 % len(damaged)] ^= 1 << self.bit % 8
        self.sides[to].refuses(bytes(damaged), now=self.now)

    def body(self, size: int) -> bytes:
        self.sent += 1
        return b"%d:" % self.sent + b"x" * size

    def open(self, to: int, message: bytes, body: bytes) -> None:
        """A damaged copy comes first, each time with another bit, and the same message comes again."""
        self.refuse_damaged(to, message)
        assert self.sides[to].read(message, self.now).body == body
        self.sides[to].refuses(message, Reason.CLONE_SUSPECTED, Reason.NOT_AUTHENTIC, now=self.now)
        self.read[to].append(message)
        self.may_send[to] = True
        nth = self.sides[to].ratchet._seen
        if nth != self.next_whisper[to][0]:
            self.next_whisper[to] = (nth, 0)

    @rule(sender=SIDES, size=SIZES)
    def send(self, sender: int, size: int) -> None:
        if not self.may_send[sender]:
            with pytest.raises(CryptoRefusal):
                self.sides[sender].send(b"")
            return
        body = self.body(size)
        message = self.sides[sender].send(body, self.now)
        self.note(sender, message)
        self.travelling[1 - sender].append((message, body))

    def take(self, to: int, pick: int) -> Travelling | None:
        queue = self.travelling[to]
        return queue.pop(pick % len(queue)) if queue else None

    @rule(to=SIDES, pick=PICK)
    def deliver(self, to: int, pick: int) -> None:
        taken = self.take(to, pick)
        if taken is not None:
            self.open(to, *taken)

    @rule(to=SIDES)
    def deliver_in_order(self, to: int) -> None:
        self.deliver(to, 0)

    @rule(turns=st.integers(1, 4))
    def talk(self, turns: int) -> None:
        """Both sides, in turn: without it few epochs would be agreed."""
        for _ in range(turns):
            for sender in (0, 1):
                body = self.body(0)
                message = self.sides[sender].send(body, self.now)
                self.note(sender, message)
                self.open(1 - sender, message, body)

    @rule(to=SIDES, pick=PICK)
    def drop(self, to: int, pick: int) -> None:
        self.take(to, pick)

    @precondition(lambda self: any(self.read))
    @rule(to=SIDES, pick=PICK)
    def repeat(self, to: int, pick: int) -> None:
        if self.read[to]:
            self.sides[to].refuses(
                self.read[to][pick % len(self.read[to])], Reason.CLONE_SUSPECTED, Reason.NOT_AUTHENTIC
            )

    @precondition(lambda self: any(self.travelling))
    @rule(to=SIDES, pick=PICK)
    def return_to_sender(self, to: int, pick: int) -> None:
        queue = self.travelling[to]
        if queue:
            self.sides[1 - to].refuses(queue[pick % len(queue)][0], Reason.NOT_AUTHENTIC)

    @rule(sender=SIDES, count=st.integers(1, 10))
    def whisper(self, sender: int, count: int) -> None:
        if not self.chains[sender]:
            with pytest.raises(CryptoRefusal):
                self.sides[sender].whisper(b"")
            return
        for _ in range(count):
            body = self.body(0)
            message = self.sides[sender].whisper(body)
            self.note(sender, message)
            half = self.sides[sender].ratchet._sending
            assert isinstance(half, Sending | StepDue)
            assert half.whispers is not None
            number = half.whispers.chain.number - 1
            self.whispers[1 - sender].append((message, body, len(self.chains[sender]), number))

    @precondition(lambda self: any(self.whispers))
    @rule(to=SIDES, pick=PICK)
    def hear(self, to: int, pick: int) -> None:
        """Read if it is of the present chain and within the window; otherwise refused, and nothing is lost by it."""
        if not self.whispers[to]:
            return
        message, body, chain, number = self.whispers[to][pick % len(self.whispers[to])]
        self.refuse_damaged(to, message)
        seen, first = self.next_whisper[to]
        if chain == seen and first <= number < first + LOOK_AHEAD_EPHEMERAL:
            assert self.sides[to].read(message, self.now).body == body
            self.next_whisper[to] = (seen, number + 1)
        else:
            self.sides[to].refuses(message)

    @rule(side=SIDES)
    def restart(self, side: int) -> None:
        self.sides[side].restart()

    @rule(hours=st.sampled_from([1, 24, 25, 100]))
    def wait(self, hours: int) -> None:
        self.now += hours * limits.DAY // 24

    @invariant()
    def the_table_is_that_of_the_state(self) -> None:
        for side in getattr(self, "sides", ()):
            side.check_table()

    @invariant()
    def both_sides_are_within_one_epoch(self) -> None:
        if hasattr(self, "sides"):
            initiator, responder = (side.ratchet.epoch for side in self.sides)
            assert 0 <= initiator - responder <= 1  # it is the initiator that mixes first

    @invariant()
    def a_state_is_small(self) -> None:
        for side in getattr(self, "sides", ()):
            assert len(side.ratchet.pack()) < 4_000

    def teardown(self) -> None:
        """All that still travels arrives, last first; and whatever has happened, the next epochs come."""
        if not hasattr(self, "sides"):
            return
        try:
            for to in (0, 1):
                for message, body in reversed(self.travelling[to]):
                    self.open(to, message, body)
            self.talk(1)
            wanted = self.sides[0].ratchet.epoch + 2
            for _ in range(35):
                self.talk(1)
                if all(side.ratchet.epoch == wanted for side in self.sides):
                    break
            assert [side.ratchet.epoch for side in self.sides] == [wanted, wanted]
        finally:
            self.patch.undo()


TestSchedule = Schedule.TestCase
TestSchedule.settings = examples(80, stateful_step_count=80)
