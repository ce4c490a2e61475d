"""What time does: a relay that replays a month later, clocks that are a day wrong, contacts away for a week."""

import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import chain
from pathlib import Path

import pytest
import trio

from sottovoce_wire.errors import Code
from sottovoce_wire.frames import ClientFrame, Send, SendItem
from sottovoce_wire.ids import EnvelopeId
from sottovoce_wire.limits import DAY
from tests.faults import scale
from tests.faults.sdk.between import Mischief, bad_server
from tests.faults.sdk.clocks import timed_world
from tests.faults.sdk.journal import lost_or_twice, shown_wrongly
from tests.faults.sdk.world import Peer, mortal, peer
from tests.relay_clients import connect
from tests.servers import ServerProcess

#: Contacts, and days of the week that are lived through.
CONTACTS, DAYS = (50, tuple(range(8))) if scale.FULL else (8, (0, 3, 7))


class Recording(Mischief):
    """Keeps every envelope that anybody sends."""

    def __init__(self) -> None:
        self.items: list[SendItem] = []

    def heard(self, frames: list[ClientFrame]) -> Sequence[ClientFrame]:
        self.items += [item for frame in frames if isinstance(frame, Send) for item in frame.items]
        return frames


@pytest.mark.parametrize("remembers", [True, False])
async def test_a_relay_that_replays_everything_a_month_later_shows_nothing_again(
    hidden_server: ServerProcess, tmp_path: Path, remembers: bool
) -> None:
    """First messages, the others, and damage to both: also when so much has come since that no repeat is remembered."""
    names = f"replayed-{remembers}".lower(), f"writer-{remembers}".lower()
    texts = [f"line {number}" for number in range(30)]
    async with bad_server(hidden_server.url) as bad:
        bad.mischief = recording = Recording()
        with mortal(tmp_path / "alice", bad.url) as alice:
            async with peer(tmp_path / "bob.db", bad.url, names[1]) as bob:
                assert await alice.live(name=names[0]) == 0
                await bob.send(names[0], *texts[:15])  # all of them sealed: Alice has not answered
                assert await alice.live(until=[texts[14]], to=names[1], texts=["hello"], forgets=not remembers) == 0
                await bob.until("hello")
                await bob.send(names[0], *texts[15:])
                assert await alice.live(until=[texts[29]], forgets=not remembers) == 0
                assert len(recording.items) > len(texts)
                await replay(hidden_server.url, recording.items)
                await bob.send(names[0], "a month later")
                assert await alice.live(until=["a month later"], clock=31 * DAY, forgets=not remembers) == 0
    expected = [*texts, "a month later"]
    assert lost_or_twice(expected, expected, alice.said("shown")) == []
    assert shown_wrongly(alice.events()) == []


async def replay(relay: str, items: list[SendItem]) -> None:
    """Send recorded envelopes once more, from behind."""
    async with connect(relay) as client:
        for item in items:
            again = SendItem(item.queue, item.send_key, EnvelopeId(os.urandom(16)), item.ttl, item.body)
            assert await client.send([again]) == [Code.ACCEPTED]


@pytest.mark.parametrize(("ahead", "which"), [(DAY - 600, "fast"), (600 - DAY, "slow")])
async def test_a_clock_that_is_a_day_wrong_loses_nothing(
    server: ServerProcess, tmp_path: Path, ahead: int, which: str
) -> None:
    """Wrong from the first moment, set right, and wrong the other way round."""
    names = [f"{which}-{who}" for who in ("alice", "bob", "carol")]
    sent: list[str] = []
    with mortal(tmp_path / "alice", server.url) as alice:
        async with (
            peer(tmp_path / "bob.db", server.url, names[1]) as bob,
            peer(tmp_path / "carol.db", server.url, names[2]) as carol,
        ):
            assert await alice.live(name=names[0], to=names[1], texts=["hello"], clock=ahead) == 0
            await bob.until("hello")
            for clock in (ahead, 0, -ahead, 0):
                texts = [f"{len(sent)} from bob", f"{len(sent)} from carol"]
                sent += texts
                await bob.send(names[0], texts[0])
                await carol.send(names[0], texts[1])
                assert await alice.live(to=names[1], texts=[f"{len(sent)}"], until=texts, clock=clock) == 0
                await bob.until(f"{len(sent)}")
    said = alice.said("tried")
    assert lost_or_twice(said, said, bob.arrived) == []
    for who in ("bob", "carol"):
        written, shown = ([text for text in texts if text.endswith(who)] for texts in (sent, alice.said("shown")))
        assert lost_or_twice(written, written, shown) == []


async def test_many_contacts_half_of_them_away_for_a_week_and_one_blocked_lose_nothing(tmp_path: Path) -> None:
    names = [f"contact-{number}" for number in range(CONTACTS)]
    there, away, blocked = names[::2], names[1::2], names[0]
    with timed_world(tmp_path) as world:
        async with peer(tmp_path / "me.db", world.url, "me-myself") as me, AsyncExitStack() as open_peers:

            async def opened(name: str) -> Peer:
                return await open_peers.enter_async_context(peer(tmp_path / f"{name}.db", world.url, name))

            people: dict[str, Peer] = {}
            for name in there:
                people[name] = await opened(name)
            for name in away:
                async with peer(tmp_path / f"{name}.db", world.url, name) as one:
                    await me.send(name, f"hello {name}")
                    await one.until(f"hello {name}")
                    await one.send("me-myself", f"{name} goes away")
            for name in there:
                await me.send(name, f"hello {name}")
                await people[name].send("me-myself", f"{name} stays")
            await me.until(*(f"{name} stays" for name in there), *(f"{name} goes away" for name in away))
            await me.client.block(blocked)
            for day in DAYS:
                world.set(day * DAY)
                for name in names:
                    if name != blocked:
                        await me.client.send(name, f"day {day}")
                async with trio.open_nursery() as nursery:
                    for name in there:
                        nursery.start_soon(people[name].send, "me-myself", f"{name} on day {day}")
            for name in away:
                people[name] = await opened(name)
                await people[name].send("me-myself", f"{name} is back")
            days = [f"day {day}" for day in DAYS]
            for name in names:
                expected = [*([f"hello {name}"] if name in there else []), *(days if name != blocked else [])]
                await people[name].until(*expected)
                assert lost_or_twice(expected, expected, people[name].arrived) == []
            said = {name: [f"{name} {what}" for what in ("stays", *(f"on {day}" for day in days))] for name in there}
            said |= {name: [f"{name} {what}" for what in ("goes away", "is back")] for name in away}
            said[blocked] = [f"{blocked} stays"]
            await me.until(*chain.from_iterable(said.values()))
            for name, texts in said.items():
                assert lost_or_twice(texts, texts, [text for text in me.arrived if text.startswith(f"{name} ")]) == []
