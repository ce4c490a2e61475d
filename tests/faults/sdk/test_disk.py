"""A client whose disk is full now and then, while both people write: what was refused never happened, the rest comes
once.
"""

from pathlib import Path

import apsw
import pytest

from sottovoce import errors
from tests.faults import scale
from tests.faults.sdk.journal import lost_or_twice
from tests.faults.sdk.world import Peer, peer
from tests.servers import ServerProcess
from tests.sottovoce.store.power import Disk, disk_at

ROUNDS = 60 if scale.FULL else 10


class Full:
    """The disk takes so many changes more, and refuses so many after them."""

    def __init__(self, disk: Disk, takes: int, refuses: int) -> None:
        self._takes = takes
        self._refuses = refuses
        self.refused = 0
        disk.before = self

    def __call__(self) -> None:
        self._takes -= 1
        if self._takes < 0 and self.refused < self._refuses:
            self.refused += 1
            raise apsw.FullError


async def try_to_send(person: Peer, to: str, text: str) -> bool:
    """Whether the message is safe."""
    try:
        await person.client.send(to, text)
    except errors.StoreFailed:
        return False
    return True


@pytest.mark.usefixtures("impatient")
async def test_a_disk_that_is_full_now_and_then_loses_and_repeats_nothing(
    server: ServerProcess, tmp_path: Path
) -> None:
    safe: list[str] = []
    written: list[str] = []
    refusals = 0
    with disk_at(tmp_path / "disk") as disk:
        async with (
            peer(disk.folder / "a.db", server.url, "full-alice") as alice,
            peer(tmp_path / "b.db", server.url, "full-bob") as bob,
        ):
            await alice.send("full-bob", "hello")
            await bob.send("full-alice", "hello to you")
            await alice.until("hello to you")
            for number in range(ROUNDS):
                full = Full(disk, takes=3 * number, refuses=1 + number % 7)
                for half in range(4):
                    text = f"{number}.{half}"
                    if await try_to_send(alice, "full-bob", text):
                        safe.append(text)
                    written.append(f"{text} from bob")
                    await bob.send("full-alice", written[-1])
                refusals += full.refused
            disk.before = lambda: None
            await alice.send("full-bob", "the end")
            await bob.send("full-alice", "the end")
            await bob.until("the end")
            await alice.until("the end")
        expected = ["hello", *safe, "the end"]
        assert lost_or_twice(expected, expected, bob.arrived) == []
        expected = ["hello to you", *written, "the end"]
        assert lost_or_twice(expected, expected, alice.arrived) == []
    assert refusals > ROUNDS
    assert len(safe) < len(written), "some messages must have been refused"
