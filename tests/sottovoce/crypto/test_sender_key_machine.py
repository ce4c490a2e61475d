"""A group chain under every schedule: sent, handed over, delivered, dropped, duplicated, reordered, damaged, restarted.

Whatever the order, every genuine message that reaches a member is read exactly once, none from before the chain was
handed over is read at all, and a refusal leaves everything as it was.
"""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.random_input import examples

from .members import EPOCH, Member, Speaker, forge

MEMBERS = st.sampled_from([0, 1])
PICK = st.integers(min_value=0, max_value=2**16)


class Schedule(RuleBasedStateMachine):
    """One speaker, two members, and between them a network that does what it likes."""

    @initialize()
    def begin(self) -> None:
        self.speaker = Speaker()
        self.epoch = EPOCH
        self.members = [Member(self.speaker), Member(self.speaker)]
        self.travelling: list[list[tuple[bytes, bytes]]] = [[], []]
        self.whispers: list[list[tuple[bytes, bytes]]] = [[], []]
        self.read: list[list[bytes]] = [[], []]
        self.missed: list[bytes] = []  # by the member who joined last
        self.sent = 0

    def content(self, size: int) -> bytes:
        self.sent += 1
        return b"%d:" % self.sent + b"x" * size

    @rule(size=st.sampled_from([0, 10, 300]))
    def send(self, size: int) -> None:
        content = self.content(size)
        message = self.speaker.send(content, self.epoch)
        for queue in self.travelling:
            queue.append((message, content))

    @rule(count=st.sampled_from([1, 3, 12]))
    def whisper(self, count: int) -> None:
        for _ in range(count):
            content = self.content(0)
            message = self.speaker.whisper(content, self.epoch)
            for queue in self.whispers:
                queue.append((message, content))

    @rule()
    def somebody_is_added(self) -> None:
        """The last member makes room for a newcomer."""
        self.epoch = min(self.epoch + 1, EPOCH + 2)
        self.missed = [message for message, _ in self.travelling[1]] + self.read[1]
        self.members[1] = Member(self.speaker)
        self.travelling[1], self.whispers[1], self.read[1] = [], [], []

    @rule(to=MEMBERS, pick=PICK)
    def deliver(self, to: int, pick: int) -> None:
        queue = self.travelling[to]
        if queue:
            message, content = queue.pop(pick % len(queue))
            opened = self.members[to].read(message)
            assert (opened.body, opened.is_ephemeral) == (content, False)
            self.read[to].append(message)

    @rule(to=MEMBERS)
    def deliver_in_order(self, to: int) -> None:
        self.deliver(to, 0)

    @rule(to=MEMBERS, pick=PICK)
    def drop(self, to: int, pick: int) -> None:
        queue = self.travelling[to]
        if queue:
            queue.pop(pick % len(queue))

    @rule(to=MEMBERS, pick=PICK)
    def deliver_a_whisper(self, to: int, pick: int) -> None:
        """One that is in the window is read, whatever was lost before it; any other is refused."""
        queue, member = self.whispers[to], self.members[to]
        if queue:
            message, content = queue.pop(pick % len(queue))
            if message[1:9] in member.table:
                assert member.read(message).body == content
            member.refuses(message)

    @rule(to=MEMBERS, pick=PICK)
    def duplicate(self, to: int, pick: int) -> None:
        if self.read[to]:
            self.members[to].refuses(self.read[to][pick % len(self.read[to])])

    @rule(pick=PICK)
    def show_a_newcomer_the_past(self, pick: int) -> None:
        if self.missed:
            self.members[1].refuses(self.missed[pick % len(self.missed)])

    @rule(to=MEMBERS, pick=PICK, bit=PICK)
    def damage(self, to: int, pick: int, bit: int) -> None:
        queue = self.travelling[to]
        if queue:
            message = queue[pick % len(queue)][0]
            damaged = bytearray(message)
            damaged[bit // 8 % len(damaged)] ^= 1 << bit % 8
            self.members[to].refuses(bytes(damaged), expected=self.members[to].find(message))

    @rule(to=MEMBERS, is_ephemeral=st.booleans())
    def a_fellow_member_forges_the_next_message(self, to: int, is_ephemeral: bool) -> None:
        """The keys are right and the signature is not the speaker's; it may claim any w."""
        whispers = None if is_ephemeral else 1_000
        self.members[to].refuses(forge(self.speaker, body=bytes(70), whispers=whispers, is_ephemeral=is_ephemeral))

    @rule()
    def restart_the_speaker(self) -> None:
        self.speaker.restart()

    @rule(to=MEMBERS)
    def restart(self, to: int) -> None:
        self.members[to].restart()

    @invariant()
    def the_tables_are_those_of_the_states(self) -> None:
        for member in getattr(self, "members", []):
            member.check_table()

    def teardown(self) -> None:
        """All that still travels arrives, last first; after it an ephemeral message is read again."""
        for to, member in enumerate(getattr(self, "members", [])):
            for message, content in reversed(self.travelling[to]):
                assert member.read(message).body == content
            assert member.read(self.speaker.send(b"last", self.epoch)).body == b"last"
            assert member.read(self.speaker.whisper(b"typing", self.epoch)).body == b"typing"
            member.check_table()


TestSchedule = Schedule.TestCase
TestSchedule.settings = examples(60, stateful_step_count=60)
