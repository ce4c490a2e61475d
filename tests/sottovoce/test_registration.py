"""Prekeys are renewed on schedule, and a device whose published ones are stale sends nothing before that."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from trio.testing import MockClock

from sottovoce import Client, errors, registration
from sottovoce.client import UPKEEP_EVERY, Choices, running
from sottovoce.crypto import identity
from sottovoce.directory import CounterConflict, Directory, NumberConflict, Signer
from sottovoce.local import Local, now_ms
from sottovoce.registration import REFILL_BELOW, STALE_AFTER, Registration, _confirm, _publish_body
from sottovoce.store.account import Account, AccountTable
from sottovoce.store.counter import NUMBERS, start_anew
from sottovoce.store.database import Tables, open_store
from sottovoce.store.prekeys import STOCK
from sottovoce.testing import World
from sottovoce.testing.fixtures import sottovoce_world as sottovoce_world
from sottovoce.testing.network import ORIGIN
from sottovoce_wire import directory as wire
from sottovoce_wire import limits, records
from tests.sottovoce.people import Person
from tests.sottovoce.worlds import look

T = TypeVar("T")
DAY = limits.DAY
#: Transactions of a renewal up to the one that confirms its first publication: what is due, the body, the counter.
KILLED_AFTER = 4


@dataclass
class Keyserver(Directory):
    """What a device tells its keyserver; `away`, `last_counter` and `last_number` make it difficult."""

    away: bool = False
    last_counter: int = 0
    last_number: int | None = None
    remaining: int = STOCK
    taken: list[wire.Publish] = field(default_factory=list)
    name_taken: bool = False
    claims: list[bytes] = field(default_factory=list)

    async def register(self, signer: Signer, counter: int, request: wire.Register) -> None:
        await trio.lowlevel.checkpoint()
        if self.name_taken:
            raise errors.NameTaken("taken")
        self.claims.append(request.username_claim or b"")

    async def publish(self, signer: Signer, counter: int, request: wire.Publish) -> int:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise errors.ServerUnreachable("away")
        if counter <= self.last_counter:
            raise CounterConflict(self.last_counter)
        self.last_counter = counter
        if self.last_number is not None:
            raise NumberConflict(self.last_number)
        self.taken.append(request)
        self.remaining += len(request.one_time_prekeys)
        return self.remaining

    def record_ids(self) -> list[int]:
        return [
            records.PrekeyRecord.parse(records.split_signed(each.prekey_record)[0]).record_id for each in self.taken
        ]


@pytest.fixture
def account(alice: Person) -> Account:
    """Registered now: everything that there is is published."""
    now = now_ms() // 1000
    with alice.store.transaction() as tables:
        tables.account.set_registered("alice")
        _confirm(tables, _publish_body(tables, now), now)
        found = tables.account.get()
    assert found is not None
    return found


def later(person: Person, seconds: int) -> Local:
    """The person's store, and a clock that says that so much time has passed."""
    return Local(person.store, clock=lambda: now_ms() + seconds * 1000)


@pytest.mark.parametrize(("days", "published"), [(0, []), (1, [1]), (6, [1]), (7, [2]), (20, [2]), (-2, [2])])
async def test_records_are_published_daily_and_made_anew_weekly_or_when_they_lie_ahead(
    alice: Person, account: Account, days: int, published: list[int]
) -> None:
    keyserver = Keyserver()
    await Registration(later(alice, days * DAY + 60 * (days > 0)), keyserver).renew(account)
    assert keyserver.record_ids() == published


async def test_a_device_with_stale_prekeys_sends_nothing_before_the_keyserver_has_new_ones(
    alice: Person, account: Account
) -> None:
    """Also once new ones were made here: what counts is what others are handed."""
    keyserver = Keyserver(away=True)
    renewing = Registration(later(alice, STALE_AFTER + DAY), keyserver)
    for _ in range(3):
        with pytest.raises(errors.ServerUnreachable):
            await renewing.keep_fresh(account)
    keyserver.away = False
    await renewing.keep_fresh(account)
    assert keyserver.record_ids() == [2]
    keyserver.away = True
    await renewing.keep_fresh(account)


