"""Signed requests and malformed ones: who may change what, how often, and what is said to everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sottovoce_wire import directory as wire
from sottovoce_wire import limits
from sottovoce_wire.errors import Code

if TYPE_CHECKING:
    from tests.sottovoce_keyserver.conftest import Person, ServedKeyserver, StartKeyserver

HEADERS = (wire.HEADER_ACCOUNT, wire.HEADER_DEVICE, wire.HEADER_COUNTER, wire.HEADER_SIGNATURE)
SIGNED_PATHS = (wire.PATH_REGISTER, wire.PATH_PUBLISH)
PATHS = (*SIGNED_PATHS, wire.PATH_FIND_NAME, wire.PATH_BUNDLES)
MALFORMED = ("", "x", "AAAA", "=" * 44, "-1", "0", "01", "9007199254740992", "9223372036854775808", "é", "A" * 9000)
NO_BODIES = (b"", b"null", b"[]", b"{", b"{}x", b"\xff", b"[" * 60_000, b'{"username": 1}', b'"' + b"a" * 99)


async def test_a_counter_that_does_not_grow_is_a_conflict_that_names_the_last(
    keyserver: ServedKeyserver, alice: Person
) -> None:
    await keyserver.register(alice)
    body = alice.phone.publish()
    assert (await keyserver.signed(alice.phone, wire.PATH_PUBLISH, body, counter=7)).status_code == 200
    for counter in (7, 6, 1):
        answer = await keyserver.signed(alice.phone, wire.PATH_PUBLISH, body, counter=counter)
        assert keyserver.assert_refused(answer, 409, Code.COUNTER_CONFLICT).last_counter == 7
    assert (await keyserver.signed(alice.phone, wire.PATH_PUBLISH, body, counter=8)).status_code == 200


async def test_the_greatest_counter_can_be_named_to_a_client(keyserver: ServedKeyserver, alice: Person) -> None:
    await keyserver.register(alice)
    body = alice.phone.publish()
    for status in (200, 409):
        answer = await keyserver.signed(alice.phone, wire.PATH_PUBLISH, body, counter=limits.MAX_COUNTER)
        assert answer.status_code == status
    assert keyserver.body(wire.Problem, answer, 409).last_counter == limits.MAX_COUNTER


async def test_a_request_replayed_byte_by_byte_is_a_conflict(keyserver: ServedKeyserver, alice: Person) -> None:
    await keyserver.register(alice)
    body = wire.encode(alice.phone.publish())
    headers = alice.phone.headers(keyserver.server.url, wire.PATH_PUBLISH, body)
    assert (await keyserver.post(wire.PATH_PUBLISH, body, headers)).status_code == 200
    keyserver.assert_refused(await keyserver.post(wire.PATH_PUBLISH, body, headers), 409, Code.COUNTER_CONFLICT)


async def test_counters_of_two_devices_do_not_meet(keyserver: ServedKeyserver, alice: Person) -> None:
    alice.devices.append(alice.device(1))
    await keyserver.signed(alice.phone, wire.PATH_REGISTER, alice.register(), counter=100)
    laptop = alice.devices[1]
    assert (await keyserver.signed(laptop, wire.PATH_PUBLISH, laptop.publish(), counter=1)).status_code == 200


async def test_a_refused_change_does_not_take_the_counter(keyserver: ServedKeyserver, alice: Person) -> None:
    await keyserver.register(alice)
    bad = alice.phone.publish(prekey_record=alice.phone.prekeys(record_id=0))
    keyserver.assert_refused(
        await keyserver.signed(alice.phone, wire.PATH_PUBLISH, bad, counter=2), 422, Code.BAD_RECORD
    )
    answer = await keyserver.signed(alice.phone, wire.PATH_PUBLISH, alice.phone.publish(), counter=2)
    assert answer.status_code == 200


async def test_a_forged_request_does_not_take_the_counter(
    keyserver: ServedKeyserver, alice: Person, bob: Person
) -> None:
    await keyserver.register(alice)
    body = wire.encode(alice.phone.publish())
    honest = alice.phone.headers(keyserver.server.url, wire.PATH_PUBLISH, body, counter=2)
    forged = honest | {wire.HEADER_COUNTER: "9000000000000000"}
    keyserver.assert_refused(await keyserver.post(wire.PATH_PUBLISH, body, forged), 401, Code.BAD_REQUEST_SIGNATURE)
    assert (await keyserver.post(wire.PATH_PUBLISH, body, honest)).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"origin": "https://other.example"},
        {"path": wire.PATH_REGISTER},
        {"body": b"{}"},
        {"counter": 3},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_a_signature_is_for_one_server_path_body_and_counter(
    keyserver: ServedKeyserver, alice: Person, change: dict[str, object]
) -> None:
    await keyserver.register(alice)
    body = wire.encode(alice.phone.publish())
    signed: dict[str, object] = {"origin": keyserver.server.url, "path": wire.PATH_PUBLISH, "body": body, "counter": 2}
    headers = alice.phone.headers(**(signed | change))  # type: ignore[arg-type] # one of the four is replaced
    headers[wire.HEADER_COUNTER] = "2"
    keyserver.assert_refused(await keyserver.post(wire.PATH_PUBLISH, body, headers), 401, Code.BAD_REQUEST_SIGNATURE)


async def test_every_loopback_spelling_of_a_local_server_may_be_signed(
    keyserver: ServedKeyserver, alice: Person
) -> None:
    port = keyserver.server.url.rpartition(":")[2]
    for host in ("127.0.0.1", "localhost", "[::1]"):
        origin = f"http://{host}:{port}"
        assert (await keyserver.signed(alice.phone, wire.PATH_REGISTER, alice.register(), origin=origin)).is_success


async def test_with_a_public_url_that_alone_may_be_signed(start_keyserver: StartKeyserver, alice: Person) -> None:
    keyserver = await start_keyserver(public_url="https://chat.example")
    register = alice.register()
    answer = await keyserver.signed(alice.phone, wire.PATH_REGISTER, register, origin=keyserver.server.url)
    keyserver.assert_refused(answer, 401, Code.BAD_REQUEST_SIGNATURE)
    answer = await keyserver.signed(alice.phone, wire.PATH_REGISTER, register, origin="https://chat.example")
    assert answer.is_success


@pytest.mark.parametrize("path", SIGNED_PATHS)
@pytest.mark.parametrize("header", HEADERS)
async def test_a_missing_or_malformed_header_is_named(
    keyserver: ServedKeyserver, alice: Person, path: str, header: str
) -> None:
    body = wire.encode(alice.register() if path == wire.PATH_REGISTER else alice.phone.publish())
    honest = alice.phone.headers(keyserver.server.url, path, body)
    without = {name: value for name, value in honest.items() if name != header}
    keyserver.assert_refused(await keyserver.post(path, body, without), 400, Code.BAD_REQUEST, header)
    for value in MALFORMED:
        answer = await keyserver.post(path, body, honest | {header: value})
        keyserver.assert_refused(answer, 400, Code.BAD_REQUEST, header)


async def test_a_header_in_another_spelling_of_base64_is_refused(keyserver: ServedKeyserver, alice: Person) -> None:
    body = wire.encode(alice.register())
    headers = alice.phone.headers(keyserver.server.url, wire.PATH_REGISTER, body)
    headers[wire.HEADER_SIGNATURE] = headers[wire.HEADER_SIGNATURE].rstrip("=")
    keyserver.assert_refused(await keyserver.post(wire.PATH_REGISTER, body, headers), 400, Code.BAD_REQUEST)


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_that_is_not_the_expected_json_is_refused(
    keyserver: ServedKeyserver, alice: Person, path: str
) -> None:
    for body in NO_BODIES:
        headers = alice.phone.headers(keyserver.server.url, path, body)
        keyserver.assert_refused(await keyserver.post(path, body, headers), 400, Code.BAD_REQUEST)


@pytest.mark.parametrize("path", PATHS)
async def test_an_unknown_member_is_refused(keyserver: ServedKeyserver, alice: Person, path: str) -> None:
    bodies = {
        wire.PATH_REGISTER: alice.register(),
        wire.PATH_PUBLISH: alice.phone.publish(),
        wire.PATH_FIND_NAME: wire.FindName("alice"),
        wire.PATH_BUNDLES: wire.FetchBundles(alice.id),
    }
    body = wire.encode(bodies[path])[:-1] + b',"stranger":1}'
    headers = alice.phone.headers(keyserver.server.url, path, body)
    keyserver.assert_refused(await keyserver.post(path, body, headers), 400, Code.BAD_REQUEST, "stranger")


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_that_is_too_large_is_refused(keyserver: ServedKeyserver, alice: Person, path: str) -> None:
    body = b" " * (limits.MAX_DIRECTORY_BODY + 1)
    headers = alice.phone.headers(keyserver.server.url, path, body)
    keyserver.assert_refused(await keyserver.post(path, body, headers), 413, Code.FRAME_TOO_LARGE)


@pytest.mark.parametrize("path", PATHS)
async def test_a_path_has_one_method(keyserver: ServedKeyserver, path: str) -> None:
    answer = await keyserver.http.get(keyserver.server.url + path)
    keyserver.assert_refused(answer, 405, Code.UNKNOWN_PATH)
    assert "POST" in answer.headers["allow"]


async def test_another_path_is_unknown(keyserver: ServedKeyserver) -> None:
    keyserver.assert_refused(await keyserver.post("/v2/register", b"{}"), 404, Code.UNKNOWN_PATH)


async def test_a_registration_of_the_largest_size_fits(keyserver: ServedKeyserver, alice: Person) -> None:
    for index in range(1, limits.MAX_DEVICES):
        alice.devices.append(alice.device(index))
    body = alice.register("a" * 32, publish=alice.phone.publish(range(2**32 - 200, 2**32)))
    answer = await keyserver.signed(alice.phone, wire.PATH_REGISTER, body)
    assert keyserver.body(wire.Published, answer).one_time_prekeys == 200


async def test_no_log_line_holds_what_a_request_says(
    keyserver: ServedKeyserver, alice: Person, bob: Person, capfd: pytest.CaptureFixture[str]
) -> None:
    await keyserver.register(alice, "alice")
    await keyserver.register(bob, "alice")
    await keyserver.bundles(alice)
    await keyserver.post("/v1/alice", b"{}")
    logged = "".join(capfd.readouterr())
    for word in ("alice", "/v1", "127.0.0.1", alice.id.hex(), alice.phone.id.hex()):
        assert word not in logged
