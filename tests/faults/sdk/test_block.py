"""SIGKILL at each point of a life in which a contact is blocked, and the key of the contact queue gives way to another:
the others' messages arrive, the blocked one's do not, and the relay knows exactly the keys that the rules say.

Each point is met by somebody of their own, who was a contact until then.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from sottovoce.protocol import contact_key
from sottovoce.store import account
from sottovoce.store.database import open_store
from sottovoce_relay.app import DATABASE
from sottovoce_wire.ids import QueueId, SendKey, send_key_hash
from tests.faults import scale
from tests.faults.sdk.journal import lost_or_twice, shown_wrongly
from tests.faults.sdk.keys import used_twice
from tests.faults.sdk.world import KILLED, Mortal, Peer, mortal, peer
from tests.servers import ServerProcess

#: Points of one Bob: fewer than the keys that a month takes without delay.
POINTS: Final = contact_key.AT_ONCE - 10
#: In the suite: after the wish for a key is stored, after the relay was told of the key, before its answer is noted and
#: after. What counts is how many of the kind a life passes from here on.
SOME: Final = (("after COMMIT", 2), ("after CreateQueue", 1), ("before COMMIT", 1), ("after COMMIT", 1))


def chosen(points: list[str]) -> list[str]:
    """Where to kill, of the points that a life has passed."""
    if scale.FULL:
        return points
    return [[point for point in points if point.rpartition(" ")[0] == kind][-count] for kind, count in SOME]


def contact_queue(person: Mortal) -> tuple[QueueId, SendKey]:
    """The contact queue of a dead process, and the key that it hands out."""
    store = open_store(person.folder / "store.db")
    with store.transaction() as tables:
        found = tables.account.queue(account.CONTACT).owner.queue_id, tables.account.contact_key()
    store.close()
    return found


def keys_at_relay(server: ServerProcess, queue: QueueId) -> dict[bytes, bool]:
    """The hashes of a queue's send keys, and whether each is demoted."""
    with closing(sqlite3.connect(f"file:{server.folder / DATABASE}?mode=ro", uri=True)) as database:
        found = database.execute("SELECT door, dies_at FROM send_keys").fetchall()
    return {door[16:]: dies_at is not None for door, dies_at in found if door[:16] == queue}


async def test_a_client_killed_at_any_point_of_blocking_ends_with_the_keys_that_the_rules_say(
    server: ServerProcess, tmp_path: Path
) -> None:
    with mortal(tmp_path / "counted", server.url) as counted:
        async with peer(tmp_path / "alice.db", server.url, "block-alice") as alice:
            async with peer(tmp_path / "m.db", server.url, "block-m") as blocked:
                await acquaint(counted, "block-counted", alice, blocked)
            points = chosen(await counted.points(blocks="block-m"))
            for number, part in enumerate(points[at : at + POINTS] for at in range(0, len(points), POINTS)):
                bob = counted.another(f"bob-{number}")
                await acquaint(bob, f"block-bob-{number}", alice)
                await block_some(bob, f"block-bob-{number}", alice, part, server)


async def acquaint(bob: Mortal, name: str, *contacts: Peer) -> None:
    """Bob writes to these: they are contacts, and have the key of his contact queue."""
    for contact in contacts:
        assert await bob.live(name=name, to=contact.client.username, texts=[f"{name} writes"]) == 0
        await contact.until(f"{name} writes")


async def block_some(bob: Mortal, name: str, alice: Peer, points: list[str], server: ServerProcess) -> None:
    """Bob blocks somebody for each point, is killed there, and does it again."""
    queue, key = contact_queue(bob)
    demoted, sent, killed = set[bytes](), list[str](), 0
    for number, point in enumerate(points):
        mallory_is = f"{name}-m-{number}"
        async with peer(bob.folder / f"m-{number}.db", server.url, mallory_is) as mallory:
            await acquaint(bob, name, mallory)
            killed += await bob.live(blocks=mallory_is, fatal=point) == KILLED
            sent.append(f"{name} {number}")
            await alice.send(name, sent[-1])
            assert await bob.live(blocks=mallory_is, until=[sent[-1]]) == 0
            await mallory.send(name, "from the blocked")
        demoted.add(send_key_hash(key))
        _, key = contact_queue(bob)
        expected = {**dict.fromkeys(demoted, True), send_key_hash(key): False}
        assert keys_at_relay(server, queue) == expected, point
    sent.append(f"{name} at last")
    await alice.send(name, sent[-1])
    assert await bob.live(until=[sent[-1]]) == 0
    assert killed > len(points) // 2
    assert lost_or_twice(sent, sent, list(dict.fromkeys(bob.said("shown")))) == []
    assert shown_wrongly(bob.events()) == []
    assert used_twice(bob.keys()) == []
