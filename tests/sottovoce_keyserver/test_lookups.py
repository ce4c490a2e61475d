"""The anonymous look-ups: names and bundles, and one-time prekeys that are handed out once."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
import trio

from sottovoce_keyserver.poplimit import FETCHES, PERIOD, PopLimit
from sottovoce_wire import directory as wire
from sottovoce_wire import limits
from sottovoce_wire.errors import Code
from sottovoce_wire.ids import AccountId

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sottovoce_keyserver.conftest import Clock, Person, ServedKeyserver, StartKeyserver


async def test_an_unknown_name_is_unknown(keyserver: ServedKeyserver) -> None:
    keyserver.assert_refused(await keyserver.post(wire.PATH_FIND_NAME, wire.FindName("bob")), 404, Code.UNKNOWN_NAME)


@pytest.mark.parametrize("name", ["", "b", "Bob", "bob ", "бob", "b" * 33, "../bob"])
async def test_what_is_no_name_is_a_bad_request(keyserver: ServedKeyserver, name: str) -> None:
    keyserver.assert_refused(await keyserver.post(wire.PATH_FIND_NAME, wire.FindName(name)), 400, Code.BAD_REQUEST)


async def test_an_unknown_account_is_unknown(keyserver: ServedKeyserver, alice: Person) -> None:
    answer = await keyserver.post(wire.PATH_BUNDLES, wire.FetchBundles(alice.id))
    keyserver.assert_refused(answer, 404, Code.UNKNOWN_ACCOUNT)


async def test_each_fetch_takes_another_one_time_prekey_until_none_is_left(
    keyserver: ServedKeyserver, alice: Person
) -> None:
    await keyserver.register(alice)
    handed_out = [(await keyserver.bundles(alice)).bundles[0].one_time_prekey for _ in range(5)]
    assert [prekey and prekey.id for prekey in handed_out] == [0, 1, 2, None, None]


async def test_many_fetches_at_once_never_get_the_same_key(keyserver: ServedKeyserver, alice: Person) -> None:
    body = alice.register(publish=alice.phone.publish(range(FETCHES)))
    await keyserver.signed(alice.phone, wire.PATH_REGISTER, body)
    got: list[int] = []

    async def fetch() -> None:
        prekey = (await keyserver.bundles(alice)).bundles[0].one_time_prekey
        assert prekey is not None
        got.append(prekey.id)

    async with trio.open_nursery() as nursery:
        for _ in range(FETCHES):
            nursery.start_soon(fetch)
    assert sorted(got) == list(range(FETCHES))


async def test_over_the_limit_a_bundle_comes_without_a_one_time_prekey(
    keyserver: ServedKeyserver, alice: Person, bob: Person, clock: Clock
) -> None:
    for person in (alice, bob):
        body = person.register(publish=person.phone.publish(range(FETCHES + 2)))
        await keyserver.signed(person.phone, wire.PATH_REGISTER, body)
    for _ in range(FETCHES):
        assert (await keyserver.bundles(alice)).bundles[0].one_time_prekey is not None
    assert (await keyserver.bundles(alice)).bundles[0].one_time_prekey is None
    assert (await keyserver.bundles(bob)).bundles[0].one_time_prekey is not None
    clock.now += PERIOD
    assert (await keyserver.bundles(alice)).bundles[0].one_time_prekey is not None


async def test_while_the_database_cannot_be_written_bundles_come_without_a_one_time_prekey(
    keyserver: ServedKeyserver, alice: Person, tmp_path: Path
) -> None:
    await keyserver.register(alice)
    other = sqlite3.connect(tmp_path / "keyserver.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with trio.fail_after(4):  # less than the database waits for a lock otherwise
        for _ in range(2):
            [bundle] = (await keyserver.bundles(alice)).bundles
            assert bundle.one_time_prekey is None
    other.close()
    [bundle] = (await keyserver.bundles(alice)).bundles
    assert bundle.one_time_prekey is not None


async def test_readiness_comes_back_without_anybody_changing_anything(
    keyserver: ServedKeyserver, alice: Person, tmp_path: Path
) -> None:
    await keyserver.register(alice)
    other = sqlite3.connect(tmp_path / "keyserver.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    await keyserver.bundles(alice)
    other.close()
    url = keyserver.server.url + "/readyz"
    assert (await keyserver.http.get(url)).status_code == 503
    with trio.fail_after(20):
        while (await keyserver.http.get(url)).status_code != 200:  # noqa: ASYNC110 - no event comes over a socket
            await trio.sleep(0.01)


def test_the_table_of_recent_fetches_is_bounded() -> None:
    limit = PopLimit(lambda: 0)
    for number in range(25_000):
        assert limit.allows(AccountId(number.to_bytes(32, "big")))
    assert len(limit._fetches) <= 10_000


async def test_asking_for_no_devices_gives_the_list_and_takes_nothing(
    keyserver: ServedKeyserver, alice: Person
) -> None:
    await keyserver.register(alice)
    answer = await keyserver.bundles(alice, [])
    assert (answer.device_list, answer.bundles) == (alice.list(), [])
    assert (await keyserver.bundles(alice)).bundles[0].one_time_prekey == wire.OneTimePrekey(0, bytes(32))


async def test_only_the_wanted_devices_give_a_one_time_prekey(keyserver: ServedKeyserver, alice: Person) -> None:
    alice.devices.append(alice.device(1))
    laptop = alice.devices[1]
    await keyserver.register(alice)
    await keyserver.publish(laptop, laptop.publish())
    first = await keyserver.bundles(alice, [laptop.id, bytes(16)])
    assert [bundle.device_id for bundle in first.bundles] == [laptop.id]
    by_device = {bundle.device_id: bundle.one_time_prekey for bundle in (await keyserver.bundles(alice)).bundles}
    assert {device: prekey and prekey.id for device, prekey in by_device.items()} == {alice.phone.id: 0, laptop.id: 1}


async def test_a_device_that_never_published_is_absent(keyserver: ServedKeyserver, alice: Person) -> None:
    alice.devices.append(alice.device(1))
    await keyserver.register(alice)
    answer = await keyserver.bundles(alice)
    assert answer.device_list == alice.list()
    assert [bundle.device_id for bundle in answer.bundles] == [alice.phone.id]


async def test_a_device_whose_records_have_expired_is_absent(
    keyserver: ServedKeyserver, alice: Person, clock: Clock
) -> None:
    await keyserver.register(alice)
    clock.now += limits.RECORD_LIFETIME
    assert (await keyserver.bundles(alice)).bundles == []


async def test_the_server_says_what_it_is_and_where_its_relay_is(
    keyserver: ServedKeyserver, start_keyserver: StartKeyserver, tmp_path_factory: pytest.TempPathFactory
) -> None:
    answer = await keyserver.http.get(keyserver.server.url + wire.PATH_INFO)
    assert keyserver.body(wire.Info, answer) == wire.Info("sottovoce-keyserver", [1], keyserver.server.url)
    other = await start_keyserver(data=tmp_path_factory.mktemp("other"), relay_url="https://Relay.example/")
    answer = await other.http.get(other.server.url + wire.PATH_INFO)
    assert other.body(wire.Info, answer).relay == "https://relay.example"
