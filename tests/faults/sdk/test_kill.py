"""SIGKILL at each point of a client's life, one life after the other on the same store: nothing is lost, shown twice or
encrypted twice.

The points are counted in a life that ends by itself; the suite takes some of them, evenly, and scripts/chaos each.
"""

from pathlib import Path

import trio

from sottovoce.store.database import open_store
from tests.faults import scale
from tests.faults.sdk.journal import lost_or_twice, shown_wrongly
from tests.faults.sdk.keys import used_twice
from tests.faults.sdk.points import NO_COMMIT
from tests.faults.sdk.world import KILLED, Mortal, mortal, peer
from tests.servers import ServerProcess


def chosen(points: list[str], *, is_first: bool = True) -> list[str]:
    """Where to kill, of the points that a life has passed: at each, or at a middle one of each kind and the first. In
    the suite not where the store is as after the last commit."""
    if scale.FULL:
        return points
    kinds: dict[str, list[str]] = {}
    for point in points:
        if NO_COMMIT not in point and "BEGIN" not in point:
            kinds.setdefault(point.rpartition(" ")[0], []).append(point)
    middle = [of_kind[len(of_kind) // 2] for of_kind in kinds.values()]
    return [*middle, *(of_kind[0] for of_kind in kinds.values() if is_first and len(of_kind) > 1)]


def waiting(person: Mortal) -> int:
    """How many envelopes a dead process has left in the outbox."""
    store = open_store(person.folder / "store.db")
    with store.transaction() as tables:
        size = tables.outbox.size()
    store.close()
    return size


def handled(person: Mortal) -> tuple[int, int]:
    """How many messages the store holds, and how many of them are handled."""
    store = open_store(person.folder / "store.db")
    with store.transaction() as tables:
        marks = [mark for (mark,) in tables.inbox._execute("SELECT handled FROM messages")]
    store.close()
    return len(marks), sum(marks)


async def test_a_client_killed_at_any_point_while_it_sends_loses_and_repeats_nothing(
    server: ServerProcess, tmp_path: Path
) -> None:
    with mortal(tmp_path / "alice", server.url) as alice:
        async with peer(tmp_path / "bob.db", server.url, "send-bob") as bob:
            assert await alice.live(name="send-alice", to="send-bob", texts=["first of all"]) == 0
            await bob.send("send-alice", "hello")  # with his contact queue: between two queues there is no order
            assert await alice.live(until=["hello"]) == 0
            points = await alice.points(to="send-bob", texts=[f"counted {n}" for n in range(6)])
            left = []
            for point in chosen(points):
                texts = [f"{point}.{n}" for n in range(6)]
                assert await alice.live(to="send-bob", texts=texts, fatal=point) in (KILLED, 0)
                left.append(waiting(alice))
            assert await alice.live(to="send-bob", texts=["last of all"]) == 0
            assert used_twice(alice.keys()) == []
            await bob.until("last of all")
            assert lost_or_twice(alice.said("sent"), alice.said("tried"), bob.arrived) == []
    assert sum(left) > 0, "something must be in the outbox when the process dies"
    assert_killed_where_it_matters(alice, "COMMIT", "Send")


async def test_a_client_killed_at_any_point_while_it_receives_loses_and_shows_nothing_twice(
    server: ServerProcess, tmp_path: Path
) -> None:
    sent: list[str] = []

    def more(round_: str) -> list[str]:
        sent.extend(f"{round_}.{n}" for n in range(6))
        return sent[-6:]

    with mortal(tmp_path / "alice", server.url) as alice:
        async with peer(tmp_path / "bob.db", server.url, "receive-bob") as bob:
            assert await alice.live(name="receive-alice", to="receive-bob", texts=["hello"]) == 0
            await bob.until("hello")
            await bob.send("receive-alice", *more("counted"))
            points = await alice.points(until=[sent[-1]])
            for point in chosen(points):
                await bob.send("receive-alice", *more(point))
                assert await alice.live(until=[sent[-1]], fatal=point) in (KILLED, 0)
            await bob.send("receive-alice", *more("last"))
            assert await alice.live(until=[sent[-1]]) == 0
    assert shown_wrongly(alice.events()) == []
    assert lost_or_twice(sent, sent, list(dict.fromkeys(alice.said("shown")))) == []
    assert handled(alice) == (len(sent), len(sent)), "every message is there once, and marked"
    assert used_twice(alice.keys()) == []
    assert_killed_where_it_matters(alice, "COMMIT", "Ack")


async def test_both_ends_killed_at_once_lose_and_repeat_nothing(server: ServerProcess, tmp_path: Path) -> None:
    with mortal(tmp_path / "alice", server.url) as alice, mortal(tmp_path / "bob", server.url) as bob:
        assert await bob.live(name="both-bob") == 0
        assert await alice.live(name="both-alice", to="both-bob", texts=["hello"]) == 0
        assert await bob.live(to="both-alice", texts=["hello to you"], until=["hello"]) == 0
        chosen_points = chosen(
            await alice.points(to="both-bob", texts=[f"counted {n}" for n in range(4)], until=["hello to you"])
        )
        for here, there in zip(chosen_points, reversed(chosen_points), strict=True):
            await together(alice, bob, here, there)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends_well, alice, "both-bob", "alice's last", "bob's last")
            nursery.start_soon(ends_well, bob, "both-alice", "bob's last", "alice's last")
    for writer, reader in ((alice, bob), (bob, alice)):
        assert shown_wrongly(reader.events()) == []
        arrived = list(dict.fromkeys(reader.said("shown")))
        assert lost_or_twice(writer.said("sent"), writer.said("tried"), arrived) == []
        assert used_twice(writer.keys()) == []
    assert_killed_where_it_matters(alice, "COMMIT")
    assert_killed_where_it_matters(bob, "COMMIT")


async def together(alice: Mortal, bob: Mortal, here: str, there: str) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one_life, alice, "both-bob", f"{here}/{there} a", here)
        nursery.start_soon(one_life, bob, "both-alice", f"{here}/{there} b", there)


