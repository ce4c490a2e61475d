"""A keyserver that lies: it can withhold, it cannot swap. Real HTTP, with answers made by the test."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeAlias

import msgspec
import pytest
import trio

from sottovoce import errors
from sottovoce.crypto import identity
from sottovoce.crypto.identity import RootKey
from sottovoce.crypto.prekeys import OwnPrekeys
from sottovoce.directory import CounterConflict, Directory, NumberConflict, Signer
from sottovoce.network import Internet
from sottovoce.store.account import INTAKE
from sottovoce_wire import directory as wire
from sottovoce_wire import labels, limits, records
from sottovoce_wire.errors import Code
from sottovoce_wire.ids import DeviceId
from sottovoce_wire.records import ListFlag
from tests.sottovoce.people import ORIGIN, Person

NOW = int(time.time())
Lie: TypeAlias = Callable[[wire.Bundles, Person], wire.Bundles]


@asynccontextmanager
async def answering(body: bytes, status: int = 200) -> AsyncIterator[Directory]:
    """A directory whose keyserver gives this one answer to everything."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        await stream.send_all(head.encode() + body)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        directory = Directory(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", Internet())
        yield directory
        await directory.aclose()
        nursery.cancel_scope.cancel()


def honest(person: Person, *, created: int = NOW, origin: str = ORIGIN) -> wire.Bundles:
    """What an honest keyserver answers about a person."""
    device = person.own.device
    prekeys = OwnPrekeys.generate(device, person.own.account_id, 7, created)
    with person.store.transaction() as tables:
        intake = tables.account.queue(INTAKE)
    contact = records.ContactRecord(
        person.own.account_id,
        device.device_id,
        1,
        created,
        created + limits.RECORD_LIFETIME,
        intake.owner.queue_id,
        intake.send_key,
        origin,
    )
    contact_record = device.sign_record(labels.CONTACT_RECORD, contact.pack())
    bundle = wire.Bundle(device.device_id, prekeys.record, contact_record, None)
    return wire.Bundles(person.own.root_public, person.own.device_list, [bundle])


def flip(record: bytes, at: int = -1) -> bytes:
    at %= len(record)
    return record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :]


def change_bundle(answer: wire.Bundles, **changes: object) -> wire.Bundles:
    return msgspec.structs.replace(answer, bundles=[msgspec.structs.replace(answer.bundles[0], **changes)])


async def test_an_honest_answer_is_taken(bob: Person) -> None:
    async with answering(wire.encode(honest(bob))) as directory:
        peer, bundles = await directory.bundles(bob.own.account_id, None, NOW)
    assert peer == bob.peer()
    assert bundles[0].entry.device_id == bob.own.device.device_id


