"""The keyserver's JSON bodies: exactly the members that are named, within their bounds."""

import base64
import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce_wire import directory, limits
from sottovoce_wire.directory import Body
from sottovoce_wire.errors import Code, WireError

PREKEY = directory.OneTimePrekey(1, b"k" * 32)
PUBLISH = directory.Publish(b"p" * 2560, b"c" * 230, [PREKEY])
BUNDLE = directory.Bundle(b"d" * 16, b"p" * 2560, b"c" * 230, PREKEY)
BODIES: list[Body] = [
    directory.Info("sottovoce-keyserver", [1], "https://chat.example"),
    PREKEY,
    PUBLISH,
    directory.Published(200),
    directory.Register(b"r" * 32, b"l" * 274, PUBLISH, b"u" * 110),
    directory.Register(b"r" * 32, b"l" * 274, PUBLISH),
    directory.FindName("alice"),
    directory.FoundName(b"r" * 32, b"u" * 110),
    directory.FetchBundles(b"a" * 32),
    directory.FetchBundles(b"a" * 32, [b"d" * 16]),
    directory.FetchBundles(b"a" * 32, []),
    BUNDLE,
    directory.Bundles(b"r" * 32, b"l" * 274, [BUNDLE]),
    directory.Problem(402, "the counter is not above the last", 7),
    directory.Problem(406, "a record must not go back", last_number=7),
    directory.Problem(404, "no such name"),
]
each_body = pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)


def as_json(body: Body) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(directory.encode(body))
    return members


def code_of(kind: type[Body], data: bytes) -> Code:
    with pytest.raises(WireError) as refused:
        directory.decode(kind, data)
    return refused.value.code


@each_body
def test_a_body_reads_back_as_it_was_written(body: Body) -> None:
    assert directory.decode(type(body), directory.encode(body)) == body


@each_body
def test_a_body_cut_short_at_any_length_is_refused(body: Body) -> None:
    data = directory.encode(body)
    codes = {code_of(type(body), data[:length]) for length in range(0, len(data), 1 + len(data) // 500)}
    assert codes == {Code.BAD_REQUEST}


@each_body
def test_a_body_with_a_tail_is_refused(body: Body) -> None:
    assert code_of(type(body), directory.encode(body) + b"{}") is Code.BAD_REQUEST


@each_body
def test_a_body_with_an_unknown_member_is_refused(body: Body) -> None:
    data = json.dumps({**as_json(body), "extra": 1}).encode()
    assert code_of(type(body), data) is Code.BAD_REQUEST


@each_body
def test_a_body_without_a_required_member_is_refused(body: Body) -> None:
    required = [field.encode_name for field in msgspec.structs.fields(body) if field.required]
    for name in required:
        members = as_json(body)
        del members[name]
        assert code_of(type(body), json.dumps(members).encode()) is Code.BAD_REQUEST


@each_body
@pytest.mark.parametrize("value", [True, 1.5, -1, {}, [None], "not base64!"], ids=repr)
def test_no_member_takes_a_value_of_another_type(body: Body, value: object) -> None:
    for name, member in as_json(body).items():
        if isinstance(value, str) and isinstance(member, str) and _is_free_text(body, name):
            continue
        if value == -1 and isinstance(member, int) and not isinstance(body, directory.OneTimePrekey):
            continue
        data = json.dumps({**as_json(body), name: value}).encode()
        assert code_of(type(body), data) is Code.BAD_REQUEST


def _is_free_text(body: Body, name: str) -> bool:
    return isinstance(getattr(body, name), str)


def b64(length: int) -> str:
    return base64.b64encode(b"x" * length).decode()


def register(**members: object) -> dict[str, Any]:
    return {**as_json(BODIES[4]), **members}


REFUSED: dict[str, tuple[type[Body], object]] = {
    "a short root key": (directory.Register, register(root_key=b64(31))),
    "a long root key": (directory.Register, register(root_key=b64(33))),
    "a device list that is only a signature": (directory.Register, register(device_list=b64(64))),
    "a record above 4 KiB": (directory.Register, register(device_list=b64(4097))),
    "201 one-time prekeys": (
        directory.Publish,
        {**as_json(PUBLISH), "one_time_prekeys": [{"id": n, "key": b64(32)} for n in range(201)]},
    ),
    "a prekey id beyond 32 bits": (directory.OneTimePrekey, {"id": 2**32, "key": b64(32)}),
    "a negative prekey id": (directory.OneTimePrekey, {"id": -1, "key": b64(32)}),
    "a name of 33 characters": (directory.FindName, {"username": "a" * 33}),
    "eleven devices": (directory.FetchBundles, {"account_id": b64(32), "devices": [b64(16)] * 11}),
    "a device id of 15 bytes": (directory.FetchBundles, {"account_id": b64(32), "devices": [b64(15)]}),
    "eleven bundles": (directory.Bundles, {**as_json(BODIES[12]), "bundles": [as_json(BUNDLE)] * 11}),
    "no object": (directory.FindName, ["alice"]),
    "nothing": (directory.FindName, None),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_body_out_of_bounds_is_refused(what: str) -> None:
    kind, members = REFUSED[what]
    assert code_of(kind, json.dumps(members).encode()) is Code.BAD_REQUEST


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b'{"username": "\xff"}', b'{"username": "\\ud800"}', b"[" * 60_000, b'{"username":' * 5_000],
    ids=["empty", "not UTF-8", "text that is not UTF-8", "half a surrogate pair", "nested lists", "nested objects"],
)
def test_what_is_not_json_is_refused(data: bytes) -> None:
    assert code_of(directory.FindName, data) is Code.BAD_REQUEST


def test_a_body_above_the_limit_is_not_even_parsed() -> None:
    assert code_of(directory.FindName, b" " * (limits.MAX_DIRECTORY_BODY + 1)) is Code.FRAME_TOO_LARGE


def test_the_largest_registration_fits() -> None:
    prekeys = [directory.OneTimePrekey(2**32 - 1 - n, b"\xff" * 32) for n in range(limits.MAX_ONE_TIME_PREKEYS)]
    body = directory.Register(b"r" * 32, b"l" * 1426, directory.Publish(b"p" * 2560, b"c" * 500, prekeys), b"u" * 140)
    data = directory.encode(body)
    assert len(data) < limits.MAX_DIRECTORY_BODY // 2
    assert directory.decode(directory.Register, data) == body


@given(st.binary(max_size=100) | st.text(max_size=100).map(str.encode))
def test_no_bytes_make_the_decoder_fail_otherwise(data: bytes) -> None:
    for kind in (directory.Register, directory.FetchBundles, directory.Problem):
        with contextlib.suppress(WireError):
            directory.decode(kind, data)


def test_an_error_names_the_member_and_not_its_value() -> None:
    data = json.dumps({"account_id": b64(32), "devices": ["c2VjcmV0"]}).encode()
    with pytest.raises(WireError) as refused:
        directory.decode(directory.FetchBundles, data)
    assert "devices" in refused.value.detail
    assert "secret" not in refused.value.detail
    assert "c2VjcmV0" not in refused.value.detail