async def test_new_prekeys_that_the_keyserver_did_not_get_are_offered_again_at_once(
    alice: Person, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "ROTATE_AFTER", 0)
    keyserver = Keyserver(away=True)
    renewing = Registration(Local(alice.store), keyserver)
    with pytest.raises(errors.ServerUnreachable):
        await renewing.renew(account)
    monkeypatch.undo()
    keyserver.away = False
    await renewing.renew(account)
    assert keyserver.record_ids() == [2]
    await renewing.renew(account)
    assert keyserver.record_ids() == [2]


async def test_two_that_renew_at_once_publish_one_after_the_other(alice: Person, account: Account) -> None:
    """After a machine has slept, the schedule and the first message both want new prekeys."""
    keyserver = Keyserver()
    renewing = Registration(later(alice, STALE_AFTER + DAY), keyserver)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(renewing.renew, account)
        nursery.start_soon(renewing.keep_fresh, account)
    assert keyserver.record_ids() == [2]


async def test_one_time_prekeys_are_refilled_when_few_are_left(alice: Person, account: Account) -> None:
    keyserver = Keyserver(remaining=REFILL_BELOW - 1)
    await Registration(later(alice, 2 * DAY), keyserver).renew(account)
    assert keyserver.remaining == STOCK
    sent = [prekey.id for request in keyserver.taken for prekey in request.one_time_prekeys]
    assert min(sent) > STOCK, "an id was offered twice"


async def test_a_refill_is_not_forgotten_by_a_device_that_is_killed_after_it_has_heard_of_it(
    alice: Person, account: Account
) -> None:
    keyserver = Keyserver(remaining=REFILL_BELOW - 1)
    local = later(alice, 2 * DAY)
    renewing = Registration(local, keyserver)
    transactions = 0

    async def transact(work: Callable[[Tables], T]) -> T:
        nonlocal transactions
        transactions += 1
        if transactions > KILLED_AFTER:
            raise errors.StoreFailed("killed")
        return await Local.transact(local, work)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(local, "transact", transact)
        with pytest.raises(errors.StoreFailed):
            await renewing.renew(account)
    assert (len(keyserver.taken), keyserver.remaining) == (1, REFILL_BELOW - 1)
    await renewing.renew(account)
    assert keyserver.remaining == STOCK


async def test_after_a_restore_the_first_publication_replaces_every_one_time_prekey(
    alice: Person, account: Account
) -> None:
    keyserver = Keyserver()
    now = now_ms() // 1000
    with alice.store.transaction() as tables:
        start_anew(tables, now)
    await Registration(Local(alice.store), keyserver).renew(account)
    (request,) = keyserver.taken
    assert request.one_time_prekeys_from > now
    assert [prekey.id for prekey in request.one_time_prekeys] == [
        request.one_time_prekeys_from + number for number in range(STOCK)
    ]


async def test_a_beginning_that_the_keyserver_has_not_heard_of_is_lifted_with_the_record_id(
    alice: Person, account: Account
) -> None:
    """Another copy may have told it of one with the same id, and other keys; its record id was smaller then."""
    now = now_ms() // 1000
    with alice.store.transaction() as tables:
        start_anew(tables, now)
    keyserver = Keyserver()
    await Registration(later(alice, 8 * DAY), keyserver).renew(account)
    (request,) = keyserver.taken
    assert keyserver.record_ids() == [request.one_time_prekeys_from - 1]
    assert request.one_time_prekeys_from > now + STOCK
    assert len(request.one_time_prekeys) == STOCK
    await Registration(later(alice, 16 * DAY), keyserver).renew(account)
    assert keyserver.taken[1].one_time_prekeys_from == request.one_time_prekeys_from