LIES: dict[str, Lie] = {
    "another account": lambda _, mallory: honest(mallory),
    "another account without a bundle": lambda _, mallory: msgspec.structs.replace(honest(mallory), bundles=[]),
    "another root key": lambda honest_one, mallory: msgspec.structs.replace(
        honest_one, root_key=mallory.own.root_public
    ),
    "an altered device list": lambda honest_one, _: msgspec.structs.replace(
        honest_one, device_list=flip(honest_one.device_list, 100)
    ),
    "a device list with an altered signature": lambda honest_one, _: msgspec.structs.replace(
        honest_one, device_list=flip(honest_one.device_list)
    ),
    "another account's device list": lambda honest_one, mallory: msgspec.structs.replace(
        honest_one, device_list=mallory.own.device_list
    ),
    "the bundle of another's device": lambda honest_one, mallory: msgspec.structs.replace(
        honest_one, bundles=honest(mallory).bundles
    ),
    "another's prekeys under this device": lambda honest_one, mallory: change_bundle(
        honest_one, prekey_record=honest(mallory).bundles[0].prekey_record
    ),
    "a prekey record with an altered key": lambda honest_one, _: change_bundle(
        honest_one, prekey_record=flip(honest_one.bundles[0].prekey_record, 70)
    ),
    "a prekey record with an altered signature": lambda honest_one, _: change_bundle(
        honest_one, prekey_record=flip(honest_one.bundles[0].prekey_record)
    ),
    "a contact record with an altered queue": lambda honest_one, _: change_bundle(
        honest_one, contact_record=flip(honest_one.bundles[0].contact_record, 75)
    ),
    "another's queue under this device": lambda honest_one, mallory: change_bundle(
        honest_one, contact_record=honest(mallory).bundles[0].contact_record
    ),
    "an unknown device": lambda honest_one, _: change_bundle(honest_one, device_id=DeviceId(bytes(16))),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
async def test_keys_that_do_not_prove_themselves_are_refused(
    bob: Person, person: Callable[[str], Person], lie: Lie
) -> None:
    async with answering(wire.encode(lie(honest(bob), person("mallory")))) as directory:
        with pytest.raises(errors.UntrustedKeys):
            await directory.bundles(bob.own.account_id, None, NOW)


async def test_a_device_that_has_been_away_for_too_long_is_left_out(bob: Person) -> None:
    async with answering(wire.encode(honest(bob, created=NOW - 31 * limits.DAY))) as directory:
        _, bundles = await directory.bundles(bob.own.account_id, None, NOW)
    assert bundles == []


async def test_a_public_server_cannot_point_a_client_at_a_private_relay(bob: Person) -> None:
    answer = wire.encode(honest(bob, origin="https://192.168.0.1"))
    async with answering(answer) as directory:
        assert len((await directory.bundles(bob.own.account_id, None, NOW))[1]) == 1
        directory._origin = "https://chat.example.org"  # as if that were the server that it had dialled
        assert (await directory.bundles(bob.own.account_id, None, NOW))[1] == []


async def test_a_name_must_be_claimed_by_the_account_that_is_named(bob: Person) -> None:
    root = RootKey.generate()

    def claim(name: str, signer: RootKey = root) -> bytes:
        return signer.sign(labels.USERNAME_CLAIM, records.UsernameClaim(root.account_id, NOW, name).pack())

    async with answering(wire.encode(wire.FoundName(root.public, claim("bob")))) as directory:
        assert await directory.find("bob") == root.account_id
    for answer in (
        wire.FoundName(root.public, claim("bobby")),
        wire.FoundName(root.public, flip(claim("bob"))),
        wire.FoundName(RootKey.generate().public, claim("bob")),
        wire.FoundName(root.public, claim("bob", RootKey.generate())),
    ):
        async with answering(wire.encode(answer)) as directory:
            with pytest.raises(errors.UntrustedKeys):
                await directory.find("bob")


async def test_a_device_list_with_a_device_that_did_not_consent_is_refused(alice: Person, bob: Person) -> None:
    """Mallory lists Bob's keys as his own device."""
    root = RootKey.generate()
    entry = identity.open_device_list(bob.own.root_public, bob.own.device_list).devices[0]
    stolen = records.DeviceList(root.account_id, 1, records.NO_LIST_HASH, NOW, ListFlag.NORMAL, (entry,))
    record = root.sign(labels.DEVICE_LIST, stolen.pack())
    async with answering(wire.encode(wire.Bundles(root.public, record, []))) as directory:
        with pytest.raises(errors.UntrustedKeys):
            await directory.bundles(root.account_id, None, NOW)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"", 200),
        (b"<html>", 200),
        (b"{}", 200),
        (b"{}", 500),
        (b"[" * 60_000, 200),
        (b" " * 70_000, 200),
        (b"", 302),
        (b'{"code": 1, "detail": "x", "more": 1}', 400),
    ],
)
async def test_an_answer_that_is_none_is_a_wrong_server(bob: Person, answer: bytes, status: int) -> None:
    async with answering(answer, status) as directory:
        with pytest.raises(errors.WrongServer):
            await directory.bundles(bob.own.account_id, None, NOW)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (Code.UNKNOWN_ACCOUNT, errors.UnknownRecipient),
        (Code.NAME_TAKEN, errors.NameTaken),
        (Code.INTERNAL, errors.ServerRefused),
    ],
)
async def test_a_refusal_becomes_the_error_that_says_it(
    bob: Person, code: Code, error: type[errors.SottovoceError]
) -> None:
    async with answering(wire.encode(wire.Problem(code, "no")), 400) as directory:
        with pytest.raises(error):
            await directory.bundles(bob.own.account_id, None, NOW)


