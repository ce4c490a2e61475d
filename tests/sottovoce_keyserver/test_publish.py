"""POST /v1/publish: records only go forward, one-time prekeys are added once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sottovoce_wire import directory as wire
from sottovoce_wire import limits
from sottovoce_wire.errors import Code

if TYPE_CHECKING:
    from tests.sottovoce_keyserver.conftest import Person, ServedKeyserver


@pytest.fixture
async def registered(keyserver: ServedKeyserver, alice: Person) -> ServedKeyserver:
    """A keyserver that knows alice, whose phone has the one-time prekeys 0, 1 and 2."""
    await keyserver.register(alice)
    return keyserver


async def test_new_records_replace_the_old(registered: ServedKeyserver, alice: Person) -> None:
    phone = alice.phone
    body = phone.publish(prekey_record=phone.prekeys(record_id=2), contact_record=phone.contact(sequence=9))
    assert (await registered.publish(phone, body)).status_code == 200
    [bundle] = (await registered.bundles(alice)).bundles
    assert (bundle.prekey_record, bundle.contact_record) == (body.prekey_record, body.contact_record)


async def test_the_same_again_succeeds(registered: ServedKeyserver, alice: Person) -> None:
    answer = await registered.publish(alice.phone, alice.phone.publish())
    assert registered.body(wire.Published, answer).one_time_prekeys == 3


async def test_records_do_not_go_back(registered: ServedKeyserver, alice: Person) -> None:
    phone = alice.phone
    newer = phone.publish(prekey_record=phone.prekeys(record_id=5), contact_record=phone.contact(sequence=5))
    await registered.publish(phone, newer)
    for older in (
        phone.publish(prekey_record=phone.prekeys(record_id=4), contact_record=phone.contact(sequence=6)),
        phone.publish(prekey_record=phone.prekeys(record_id=6), contact_record=phone.contact(sequence=4)),
    ):
        problem = registered.assert_refused(await registered.publish(phone, older), 422, Code.BAD_RECORD, "go back")
        assert problem.last_number == 5
    [bundle] = (await registered.bundles(alice)).bundles
    assert (bundle.prekey_record, bundle.contact_record) == (newer.prekey_record, newer.contact_record)


async def test_a_number_stands_for_one_record(registered: ServedKeyserver, alice: Person) -> None:
    phone = alice.phone
    for other in (
        phone.publish(prekey_record=phone.prekeys(signed_prekey=bytes([1] * 32))),
        phone.publish(contact_record=phone.contact(origin="https://other.example")),
    ):
        registered.assert_refused(await registered.publish(phone, other), 422, Code.BAD_RECORD, "go back")


async def test_known_one_time_prekeys_are_kept_and_new_ones_added(registered: ServedKeyserver, alice: Person) -> None:
    changed = wire.OneTimePrekey(0, bytes([9] * 32))
    body = wire.Publish(alice.phone.prekeys(), alice.phone.contact(), [changed, wire.OneTimePrekey(7, bytes([7] * 32))])
    answer = await registered.publish(alice.phone, body)
    assert registered.body(wire.Published, answer).one_time_prekeys == 4
    [bundle] = (await registered.bundles(alice)).bundles
    assert bundle.one_time_prekey == wire.OneTimePrekey(0, bytes(32))


async def test_a_repeated_request_does_not_bring_a_key_back_that_was_handed_out(
    registered: ServedKeyserver, alice: Person
) -> None:
    [bundle] = (await registered.bundles(alice)).bundles
    assert bundle.one_time_prekey is not None
    answer = await registered.publish(alice.phone, alice.phone.publish())
    assert registered.body(wire.Published, answer).one_time_prekeys == 2
    [again] = (await registered.bundles(alice)).bundles
    assert again.one_time_prekey is not None
    assert again.one_time_prekey.id != bundle.one_time_prekey.id


async def test_an_older_publication_that_is_repeated_does_not_bring_a_key_back_either(
    registered: ServedKeyserver, alice: Person
) -> None:
    taken = []
    for published in (range(3), range(10, 12), range(3)):
        await registered.publish(alice.phone, alice.phone.publish(published))
        [bundle] = (await registered.bundles(alice)).bundles
        taken.append(bundle.one_time_prekey and bundle.one_time_prekey.id)
    assert taken == [0, 1, 2]
    [bundle] = (await registered.bundles(alice)).bundles
    assert bundle.one_time_prekey is not None
    assert bundle.one_time_prekey.id == 10


async def test_a_device_that_begins_anew_has_all_its_one_time_prekeys_replaced_for_good(
    registered: ServedKeyserver, alice: Person
) -> None:
    """As one whose store was put back from a copy wants it: it lacks the private parts of some. Said twice, it is the
    same, and an older publication is refused."""
    begun = alice.phone.publish(range(1, 8), one_time_prekeys_from=2)
    for expected in (6, 6):
        answer = await registered.publish(alice.phone, begun)
        assert registered.body(wire.Published, answer).one_time_prekeys == expected
    answer = await registered.publish(alice.phone, alice.phone.publish(range(8, 9)))
    problem = registered.assert_refused(answer, 422, Code.BAD_RECORD, "go back")
    assert problem.last_number == 7
    taken = []
    for _ in range(7):
        [bundle] = (await registered.bundles(alice)).bundles
        taken.append(bundle.one_time_prekey and bundle.one_time_prekey.id)
    assert taken == [2, 3, 4, 5, 6, 7, None]


async def test_a_device_that_begins_anew_within_what_it_published_is_known_by_its_new_keys(
    registered: ServedKeyserver, alice: Person
) -> None:
    """It was put back twice, soon after another: the second time it makes other keys under some of the same ids."""
    await registered.publish(alice.phone, alice.phone.publish(range(10, 20), one_time_prekeys_from=10))
    other = [wire.OneTimePrekey(number, bytes([number] * 32)) for number in (15, 16)]
    body = wire.Publish(alice.phone.prekeys(), alice.phone.contact(), other, 15)
    taken = []
    for expected in (2, 1, 0):
        answer = await registered.publish(alice.phone, body)
        assert registered.body(wire.Published, answer).one_time_prekeys == expected
        [bundle] = (await registered.bundles(alice)).bundles
        taken.append(bundle.one_time_prekey)
    assert taken == [*other, None]
    answer = await registered.publish(alice.phone, alice.phone.publish(range(15, 20), one_time_prekeys_from=15))
    assert registered.body(wire.Published, answer).one_time_prekeys == 3


async def test_what_a_device_drops_are_its_own_one_time_prekeys(
    keyserver: ServedKeyserver, alice: Person, bob: Person
) -> None:
    alice.devices.append(alice.device(1))
    await keyserver.register(alice)
    await keyserver.register(bob)
    await keyserver.publish(alice.devices[1], alice.devices[1].publish(range(0), one_time_prekeys_from=2**32 - 1))
    for person in (alice, bob):
        [bundle] = (await keyserver.bundles(person, [person.phone.id])).bundles
        assert bundle.one_time_prekey is not None


async def test_a_device_has_at_most_two_hundred_one_time_prekeys(registered: ServedKeyserver, alice: Person) -> None:
    full = alice.phone.publish(range(limits.MAX_ONE_TIME_PREKEYS))
    answer = await registered.publish(alice.phone, full)
    assert registered.body(wire.Published, answer).one_time_prekeys == limits.MAX_ONE_TIME_PREKEYS
    one_more = alice.phone.publish(range(200, 201))
    registered.assert_refused(await registered.publish(alice.phone, one_more), 422, Code.TOO_MANY_PREKEYS)
    await registered.bundles(alice)
    answer = await registered.publish(alice.phone, one_more)
    assert registered.body(wire.Published, answer).one_time_prekeys == limits.MAX_ONE_TIME_PREKEYS


async def test_two_one_time_prekeys_do_not_share_an_id(registered: ServedKeyserver, alice: Person) -> None:
    twice = [wire.OneTimePrekey(7, bytes(32)), wire.OneTimePrekey(7, bytes([1] * 32))]
    body = wire.Publish(alice.phone.prekeys(), alice.phone.contact(), twice)
    registered.assert_refused(await registered.publish(alice.phone, body), 400, Code.BAD_REQUEST, "id")


async def test_only_listed_devices_of_known_accounts_publish(
    registered: ServedKeyserver, alice: Person, bob: Person
) -> None:
    stranger = alice.device(1)
    registered.assert_refused(await registered.publish(stranger, stranger.publish()), 403, Code.UNKNOWN_DEVICE)
    registered.assert_refused(await registered.publish(bob.phone, bob.phone.publish()), 404, Code.UNKNOWN_ACCOUNT)


async def test_a_device_publishes_its_own_records_only(registered: ServedKeyserver, alice: Person, bob: Person) -> None:
    for body in (
        alice.phone.publish(prekey_record=bob.phone.prekeys()),
        alice.phone.publish(contact_record=bob.phone.contact()),
    ):
        registered.assert_refused(await registered.publish(alice.phone, body), 422, Code.BAD_RECORD)
