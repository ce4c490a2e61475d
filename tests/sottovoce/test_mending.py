"""The client that heals its sessions, against a real server; and what it does when the keyserver is no help."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing

from sottovoce import errors, mending
from sottovoce.crypto.errors import CryptoRefusal, Reason
from sottovoce.directory import Directory
from sottovoce.local import Local, now_ms
from sottovoce.mending import Mender
from sottovoce.protocol import healing, sessions
from sottovoce.protocol.reading import Outcome
from sottovoce.protocol.state import Peer, Want
from sottovoce.store.database import Tables, open_store
from sottovoce.store.sent import SentMessage
from sottovoce_wire.frames import Ttl
from sottovoce_wire.ids import AccountId, DeviceId, MessageId
from tests.servers import ServerProcess
from tests.sottovoce.people import ORIGIN, Person
from tests.sottovoce.test_client import PATIENCE, open_client, register, take

NOW = now_ms() // 1000


def change(path: Path, *statements: str) -> None:
    """Change a store while nobody uses it."""
    store = open_store(path)
    with store.transaction() as tables:
        for statement in statements:
            tables.sessions._execute(statement)
    store.close()


async def test_a_client_that_hears_nothing_for_days_starts_anew_and_is_heard(
    shared_server: ServerProcess, tmp_path: Path
) -> None:
    """Bob's store was put back from before he knew anybody. Neither person does anything about it."""
    a, b = tmp_path / "a.db", tmp_path / "b.db"
    await register(b, shared_server, "restored")
    async with open_client(a, server=shared_server.url) as alice:
        await alice.register("steadfast")
        await alice.send("restored", "one")
        async with open_client(b, server=shared_server.url) as bob:
            assert await take(bob, 1) == ["one"]
            await (await bob.send("steadfast", "two")).wait_sent()
        assert await take(alice, 1) == ["two"]
        await (await alice.send("restored", "lost")).wait_sent()
    change(b, "DELETE FROM sessions", "DELETE FROM accepted_handshakes")
    change(a, "UPDATE sessions SET silent_since = silent_since - 259200")
    async with open_client(a, server=shared_server.url) as alice:
        with trio.fail_after(PATIENCE):
            while True:
                settled = alice._sender.settled
                if await alice._local.transact(_generations) == [2, 1] and not await alice._local.transact(_waiting):
                    break
                await settled.wait()
        await (await alice.send("restored", "three")).wait_sent()
    async with open_client(b, server=shared_server.url) as bob:
        assert await take(bob, 1) == ["three"]
        assert await bob._local.transact(lambda tables: len(tables.held.all())) == 1


def _generations(tables: Tables) -> list[int]:
    rows = tables.sessions._execute("SELECT generation FROM sessions ORDER BY generation DESC")
    return [generation for (generation,) in rows]


def _waiting(tables: Tables) -> int:
    return tables.outbox.size()


class Keyserver:
    """Hands out the bundles of one person, or fails."""

    def __init__(self, person: Person, error: errors.SottovoceError | None = None) -> None:
        self.person = person
        self.error = error
        self.asked = 0

    async def bundles(
        self, account_id: AccountId, devices: Sequence[DeviceId] | None, now: int
    ) -> tuple[Peer, list[sessions.Bundle]]:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        if self.error is not None:
            raise self.error
        assert (account_id, devices) == (self.person.own.account_id, [self.person.own.device.device_id])
        return self.person.peer(), [self.person.bundle(now)]


def mender(person: Person, keyserver: Keyserver, wake: Callable[[str], None] = lambda _: None) -> Mender:
    return Mender(Local(person.store), cast("Directory", keyserver), person.own, person.opener, wake)


@pytest.fixture
def talking(alice: Person, bob: Person) -> tuple[Person, Person]:
    alice.meet(bob, NOW)
    assert bob.read(alice.write(bob, "hello", NOW), NOW) is Outcome.NEW
    assert alice.read(bob.write(alice, "hello back", NOW), NOW) is Outcome.NEW
    return alice, bob


def want(one: Person, other: Person) -> None:
    with one.store.transaction() as tables:
        tables.wants.add(other.own.account_id, other.own.device.device_id, Want.FAILURES)


def outbox(person: Person) -> list[bytes]:
    with person.store.transaction() as tables:
        return [waiting.outgoing.body for waiting in tables.outbox.batch(ORIGIN, set())]