async def test_a_counter_that_was_used_names_the_last(bob: Person) -> None:
    answer = wire.encode(wire.Problem(Code.COUNTER_CONFLICT, "used", last_counter=41))
    bundle = honest(bob).bundles[0]
    request = wire.Publish(bundle.prekey_record, bundle.contact_record, [])
    async with answering(answer, 409) as directory:
        with pytest.raises(CounterConflict) as conflict:
            await directory.publish(Signer(bob.own.account_id, bob.own.device), 3, request)
    assert conflict.value.last == 41


async def test_records_that_go_back_name_the_greatest_number(bob: Person) -> None:
    answer = wire.encode(wire.Problem(Code.BAD_RECORD, "back", last_number=41))
    bundle = honest(bob).bundles[0]
    request = wire.Publish(bundle.prekey_record, bundle.contact_record, [])
    async with answering(answer, 422) as directory:
        with pytest.raises(NumberConflict) as conflict:
            await directory.publish(Signer(bob.own.account_id, bob.own.device), 3, request)
    assert conflict.value.last == 41


@pytest.mark.parametrize("relay", ["ws://x", "https://relay.example/path", "http://relay.example", ""])
async def test_a_relay_without_a_proper_address_is_refused(relay: str) -> None:
    async with answering(wire.encode(wire.Info("sottovoce-keyserver", [1], relay))) as directory:
        with pytest.raises(errors.WrongServer):
            await directory.relay()


@pytest.mark.parametrize(
    "info", [wire.Info("something-else", [1], ORIGIN), wire.Info("sottovoce-keyserver", [2], ORIGIN)]
)
async def test_a_keyserver_of_another_kind_or_version_is_a_wrong_server(info: wire.Info) -> None:
    async with answering(wire.encode(info)) as directory:
        with pytest.raises(errors.WrongServer):
            await directory.relay()


async def test_a_relay_given_as_the_keyserver_is_called_what_it_is_not() -> None:
    async with answering(wire.encode(wire.Problem(Code.UNKNOWN_PATH, "no such path")), 404) as directory:
        with pytest.raises(errors.WrongServer, match="is not a keyserver") as refused:
            await directory.relay()
    assert "keyserver's address" in refused.value.diagnostics()


@pytest.mark.parametrize("last", [-1, 2**53, 2**63 - 1, 2**64 - 1])
async def test_a_counter_that_leaves_no_room_is_a_wrong_server(bob: Person, last: int) -> None:
    answer = b'{"code": 402, "detail": "used", "last_counter": %d}' % last
    bundle = honest(bob).bundles[0]
    request = wire.Publish(bundle.prekey_record, bundle.contact_record, [])
    async with answering(answer, 409) as directory:
        with pytest.raises(errors.WrongServer):
            await directory.publish(Signer(bob.own.account_id, bob.own.device), 3, request)


async def test_a_counter_conflict_where_nothing_was_signed_is_a_refusal(bob: Person) -> None:
    async with answering(wire.encode(wire.Problem(Code.COUNTER_CONFLICT, "used", last_counter=1)), 409) as directory:
        with pytest.raises(errors.ServerRefused):
            await directory.bundles(bob.own.account_id, None, NOW)


@pytest.mark.parametrize("count", [-40_000, 201, 10**12])
async def test_a_number_of_prekeys_that_cannot_be_is_a_wrong_server(bob: Person, count: int) -> None:
    bundle = honest(bob).bundles[0]
    request = wire.Publish(bundle.prekey_record, bundle.contact_record, [])
    async with answering(b'{"one_time_prekeys": %d}' % count) as directory:
        with pytest.raises(errors.WrongServer):
            await directory.publish(Signer(bob.own.account_id, bob.own.device), 3, request)


async def test_the_keyservers_own_words_are_not_repeated(bob: Person) -> None:
    async with answering(wire.encode(wire.Problem(Code.INTERNAL, "\x1b]0;owned\x07")), 500) as directory:
        with pytest.raises(errors.ServerRefused) as refused:
            await directory.bundles(bob.own.account_id, None, NOW)
    assert str(refused.value) == "the keyserver refused: internal (code 500)"
