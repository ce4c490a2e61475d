"""Power cuts between any two writes of clients that talk: what was reported is there in the next life, nothing is shown
twice as new, no key is used twice.

Real stores on a disk that loses what was not synced, in a world whose servers go on. Round after round on the same
stores; the suite cuts at some of the writes, scripts/chaos at each.
"""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import apsw
import pytest
import trio
from trio.testing import MockClock

from sottovoce import Client, errors
from sottovoce.store import database
from sottovoce.store.database import Store, open_store
from sottovoce.testing import World
from sottovoce.testing.world import _Person
from tests.faults import scale
from tests.faults.sdk.journal import Event, lost_or_twice, of_kind, shown_wrongly
from tests.sottovoce.store.power import Cut, Disk, disk_at

#: In the suite, how often power goes for one person, and for both.
ROUNDS: Final = 12
#: What everybody writes in a round.
LINES: Final = 2
OTHER: Final = {"alice": "bob", "bob": "alice"}


@dataclass
class Power:
    """Goes at the disk's change number `moment`: nothing is written after it. `gone` is called then."""

    disk: Disk
    moment: int
    cut: Cut
    gone: Callable[[], object]
    changes: int = 0
    left: dict[str, bytes] | None = None

    def __call__(self) -> None:
        self.changes += 1
        if self.changes == self.moment:
            self.left = self.disk.after_power_cut(self.cut, self.moment)
            self.gone()
        if self.left is not None:
            raise apsw.IOError


@dataclass
class Side:
    """One person, over all their lives, and what they have said, been shown and handled."""

    world: World
    nursery: trio.Nursery
    name: str
    path: Path
    said: list[Event] = field(default_factory=list)
    _client: Client | None = None
    _store: Store | None = None

    async def come(self) -> None:
        """Raises StoreError without power."""
        self._store = open_store(self.path, state=self.path.parent / f"{self.name}-state")
        assert not self._store.is_restored, "what a cut leaves is no copy"
        self.world._people[self.name] = _Person(self._store)
        self._client = await self.world.person(self.name, accept_everyone=True)
        self.said.append(["life"])
        self.nursery.start_soon(self._read, self._client)

    async def _read(self, client: Client) -> None:
        with suppress(errors.StoreFailed):
            async for message in client.messages():
                self.said.append(["shown", message.text, str(message.attempt)])
                await message.mark_handled()
                self.said.append(["handled", message.text])

    async def send(self, text: str) -> None:
        """If they can."""
        if self._client is not None:
            self.said.append(["tried", text])
            with suppress(errors.SottovoceError):
                await self._client.send(OTHER[self.name], text)
                self.said.append(["sent", text])

    async def go(self) -> None:
        if self._client is not None:
            await self.world.crash(self.name)
            self._client = None
        if self._store is not None:
            with suppress(errors.StoreFailed):  # without power
                self._store.close()
            self._store = None


async def a_round(world: World, sides: list[Side], losing: list[Side], disk: Disk, moment: int) -> int | None:
    """A life of all who may lose power. How many changes of the disk it had if they did not."""
    kinds = [*Cut]
    with ExitStack() as dark:
        names = [side.name for side in losing]
        disk.before = power = Power(
            disk, moment, kinds[moment % len(kinds)], lambda: dark.enter_context(world.faults.offline(*names))
        )
        with suppress(errors.StoreError):
            for side in losing:
                await side.come()
        for line in range(LINES):
            for side in sides:
                await side.send(f"{side.name} {moment}.{line}")
            await trio.sleep(7)
        for side in losing:
            await side.go()
        disk.before = lambda: None
    if power.left is not None:
        disk.power_back(power.left)
    return power.changes if power.left is None else None


@pytest.mark.parametrize("losing", [["alice"], ["alice", "bob"]], ids=len)
async def test_a_power_cut_between_any_two_writes_loses_nothing_and_repeats_nothing(
    autojump_clock: MockClock,
    sottovoce_world: World,
    nursery: trio.Nursery,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    losing: list[str],
) -> None:
    monkeypatch.setattr(database, "COMMITS_IN_LOG", 7)
    with disk_at(tmp_path / "disk") as disk:
        sides = {
            name: Side(sottovoce_world, nursery, name, (disk.folder if name in losing else tmp_path) / f"{name}.db")
            for name in OTHER
        }
        for side in sides.values():
            await side.come()
        for side in sides.values():
            await side.send(f"{side.name} begins")
            await trio.sleep(60)
        there = [side for name, side in sides.items() if name in losing]
        for side in there:
            await side.go()
        all_sides = [*sides.values()]
        changes = await a_round(sottovoce_world, all_sides, there, disk, moment=0)
        assert changes is not None
        step = 1 if scale.FULL else changes // ROUNDS | 1  # odd: every kind of cut in turn
        moments = range(1, changes, step)
        cuts = [await a_round(sottovoce_world, all_sides, there, disk, moment) is None for moment in moments]
        for side in there:
            await side.come()
        await trio.sleep(600)
        for side in sides.values():
            await side.go()
    for name, side in sides.items():
        other = sides[OTHER[name]]
        arrived = list(dict.fromkeys(of_kind(side.said, "shown")))
        assert lost_or_twice(of_kind(other.said, "sent"), of_kind(other.said, "tried"), arrived) == []
        assert shown_wrongly(side.said) == []
    assert sottovoce_world.wire.reused() == []
    assert sum(cuts) > len(cuts) // 2
    said = [word for side in there for word in side.said]
    assert len(of_kind(said, "sent")) < len(of_kind(said, "tried")), "some must have been at it when power went"
    nursery.cancel_scope.cancel()