async def test_a_wanted_handshake_is_made_once_and_sent(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    want(alice, bob)
    keyserver, woken = Keyserver(bob), list[str]()
    for _ in range(2):
        await mender(alice, keyserver, woken.append).mend()
    assert keyserver.asked == 1
    assert woken == [ORIGIN]
    (envelope,) = outbox(alice)
    assert bob.read(envelope, NOW) is Outcome.CONTROL
    assert alice.sending(bob).session_id == bob.sending(alice).session_id


async def test_an_answer_that_is_owed_is_given(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    for number in range(50):
        assert bob.read(alice.write(bob, str(number), NOW), NOW) is Outcome.NEW
    woken: list[str] = []
    await mender(bob, Keyserver(alice), woken.append).mend()
    assert woken == [ORIGIN]
    (envelope,) = outbox(bob)
    assert alice.read(envelope, NOW) is Outcome.CONTROL


@pytest.mark.parametrize("error", [errors.UntrustedKeys("no"), errors.UnknownRecipient("no")])
async def test_a_device_without_usable_keys_is_left_for_this_time(
    talking: tuple[Person, Person], error: errors.SottovoceError
) -> None:
    alice, bob = talking
    want(alice, bob)
    keyserver = Keyserver(bob, error)
    for _ in range(2):
        await mender(alice, keyserver).mend()
    assert keyserver.asked == 1
    assert outbox(alice) == []


async def test_a_list_that_does_not_follow_the_known_one_starts_nothing(
    talking: tuple[Person, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = talking
    want(alice, bob)

    def forked(*_: object) -> Peer:
        raise CryptoRefusal(Reason.FORKED_LIST, "two lists of one version")

    monkeypatch.setattr(sessions, "newest", forked)
    keyserver = Keyserver(bob)
    for _ in range(2):
        await mender(alice, keyserver).mend()
    assert keyserver.asked == 1
    assert alice.sending(bob).generation == 1


async def test_after_a_failure_the_keyserver_is_left_alone_whatever_comes_in(
    talking: tuple[Person, Person], mock_clock: trio.testing.MockClock
) -> None:
    alice, bob = talking
    want(alice, bob)
    keyserver, sent = Keyserver(bob, errors.ServerUnreachable("away")), trio.Event()
    task = mender(alice, keyserver, lambda _: sent.set())

    async def let_it_run() -> None:
        """Until the task has looked into the store and acted on that, if it does."""
        for _ in range(10):  # as many works as one mending has, and more
            await trio.testing.wait_all_tasks_blocked()
            await task._local.transact(lambda _: None)
        await trio.testing.wait_all_tasks_blocked()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(task.run)
        await let_it_run()
        for seconds, asked in ((0, 1), (mending.EVERY - 1, 1), (1, 2)):
            mock_clock.jump(seconds)
            task.wake()
            await let_it_run()
            assert keyserver.asked == asked
        keyserver.error = None
        mock_clock.jump(mending.EVERY)
        await sent.wait()
        nursery.cancel_scope.cancel()


async def test_an_outbox_that_does_not_empty_is_not_filled_further(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    waiting = bob.write(alice, "0", NOW)
    for number in range(50):
        assert bob.read(alice.write(bob, str(number), NOW), NOW) is Outcome.NEW
    with bob.store.transaction() as tables:
        tables.outbox.add(waiting, NOW)
    await mender(bob, Keyserver(alice)).mend()
    assert len(outbox(bob)) == 1
    with bob.store.transaction() as tables:
        tables.outbox.take_back(waiting.message_id)
    await mender(bob, Keyserver(alice)).mend()
    assert outbox(bob) not in ([], [waiting.body])


async def test_answers_go_out_while_the_keyserver_is_away(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    for number in range(50):
        assert bob.read(alice.write(bob, str(number), NOW), NOW) is Outcome.NEW
    with bob.store.transaction() as tables:
        tables.peers.announce(alice.own.account_id, 2)
    with pytest.raises(errors.ServerUnreachable):
        await mender(bob, Keyserver(alice, errors.ServerUnreachable("away"))).mend()
    assert len(outbox(bob)) == 1


async def test_the_keyserver_is_asked_for_what_a_contact_names_once_in_a_while(
    talking: tuple[Person, Person], mock_clock: trio.testing.MockClock
) -> None:
    """A contact can name another version in every message."""
    alice, bob = talking
    keyserver = Keyserver(alice, errors.UntrustedKeys("nobody"))
    task = mender(bob, keyserver)
    for version in range(2, 5):
        with bob.store.transaction() as tables:
            tables.peers.announce(alice.own.account_id, version)
        await task.mend()
    assert keyserver.asked == 1
    mock_clock.jump(mending.EVERY)
    await task.mend()
    assert keyserver.asked == 2


async def test_nothing_goes_to_a_contact_whose_list_has_forked(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    for number in range(50):
        assert bob.read(alice.write(bob, str(number), NOW), NOW) is Outcome.NEW
    device, keyserver = (alice.own.account_id, alice.own.device.device_id), Keyserver(alice)
    with bob.store.transaction() as tables:
        tables.peers.set_forked_list(alice.own.account_id, b"another")
    await mender(bob, keyserver).mend()
    assert outbox(bob) == []
    with bob.store.transaction() as tables:
        healing.want(tables, *device, Want.LOST, NOW)
    await mender(bob, keyserver).mend()
    assert (outbox(bob), keyserver.asked) == ([], 0)
    with bob.store.transaction() as tables:
        tables.peers.set_forked_list(alice.own.account_id, None)
    await mender(bob, keyserver).mend()
    assert (len(outbox(bob)), keyserver.asked) == (1, 1)


async def test_a_full_outbox_keeps_nobody_from_answers_but_those_who_fill_it(
    talking: tuple[Person, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = talking
    monkeypatch.setattr(mending, "OUTBOX_ENOUGH", 1)
    others = replace(bob.write(alice, "0", NOW), account_id=AccountId(b"o" * 32))
    with bob.store.transaction() as tables:
        for _ in range(2):
            tables.outbox.add(others, NOW)
    for number in range(50):
        assert bob.read(alice.write(bob, str(number), NOW), NOW) is Outcome.NEW
    await mender(bob, Keyserver(alice)).mend()
    assert len(outbox(bob)) == 3


async def test_a_sign_of_life_that_is_refused_moves_no_ratchet(alice: Person, bob: Person) -> None:
    """A message is encrypted before it is sealed, and sealing looks at the list. Otherwise the ratchet in memory would
    be ahead of its row."""
    alice.meet(bob, NOW)
    alice.write(bob, "hello", NOW)
    with alice.store.transaction() as tables:
        tables.peers._execute("UPDATE peers SET device_list = ?", (alice.own.device_list,))
        tables.sessions.put(replace(alice.sending(bob), owed=healing.ANSWER_AFTER, answer_by=NOW))
    before = alice.sending(bob).ratchet.pack()
    await mender(alice, Keyserver(bob)).mend()
    assert outbox(alice) == []
    assert alice.sending(bob).ratchet.pack() == before


# --- Once more ---


def lose(one: Person, other: Person, count: int) -> None:
    """Send what does not arrive; the relay has it no longer, and it is due once more."""
    device = other.own.account_id, other.own.device.device_id
    with one.store.transaction() as tables:
        for number in range(count):
            ids = MessageId(bytes([number]) * 16), other.own.account_id, (device[1],)
            tables.sent.add(SentMessage(*ids, str(number), Ttl.MONTH, NOW * 1000))
        tables.sent.want_repeats(*device, NOW)


async def test_what_was_lost_goes_out_once_more_in_its_order(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    lose(alice, bob, 100)
    woken = list[str]()
    await mender(alice, Keyserver(bob), woken.append).mend()
    await mender(alice, Keyserver(bob)).mend()
    with alice.store.transaction() as tables:
        assert tables.outbox.size() == 100
        first = tables.outbox.batch(ORIGIN, set())
        for waiting in first:
            tables.outbox.remove(waiting.position)
    assert set(woken) == {ORIGIN}
    for body in [*[waiting.outgoing.body for waiting in first], *outbox(alice)]:
        assert bob.read(body, NOW) is Outcome.NEW
    assert bob.texts()[1:] == [str(number) for number in range(100)]


async def test_what_waits_under_a_replaced_session_does_not_go_out_besides(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    waiting = replace(alice.write(bob, "0", NOW), message_id=MessageId(bytes(16)))
    with alice.store.transaction() as tables:
        tables.outbox.add(waiting, NOW)
    lose(alice, bob, 1)
    before = outbox(alice)
    await mender(alice, Keyserver(bob)).mend()
    after = outbox(alice)
    assert len(before) == len(after) == 1
    assert before != after


async def test_repeats_wait_for_an_outbox_that_does_not_empty(
    talking: tuple[Person, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = talking
    lose(alice, bob, 100)
    monkeypatch.setattr(mending, "OUTBOX_ENOUGH", 10)
    await mender(alice, Keyserver(bob)).mend()
    with alice.store.transaction() as tables:
        assert tables.outbox.size() == 64
    monkeypatch.undo()
    await mender(alice, Keyserver(bob)).mend()
    with alice.store.transaction() as tables:
        assert tables.outbox.size() == 100


async def test_what_has_no_session_to_go_out_on_is_given_up(talking: tuple[Person, Person]) -> None:
    """The account has taken the device off its list."""
    alice, bob = talking
    lose(alice, bob, 1)
    with alice.store.transaction() as tables:
        for session in tables.sessions.of_account(bob.own.account_id):
            sessions.wipe(tables, session)
    await mender(alice, Keyserver(bob)).mend()
    assert outbox(alice) == []
    with alice.store.transaction() as tables:
        assert tables.sent.repeats_due(NOW) == []


async def test_a_repeat_that_is_refused_moves_no_ratchet(alice: Person, bob: Person) -> None:
    alice.meet(bob, NOW)
    alice.write(bob, "hello", NOW)
    lose(alice, bob, 1)
    with alice.store.transaction() as tables:
        tables.peers._execute("UPDATE peers SET device_list = ?", (alice.own.device_list,))
    before = alice.sending(bob).ratchet.pack()
    await mender(alice, Keyserver(bob)).mend()
    assert outbox(alice) == []
    assert alice.sending(bob).ratchet.pack() == before