async def one_life(person: Mortal, to: str, word: str, point: str) -> None:
    assert await person.live(to=to, texts=[f"{word} {n}" for n in range(4)], fatal=point) in (KILLED, 0)


async def ends_well(person: Mortal, to: str, text: str, until: str) -> None:
    assert await person.live(to=to, texts=[text], until=[until]) == 0


async def test_a_client_killed_at_any_point_of_its_first_life_can_begin_again(
    server: ServerProcess, tmp_path: Path
) -> None:
    """A new account each time: registered, found by name, its first message sealed."""
    with mortal(tmp_path / "counted", server.url) as counted:
        async with peer(tmp_path / "bob.db", server.url, "first-bob") as bob:
            points = await counted.points(name="first-counted", to="first-bob", texts=["counted"])
            assert any("POST" in what for what in points)
            for number, point in enumerate(chosen(points, is_first=False)):
                alice = counted.another(f"{number}")
                order = {"name": f"first-{number}", "to": "first-bob"}
                assert await alice.live(**order, texts=[f"{number} first"], fatal=point) in (KILLED, 0)
                assert await alice.live(**order, texts=[f"{number} second"]) == 0
                await bob.until(f"{number} second")
                arrived = [text for text in bob.arrived if text.startswith(f"{number} ")]
                assert lost_or_twice(alice.said("sent"), alice.said("tried"), arrived) == []
                assert used_twice(alice.keys()) == []


def assert_killed_where_it_matters(person: Mortal, *words: str) -> None:
    """Most lives ended by a kill, and some of them between these."""
    where = person.said("killed")
    assert len(where) > len(person.said("life")) // 2
    for word in words:
        assert any(word in place for place in where), where
