"""The ratchet under every schedule: sent, delivered, dropped, duplicated, reordered, damaged, restarted.

Whatever the order, every genuine message that arrives is read exactly once, and a refusal leaves the state as it was.
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sottovoce.crypto.agreement import SessionKeys
from sottovoce.crypto.errors import CryptoRefusal
from sottovoce.crypto.primitives import OwnExchangeKey
from sottovoce.crypto.ratchet import Ratchet

SIDES = st.sampled_from([0, 1])
PICK = st.integers(min_value=0, max_value=2**16)
SIGNED_PREKEY = OwnExchangeKey(b"s" * 32)
KEYS = SessionKeys(b"i" * 32, b"r" * 32, *(bytes(32),) * 4)


class Schedule(RuleBasedStateMachine):
    """Two sides, and between them a network that does what it likes."""

    @initialize()
    def begin(self) -> None:
        self.sides = [Ratchet.initiator(KEYS, SIGNED_PREKEY.public), Ratchet.responder(KEYS, SIGNED_PREKEY)]
        self.skipped: list[dict[tuple[bytes, int], bytes]] = [{}, {}]
        self.travelling: list[list[tuple[bytes, bytes]]] = [[], []]
        self.read: list[list[bytes]] = [[], []]
        self.sent = 0
        self.may_send = [True, False]

    def decrypt(self, to: int, message: bytes) -> bytes:
        opened = self.sides[to].decrypt(message, lambda key, n: self.skipped[to].get((key, n)), lambda _: None)
        self.skipped[to].update({(each.ratchet_key, each.n): each.key for each in opened.skipped})
        if opened.used is not None:
            del self.skipped[to][opened.used]
        return opened.body

    def refused(self, to: int, message: bytes) -> None:
        before = self.sides[to].pack()
        with pytest.raises(CryptoRefusal):
            self.decrypt(to, message)
        assert self.sides[to].pack() == before

    @rule(sender=SIDES, size=st.sampled_from([0, 10, 300]))
    def send(self, sender: int, size: int) -> None:
        if not self.may_send[sender]:
            with pytest.raises(CryptoRefusal):
                self.sides[sender].encrypt(b"")
            return
        self.sent += 1
        body = b"%d:" % self.sent + b"x" * size
        self.travelling[1 - sender].append((self.sides[sender].encrypt(body), body))

    def take(self, to: int, pick: int) -> tuple[bytes, bytes] | None:
        queue = self.travelling[to]
        return queue.pop(pick % len(queue)) if queue else None

    @rule(to=SIDES, pick=PICK)
    def deliver(self, to: int, pick: int) -> None:
        taken = self.take(to, pick)
        if taken is not None:
            message, body = taken
            assert self.decrypt(to, message) == body
            self.read[to].append(message)
            self.may_send[to] = True

    @rule(to=SIDES)
    def deliver_in_order(self, to: int) -> None:
        self.deliver(to, 0)

    @rule(to=SIDES, pick=PICK)
    def drop(self, to: int, pick: int) -> None:
        self.take(to, pick)

    @precondition(lambda self: any(self.read))
    @rule(to=SIDES, pick=PICK)
    def duplicate(self, to: int, pick: int) -> None:
        if self.read[to]:
            self.refused(to, self.read[to][pick % len(self.read[to])])

    @precondition(lambda self: any(self.travelling))
    @rule(to=SIDES, pick=PICK, bit=PICK)
    def damage(self, to: int, pick: int, bit: int) -> None:
        queue = self.travelling[to]
        if queue:
            damaged = bytearray(queue[pick % len(queue)][0])
            damaged[bit // 8 % len(damaged)] ^= 1 << bit % 8
            self.refused(to, bytes(damaged))

    @precondition(lambda self: any(self.travelling))
    @rule(to=SIDES, pick=PICK)
    def return_to_sender(self, to: int, pick: int) -> None:
        queue = self.travelling[to]
        if queue:
            self.refused(1 - to, queue[pick % len(queue)][0])

    @rule(side=SIDES)
    def restart(self, side: int) -> None:
        packed = self.sides[side].pack()
        self.sides[side] = Ratchet.unpack(packed)
        assert self.sides[side].pack() == packed

    @invariant()
    def a_state_is_small(self) -> None:
        assert all(len(side.pack()) <= 207 for side in getattr(self, "sides", []))

    def teardown(self) -> None:
        """All that still travels arrives, last first."""
        for to in (0, 1):
            for message, body in reversed(getattr(self, "travelling", [[], []])[to]):
                assert self.decrypt(to, message) == body


TestSchedule = Schedule.TestCase
TestSchedule.settings = settings(
    derandomize=True, deadline=None, database=None, max_examples=60, stateful_step_count=60
)