@pytest.mark.parametrize("last", [NUMBERS, limits.MAX_COUNTER])
async def test_a_keyserver_cannot_use_up_a_devices_numbers(alice: Person, account: Account, last: int) -> None:
    """It names one of the last; a device that believed it could never again be put back from a copy."""
    refused = Registration(later(alice, 2 * DAY), Keyserver(last_number=last))
    with pytest.raises(errors.ServerRefused):
        await refused.renew(account)
    keyserver = Keyserver()
    await Registration(later(alice, 2 * DAY), keyserver).renew(account)
    assert (keyserver.record_ids(), keyserver.taken[0].one_time_prekeys_from) == ([1], 0)


async def test_a_keyserver_that_refuses_every_number_fills_no_store(alice: Person, account: Account) -> None:
    local, keyserver = later(alice, 2 * DAY), Keyserver(last_number=1_000)
    for _ in range(4):
        with pytest.raises(errors.ServerRefused):
            await Registration(local, keyserver).renew(account)
    with alice.store.transaction() as tables:
        assert len(tables.prekeys.unpublished(1_000)) == STOCK
        assert len(tables.prekeys._execute("SELECT 1 FROM prekeys").fetchall()) == 2
        assert tables.prekeys.one_time(1) is not None
    keyserver.last_number = None
    await Registration(local, keyserver).renew(account)
    assert keyserver.record_ids() == [keyserver.taken[0].one_time_prekeys_from - 1]


async def test_the_root_key_signs_the_name_and_is_locked_away(alice: Person) -> None:
    keyserver = Keyserver(name_taken=True)
    with alice.store.transaction() as tables:
        account = tables.account.get()
    assert account is not None
    registering = Registration(Local(alice.store), keyserver)
    with pytest.raises(errors.NameTaken):
        await registering.register(account, "alice")
    keyserver.name_taken = False
    await registering.register(account, "alicia")
    (claim,) = keyserver.claims
    assert identity.open_username_claim(account.root_public, claim).username == "alicia"
    with alice.store.transaction() as tables:
        assert tables.account.root() is None


async def test_a_counter_that_fell_behind_is_caught_up_with(alice: Person, account: Account) -> None:
    keyserver = Keyserver(last_counter=1_000)
    await Registration(later(alice, 2 * DAY), keyserver).renew(account)
    assert keyserver.last_counter == 1_001


@asynccontextmanager
async def newcomer(world: World, folder: Path) -> AsyncIterator[Client]:
    """A client on a store of its own, which is not registered yet."""
    local = Local(open_store(folder / "store.db"), inline=True, clock=world.clock.milliseconds(timedelta()))
    async with running(local, world.network.of("alice"), ORIGIN, Choices()) as client:
        yield client


async def cancel_at(client: Client, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Register, and be cancelled in the transaction that calls this method of the account's table."""
    real = getattr(AccountTable, method)
    with trio.CancelScope() as scope, monkeypatch.context() as patched:

        def called(table: AccountTable, *values: object) -> None:
            real(table, *values)
            scope.cancel()

        patched.setattr(AccountTable, method, called)
        await client.register("alice")
    assert scope.cancelled_caught


@pytest.mark.parametrize("method", ["set_registered", "lock_root"])
async def test_a_registration_that_was_cancelled_at_its_end_is_found_by_calling_again(
    sottovoce_world: World, autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async with newcomer(sottovoce_world, tmp_path) as client:
        await cancel_at(client, method, monkeypatch)
        with pytest.raises(errors.AlreadyRegistered):
            await client.register("bob")
        await client.register("alice")
        assert client.username == "alice"
        sottovoce_world.clock.advance(days=1)
        await trio.sleep(UPKEEP_EVERY)
        assert len(sottovoce_world.network.keyserver.given("alice")) == 2, "nobody looks after its prekeys"


async def test_a_registration_that_was_cancelled_leaves_no_root_key_open(
    sottovoce_world: World, autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with newcomer(sottovoce_world, tmp_path) as client:
        await cancel_at(client, "set_registered", monkeypatch)
        assert await look(client, lambda tables: tables.account.root()) is None
