"""SIGKILL at a random moment under load, again and again on the same data: what was answered holds."""

import random
import signal
from pathlib import Path

from sottovoce_wire.frames import KeyClass
from tests.faults import scale
from tests.faults.history import History, Kind, complaints
from tests.faults.load import Owner, Pace, Sender, keep_busy
from tests.faults.stored import envelopes_in, faults_in
from tests.relay_clients import Mailbox, run_relay_process

PACES = [Pace.AT_ONCE, Pace.SLOWLY, Pace.RESTLESS, Pace.ABSENT]


class Scene:
    """Four queues, three senders, and all that they have seen over every life of the relay."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - nobody guesses here
        self.history = History()
        boxes = [Mailbox() for _ in PACES]
        self.owners = [Owner(box, self.history, self.rng) for box in boxes]
        # Strangers' envelopes take another path, and their quota is small.
        kinds = [(KeyClass.CONTACT, 40), (KeyClass.GROUP, 40), (KeyClass.STRANGER, 4)]
        self.senders = [
            Sender(number, self.rng.sample(boxes, 3), kind, self.history, self.rng, window)
            for number, (kind, window) in enumerate(kinds)
        ]

    async def create_queues(self, data: Path) -> None:
        async with run_relay_process(data) as relay:
            for owner in self.owners:
                async with relay.connect() as client:
                    await client.create(owner.box)
            assert (await relay.end(signal.SIGTERM))[0] == 0

    async def live_and_be_killed(self, data: Path) -> bool:
        """One life of the relay, ended when a random number of random things have happened.

        Whether something was unanswered and something unacknowledged then: otherwise the kill shows nothing.
        """
        for owner, pace in zip(self.owners, self.rng.sample(PACES, len(PACES)), strict=True):
            owner.pace = pace
        present = [owner for owner in self.owners if owner.pace is not Pace.ABSENT]
        kind = self.rng.choice([Kind.SAID, Kind.ACCEPTED, Kind.DELIVERED, Kind.ACKED])
        async with run_relay_process(data) as relay:
            async with keep_busy(relay, [*self.senders, *present]):
                await self.history.until(Kind.DELIVERED, self.history.counts[Kind.DELIVERED] + 50)
                await self.history.until(kind, self.history.counts[kind] + self.rng.randint(1, 500))
                relay.process.kill()
                killed = len(self.history.events)
            assert await relay.process.wait() == -signal.SIGKILL
        said, delivered = (self.history.all_of(kind, killed) for kind in (Kind.SAID, Kind.DELIVERED))
        return bool(self.history.never(Kind.ACCEPTED, said) and self.history.never(Kind.ACKED, delivered))

    async def settle(self, data: Path) -> None:
        """The last life: everything unanswered is sent again, everything that waits is taken."""
        async with run_relay_process(data) as relay:
            for sender in self.senders:
                async with relay.connect() as client:
                    await sender.finish(client)
            for owner in self.owners:
                async with relay.connect() as client:
                    await owner.drain(client)
            assert (await relay.end(signal.SIGTERM))[0] == 0


async def test_what_was_answered_survives_sigkill_at_any_moment(tmp_path: Path) -> None:
    scene = Scene(scale.SEED)
    await scene.create_queues(tmp_path)
    kills = counted = 0
    while counted < scale.ROUNDS:
        kills += 1
        print(f"kill {kills}, seed {scale.SEED}")
        counted += await scene.live_and_be_killed(tmp_path)
        assert faults_in(tmp_path) == []
    assert kills < 2 * scale.ROUNDS, "most kills must come while something is under way"
    await scene.settle(tmp_path)
    assert not scene.history.counts[Kind.REFUSED], "nothing was to be tried again: the order would not be the relay's"
    assert complaints(scene.history.events) == []
    assert envelopes_in(tmp_path) == 0
    assert faults_in(tmp_path) == []
