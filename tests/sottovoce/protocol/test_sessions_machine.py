"""Two stores and everything that can come between them: however it went, both sides end on one session, and talk."""

import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sottovoce.protocol import sessions
from sottovoce.protocol.reading import Outcome
from sottovoce.protocol.state import Outgoing
from tests.sottovoce.people import Person, make_person

NOW = int(time.time())
HOUR = 3600
DAY = 24 * HOUR
STEPS = 120


@dataclass
class World:
    """Two people, a clock, and what is under way to each."""

    people: tuple[Person, Person]
    rnd: random.Random
    now: int = NOW
    mail: tuple[list[Outgoing], list[Outgoing]] = field(default_factory=lambda: ([], []))
    written: int = 0

    def write(self, who: int, text: str) -> None:
        """As a client sends: with a handshake before if one is needed."""
        person, other = self.people[who], self.people[1 - who]
        with person.store.transaction() as tables:
            missing = sessions.missing(tables, other.own.account_id, self.now)
        if missing != []:
            person.meet(other, self.now)
        self.mail[1 - who].append(person.write(other, text, self.now))

    def mend(self, who: int) -> None:
        self.mail[1 - who].extend(self.people[who].mend(self.people[1 - who], self.now))

    def deliver(self, who: int, at: int = 0) -> Outcome:
        return self.people[who].read(self.mail[who].pop(at), self.now)

    def deliver_all(self) -> None:
        for who in (0, 1):
            while self.mail[who]:
                self.deliver(who)

    def something(self, loss: float, forgetting: float) -> None:
        """One thing that happens."""
        rnd, who = self.rnd, self.rnd.randrange(2)
        chance = rnd.random()
        if chance < forgetting:
            self.people[who].lose_sessions()
        elif chance < 0.45:
            self.written += 1
            self.write(who, str(self.written))
        elif chance < 0.5:
            self.now += rnd.choice([1, HOUR, 7 * HOUR])
        elif chance < 0.6:
            self.mend(who)
        elif self.mail[who]:
            at = 0 if rnd.random() < 0.7 else rnd.randrange(len(self.mail[who]))
            if rnd.random() < loss:
                del self.mail[who][at]
            else:
                self.deliver(who, at)

    def settle(self) -> None:
        """A quiet time in which nothing is lost: each writes now and then, and the days pass."""
        for number in range(6):
            for who in (0, 1):
                self.write(who, f"quiet {number}")
                self.deliver_all()
                self.mend(who)
                self.deliver_all()
            self.now += 4 * DAY


@pytest.mark.parametrize("seed", range(12))
def test_both_sides_always_end_on_one_session_and_talk(tmp_path: Path, seed: int) -> None:
    rnd = random.Random(seed)  # noqa: S311 - the same story every time
    people = (make_person(tmp_path / "a.db"), make_person(tmp_path / "b.db"))
    world = World(people, rnd)
    for person in people:
        person.store._connection.pragma("synchronous", "off")
    if seed % 2:  # both at once
        world.write(0, "from the one")
        world.write(1, "from the other")
    for _ in range(STEPS):
        world.something(loss=0.2 if seed % 3 else 0.0, forgetting=0.02 if seed % 4 else 0.0)
    world.settle()
    one, other = people
    assert one.sending(other).session_id == other.sending(one).session_id
    before = one.sending(other).session_id
    for who, person in enumerate(people):
        world.write(who, "the end")
        assert world.deliver(1 - who) is Outcome.NEW
        assert person.tags() == person.derived_tags()
    assert one.sending(other).session_id == other.sending(one).session_id == before
    if seed % 3 == 0 and seed % 4 == 0:
        texts = [text for person in people for text in person.texts() if text.isdigit()]
        assert len(texts) == world.written, "nothing was lost on the way, and no state, but a message was"
    for person in people:
        assert "internal_error" not in person.undecryptable()
        person.store.close()
