"""POST /v1/register: what makes an account, what is refused, and that a refusal leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import pytest

from sottovoce_wire import directory as wire
from sottovoce_wire import labels, limits
from sottovoce_wire.errors import Code
from sottovoce_wire.records import NO_LIST_HASH, DeviceList, ListFlag, device_list_hash, split_signed
from tests.sottovoce_keyserver.conftest import Device

if TYPE_CHECKING:
    from tests.sottovoce_keyserver.conftest import Person, ServedKeyserver, StartKeyserver

DAY = limits.DAY
NOW = 1_800_000_000


async def test_a_registered_account_can_be_found_and_reached(keyserver: ServedKeyserver, alice: Person) -> None:
    answer = await keyserver.register(alice, "alice")
    assert keyserver.body(wire.Published, answer).one_time_prekeys == 3

    found = keyserver.body(wire.FoundName, await keyserver.post(wire.PATH_FIND_NAME, wire.FindName("alice")))
    assert (found.root_key, found.username_claim) == (bytes(alice.root.verify_key), alice.claim("alice"))

    bundles = await keyserver.bundles(alice)
    assert (bundles.root_key, bundles.device_list) == (bytes(alice.root.verify_key), alice.list())
    assert [bundle.device_id for bundle in bundles.bundles] == [alice.phone.id]
    assert bundles.bundles[0].prekey_record == alice.phone.prekeys()
    assert bundles.bundles[0].contact_record == alice.phone.contact()


async def test_registering_again_changes_nothing_and_succeeds(keyserver: ServedKeyserver, alice: Person) -> None:
    await keyserver.register(alice, "alice")
    answer = await keyserver.register(alice, "alice")
    assert keyserver.body(wire.Published, answer).one_time_prekeys == 3


async def test_a_username_can_be_added_later(keyserver: ServedKeyserver, alice: Person) -> None:
    await keyserver.register(alice)
    assert (await keyserver.register(alice, "alice")).status_code == 200
    assert (await keyserver.post(wire.PATH_FIND_NAME, wire.FindName("alice"))).status_code == 200


async def test_what_was_registered_is_there_after_a_restart(start_keyserver: StartKeyserver, alice: Person) -> None:
    first = await start_keyserver()
    await first.register(alice, "alice")
    await first.end()
    second = await start_keyserver()
    assert await second.knows(alice)
    problem = second.assert_refused(
        await second.signed(alice.phone, wire.PATH_PUBLISH, alice.phone.publish(), counter=1),
        409,
        Code.COUNTER_CONFLICT,
    )
    assert problem.last_counter == 1


async def test_a_device_of_the_account_registers_itself_with_the_same_list(
    keyserver: ServedKeyserver, alice: Person
) -> None:
    alice.devices.append(alice.device(1))
    await keyserver.register(alice)
    laptop = alice.devices[1]
    answer = await keyserver.signed(laptop, wire.PATH_REGISTER, alice.register(device=laptop))
    assert keyserver.body(wire.Published, answer).one_time_prekeys == 3
    assert {b.device_id for b in (await keyserver.bundles(alice)).bundles} == {alice.phone.id, laptop.id}


async def test_an_account_may_arrive_with_a_later_list(keyserver: ServedKeyserver, alice: Person) -> None:
    body = alice.register(device_list=alice.list(version=7, previous=bytes([7] * 32)))
    assert (await keyserver.signed(alice.phone, wire.PATH_REGISTER, body)).status_code == 200


async def test_a_taken_name_leaves_no_account(keyserver: ServedKeyserver, alice: Person, bob: Person) -> None:
    await keyserver.register(alice, "alice")
    keyserver.assert_refused(await keyserver.register(bob, "alice"), 409, Code.NAME_TAKEN)
    assert not await keyserver.knows(bob)
    assert (await keyserver.signed(bob.phone, wire.PATH_REGISTER, bob.register("bob"), counter=1)).status_code == 200


async def test_an_account_has_one_username(keyserver: ServedKeyserver, alice: Person) -> None:
    await keyserver.register(alice, "alice")
    keyserver.assert_refused(await keyserver.register(alice, "alice2"), 409, Code.ACCOUNT_CONFLICT, "username")


async def test_another_device_list_for_an_account_that_exists_is_refused(
    keyserver: ServedKeyserver, alice: Person
) -> None:
    await keyserver.register(alice)
    payload, _ = split_signed(alice.list())
    later = alice.register(device_list=alice.list(version=2, previous=device_list_hash(payload)))
    answer = await keyserver.signed(alice.phone, wire.PATH_REGISTER, later)
    keyserver.assert_refused(answer, 409, Code.ACCOUNT_CONFLICT, "device list")
    assert (await keyserver.bundles(alice, [])).device_list == alice.list()


def flip_last(record: bytes) -> bytes:
    return record[:-1] + bytes([record[-1] ^ 1])


def publish(alice: Person, **changes: bytes) -> wire.Register:
    return alice.register(publish=msgspec.structs.replace(alice.phone.publish(), **changes))


BAD_RECORDS: dict[str, Callable[[Person, Person], wire.Register]] = {
    "a list with a broken signature": lambda a, b: a.register(device_list=flip_last(a.list())),
    "a list that is another account's": lambda a, b: a.register(device_list=a.list(account_id=b.id)),
    "a list signed by another root": lambda a, b: a.register(device_list=b.list()),
    "a root key that is another account's": lambda a, b: a.register(root_key=bytes(b.root.verify_key)),
    "a root key that is no point": lambda a, b: a.register(root_key=bytes(32)),
    "a first list with a predecessor": lambda a, b: a.register(device_list=a.list(previous=bytes([1] * 32))),
    "a list from the future": lambda a, b: a.register(device_list=a.list(time=NOW + DAY + 1)),
    "a list with a version that no database holds": lambda a, b: a.register(device_list=a.list(version=2**63)),
    "a final list": lambda a, b: a.register(device_list=a.list(flag=ListFlag.FINAL)),
    "a list with a tail": lambda a, b: a.register(
        device_list=a.list()[:-64] + b"x" + a.root.sign(labels.DEVICE_LIST + a.list()[:-64] + b"x").signature
    ),
    "a list with a device that did not agree": lambda a, b: a.register(
        device_list=a.list(devices=(a.phone.entry(), msgspec.structs.replace(a.device(1).entry(), consent=bytes(64))))
    ),
    "a list with somebody else's device": lambda a, b: a.register(
        device_list=a.list(devices=(a.phone.entry(), b.phone.entry()))
    ),
    "prekeys with a broken signature": lambda a, b: publish(a, prekey_record=flip_last(a.phone.prekeys())),
    "prekeys of another device": lambda a, b: publish(a, prekey_record=a.device(1).prekeys()),
    "prekeys of another account": lambda a, b: publish(a, prekey_record=a.phone.prekeys(account_id=b.id)),
    "prekeys that name another device": lambda a, b: publish(a, prekey_record=a.phone.prekeys(device_id=b.phone.id)),
    "prekeys in the place of an address": lambda a, b: publish(a, contact_record=a.phone.prekeys()),
    "prekeys from the future": lambda a, b: publish(
        a, prekey_record=a.phone.prekeys(created=NOW + DAY + 1, expires=NOW + 2 * DAY)
    ),
    "prekeys that have expired": lambda a, b: publish(
        a, prekey_record=a.phone.prekeys(created=NOW - 2 * DAY, expires=NOW)
    ),
    "prekeys for too long": lambda a, b: publish(a, prekey_record=a.phone.prekeys(expires=NOW + 30 * DAY + 1)),
    "prekeys that end before they begin": lambda a, b: publish(
        a, prekey_record=a.phone.prekeys(created=NOW + 100, expires=NOW + 100)
    ),
    "an address with a broken signature": lambda a, b: publish(a, contact_record=flip_last(a.phone.contact())),
    "an address of another account": lambda a, b: publish(a, contact_record=a.phone.contact(account_id=b.id)),
    "an address for too long": lambda a, b: publish(a, contact_record=a.phone.contact(expires=NOW + 31 * DAY)),
    "an address with a number that no database holds": lambda a, b: publish(
        a, contact_record=a.phone.contact(sequence=2**63)
    ),
    "an address that is not canonical": lambda a, b: publish(
        a, contact_record=a.phone.contact(origin="https://RELAY.example")
    ),
    "a claim with a broken signature": lambda a, b: a.register(username_claim=flip_last(a.claim("alice"))),
    "a claim of another account": lambda a, b: a.register(username_claim=b.claim("alice")),
    "a claim that names another account": lambda a, b: a.register(username_claim=a.claim("alice", account_id=b.id)),
    "a claim from the future": lambda a, b: a.register(username_claim=a.claim("alice", time=NOW + DAY + 1)),
}  # fmt: skip


@pytest.mark.parametrize("change", BAD_RECORDS.values(), ids=BAD_RECORDS.keys())
async def test_a_record_that_does_not_hold_leaves_no_account(
    keyserver: ServedKeyserver, alice: Person, bob: Person, change: Callable[[Person, Person], wire.Register]
) -> None:
    answer = await keyserver.signed(alice.phone, wire.PATH_REGISTER, change(alice, bob))
    keyserver.assert_refused(answer, 422, Code.BAD_RECORD)
    assert not await keyserver.knows(alice)
    assert not await keyserver.knows(bob)


async def test_a_claim_to_what_is_no_username_leaves_no_account(keyserver: ServedKeyserver, alice: Person) -> None:
    for bad in ("a", "Alice", "1alice", "al ice", "x" * 33):
        answer = await keyserver.signed(alice.phone, wire.PATH_REGISTER, alice.register(bad))
        keyserver.assert_refused(answer, 400, Code.BAD_REQUEST, "username")
    assert not await keyserver.knows(alice)


async def test_a_device_that_is_not_listed_registers_nothing(keyserver: ServedKeyserver, alice: Person) -> None:
    stranger = alice.device(1)
    answer = await keyserver.signed(stranger, wire.PATH_REGISTER, alice.register(device=stranger))
    keyserver.assert_refused(answer, 403, Code.UNKNOWN_DEVICE)
    assert not await keyserver.knows(alice)


async def test_nobody_registers_an_account_with_records_they_only_saw(
    keyserver: ServedKeyserver, alice: Person, bob: Person
) -> None:
    body = wire.encode(alice.register("alice"))
    headers = bob.phone.headers(keyserver.server.url, wire.PATH_REGISTER, body)
    mixed = headers | {
        name: value
        for name, value in alice.phone.headers(keyserver.server.url, wire.PATH_REGISTER, body).items()
        if name != wire.HEADER_SIGNATURE
    }
    answer = await keyserver.post(wire.PATH_REGISTER, body, mixed)
    keyserver.assert_refused(answer, 401, Code.BAD_REQUEST_SIGNATURE)
    assert not await keyserver.knows(alice)


async def test_nobody_registers_anothers_account_id_under_a_root_key_of_their_own(
    keyserver: ServedKeyserver, alice: Person, bob: Person
) -> None:
    """Everything is signed and consistent, but the account id is not that of the root key: the id would be squatted."""
    thief = Device(alice.id, bob.phone.key, bob.phone.identity_key, bob.now)
    unsigned = DeviceList(alice.id, 1, NO_LIST_HASH, bob.now, ListFlag.NORMAL, (thief.entry(),))
    stolen = bob.root.sign(labels.DEVICE_LIST + unsigned.pack()).signature
    request = wire.Register(bytes(bob.root.verify_key), unsigned.pack() + stolen, thief.publish())
    answer = await keyserver.signed(thief, wire.PATH_REGISTER, request)
    keyserver.assert_refused(answer, 422, Code.BAD_RECORD)
    assert not await keyserver.knows(alice)
