"""Signed records: fixed layouts that are read strictly, and what each signature covers."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable
from typing import Protocol

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce_wire import ids, records
from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.ids import AccountId, DeviceId, QueueId, SendKey
from sottovoce_wire.records import ContactRecord, DeviceEntry, DeviceList, ListFlag, PrekeyRecord, UsernameClaim

ACCOUNT = AccountId(b"A" * 32)
DEVICE = DeviceId(b"D" * 16)


def entry(number: int) -> DeviceEntry:
    return DeviceEntry(bytes([number]) * 32, bytes([100 + number]) * 32, b"c" * 64)


class Packed(Protocol):
    def pack(self) -> bytes: ...


LIST = DeviceList(ACCOUNT, 7, b"p" * 32, 1_795_000_000, ListFlag.NORMAL, (entry(1), entry(2)))
PREKEYS = PrekeyRecord(ACCOUNT, DEVICE, 5, 1_795_000_000, 1_797_000_000, b"s" * 32, b"k" * 1184, b"x" * 1216)
CONTACT = ContactRecord(
    ACCOUNT, DEVICE, 3, 1_795_000_000, 1_797_000_000, QueueId(b"q" * 16), SendKey(b"y" * 32), "https://chat.example"
)
CLAIM = UsernameClaim(ACCOUNT, 1_795_000_000, "alice")

RECORDS: list[tuple[Packed, Callable[[bytes], Packed]]] = [
    (LIST, DeviceList.parse),
    (PREKEYS, PrekeyRecord.parse),
    (CONTACT, ContactRecord.parse),
    (CLAIM, UsernameClaim.parse),
]
each_record = pytest.mark.parametrize(("record", "parse"), RECORDS, ids=["list", "prekeys", "contact", "claim"])


@each_record
def test_a_record_reads_back_as_it_was_packed(record: Packed, parse: Callable[[bytes], Packed]) -> None:
    assert parse(record.pack()) == record


@each_record
def test_a_record_cut_short_at_any_length_is_refused(record: Packed, parse: Callable[[bytes], Packed]) -> None:
    payload = record.pack()
    for length in range(len(payload)):
        with pytest.raises(WireError) as refused:
            parse(payload[:length])
        assert refused.value.code is Code.BAD_RECORD


@each_record
@pytest.mark.parametrize("tail", [b"\x00", b"x" * 128])
def test_a_record_with_a_tail_is_refused(record: Packed, parse: Callable[[bytes], Packed], tail: bytes) -> None:
    with pytest.raises(WireError) as refused:
        parse(record.pack() + tail)
    assert refused.value.code is Code.BAD_RECORD


@each_record
@given(place=st.integers(0, 5000), change=st.integers(1, 255))
def test_a_changed_byte_is_refused_or_read_as_what_it_says(
    record: Packed, parse: Callable[[bytes], Packed], place: int, change: int
) -> None:
    payload = bytearray(record.pack())
    payload[place % len(payload)] ^= change
    with contextlib.suppress(WireError):
        assert parse(bytes(payload)).pack() == payload


@each_record
@given(payload=st.binary(max_size=300))
def test_no_bytes_make_a_parser_fail_otherwise(
    record: Packed, parse: Callable[[bytes], Packed], payload: bytes
) -> None:
    with contextlib.suppress(WireError):
        assert parse(payload).pack() == payload


# --- Layouts, byte for byte ---------------------------------------------------------------------------------


def test_a_device_lists_layout() -> None:
    assert LIST.pack() == (
        b"A" * 32
        + (7).to_bytes(8, "big")
        + b"p" * 32
        + (1_795_000_000).to_bytes(8, "big")
        + b"\x00\x02"
        + b"\x01" * 32
        + b"\x65" * 32
        + b"c" * 64
        + b"\x02" * 32
        + b"\x66" * 32
        + b"c" * 64
    )


def test_a_prekey_records_layout() -> None:
    times = (1_795_000_000).to_bytes(8, "big") + (1_797_000_000).to_bytes(8, "big")
    keys = b"s" * 32 + b"k" * 1184 + b"x" * 1216
    assert PREKEYS.pack() == b"A" * 32 + b"D" * 16 + b"\x00\x00\x00\x05" + times + keys


def test_a_contact_records_layout() -> None:
    numbers = b"".join(n.to_bytes(8, "big") for n in (3, 1_795_000_000, 1_797_000_000))
    assert CONTACT.pack() == b"A" * 32 + b"D" * 16 + numbers + b"q" * 16 + b"y" * 32 + b"\x14https://chat.example"


def test_a_username_claims_layout() -> None:
    assert CLAIM.pack() == b"A" * 32 + (1_795_000_000).to_bytes(8, "big") + b"\x05alice"


# --- Device lists -------------------------------------------------------------------------------------------


def refuses(make: Callable[[], object]) -> Code:
    with pytest.raises(WireError) as refused:
        make()
    return refused.value.code


def changed(**fields: object) -> bytes:
    return msgspec.structs.replace(LIST, **fields).pack()


BAD_LISTS = {
    "version 0": changed(version=0),
    "eleven devices": changed(devices=tuple(map(entry, range(1, 12)))),
    "one device twice": changed(devices=(entry(1), entry(1))),
    "a signing key twice": changed(devices=(entry(1), DeviceEntry(entry(1).signing_key, b"z" * 32, b"c" * 64))),
    "an identity key twice": changed(devices=(entry(1), DeviceEntry(b"z" * 32, entry(1).identity_key, b"c" * 64))),
    "one key in both uses": changed(devices=(DeviceEntry(b"z" * 32, b"z" * 32, b"c" * 64),)),
    "no devices, and not final": changed(devices=()),
    "devices in a final list": changed(flag=ListFlag.FINAL),
    "an unknown flag": LIST.pack()[:80] + b"\x03" + LIST.pack()[81:],
    "a count above the entries": LIST.pack()[:81] + b"\x03" + LIST.pack()[82:],
    "a count below the entries": LIST.pack()[:81] + b"\x01" + LIST.pack()[82:],
}


@pytest.mark.parametrize("what", BAD_LISTS)
def test_a_device_list_that_breaks_a_rule_is_refused(what: str) -> None:
    assert refuses(lambda: DeviceList.parse(BAD_LISTS[what])) is Code.BAD_RECORD


@pytest.mark.parametrize(
    "device_list",
    [
        msgspec.structs.replace(LIST, devices=tuple(map(entry, range(1, 11)))),
        msgspec.structs.replace(LIST, flag=ListFlag.RECOVERY),
        msgspec.structs.replace(LIST, flag=ListFlag.FINAL, devices=()),
        msgspec.structs.replace(LIST, version=2**64 - 1),
    ],
    ids=["ten devices", "recovery", "final", "greatest version"],
)
def test_the_extremes_of_a_device_list_are_accepted(device_list: DeviceList) -> None:
    assert DeviceList.parse(device_list.pack()) == device_list


def test_a_device_entry_has_the_id_of_its_keys() -> None:
    assert entry(1).device_id == ids.device_id_of(b"\x01" * 32, b"\x65" * 32)


def test_a_lists_hash_is_labelled() -> None:
    expected = hashlib.sha256(b"\x1dSottovoce v1 device list hash" + LIST.pack()).digest()
    assert records.device_list_hash(LIST.pack()) == expected


# --- Contact records and claims -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    ["", "https://Chat.example", "https://chat.example/", "https://chat.example:443", "http://chat.example", "ftp://x"],
)
def test_a_contact_record_with_an_origin_in_another_spelling_is_refused(origin: str) -> None:
    payload = msgspec.structs.replace(CONTACT, origin=origin).pack()
    assert refuses(lambda: ContactRecord.parse(payload)) is Code.BAD_RECORD


@pytest.mark.parametrize("name", ["", "a", "Alice", "1alice", "al ice", "a" * 33])
def test_a_claim_to_what_is_not_a_username_is_refused(name: str) -> None:
    payload = msgspec.structs.replace(CLAIM, username=name).pack()
    assert refuses(lambda: UsernameClaim.parse(payload)) in {Code.BAD_RECORD, Code.BAD_REQUEST}


@pytest.mark.parametrize(("record", "parse"), [RECORDS[2], RECORDS[3]], ids=["contact", "claim"])
def test_a_records_text_must_be_ascii(record: Packed, parse: Callable[[bytes], Packed]) -> None:
    payload = record.pack()
    assert refuses(lambda: parse(payload[:-1] + b"\xff")) is Code.BAD_RECORD


# --- Signatures ---------------------------------------------------------------------------------------------


def test_a_signed_record_is_its_payload_and_64_bytes() -> None:
    assert records.split_signed(b"payload" + b"s" * 64) == (b"payload", b"s" * 64)


@pytest.mark.parametrize("length", range(65))
def test_a_signed_record_without_a_payload_is_refused(length: int) -> None:
    assert refuses(lambda: records.split_signed(b"s" * length)) is Code.BAD_RECORD


def test_a_device_consents_to_one_account_with_both_keys() -> None:
    assert records.device_consent(ACCOUNT, b"s" * 32, b"i" * 32) == (
        b"\x1bSottovoce v1 device consent" + b"A" * 32 + b"s" * 32 + b"i" * 32
    )


def test_an_owner_signs_origin_nonce_and_queue() -> None:
    assert records.owner_challenge("https://chat.example", b"n" * 32, QueueId(b"q" * 16)) == (
        b"\x18Sottovoce v1 queue owner\x14https://chat.example" + b"n" * 32 + b"q" * 16
    )


@dataclasses.dataclass(frozen=True)
class Request:
    origin: str = "https://chat.example"
    account_id: AccountId = ACCOUNT
    device_id: DeviceId = DEVICE
    counter: int = 9
    method: str = "POST"
    path: str = "/v1/publish"
    body: bytes = b"{}"

    def signed(self) -> bytes:
        return records.directory_request(
            self.origin, self.account_id, self.device_id, self.counter, self.method, self.path, self.body
        )


def test_a_directory_requests_layout() -> None:
    assert Request().signed() == (
        b"\x1eSottovoce v1 directory request\x14https://chat.example"
        + b"A" * 32
        + b"D" * 16
        + b"\x00\x00\x00\x00\x00\x00\x00\x09\x04POST\x0b/v1/publish"
        + hashlib.sha256(b"{}").digest()
    )


@pytest.mark.parametrize(
    "other",
    [
        Request(origin="https://chat.example:8443"),
        Request(account_id=AccountId(b"B" * 32)),
        Request(device_id=DeviceId(b"E" * 16)),
        Request(counter=10),
        Request(method="PUT"),
        Request(path="/v1/register"),
        Request(method="POST/", path="v1/publish"),
        Request(body=b"{ }"),
    ],
    ids=["origin", "account", "device", "counter", "method", "path", "where method ends", "body"],
)
def test_a_signature_covers_every_part_of_a_directory_request(other: Request) -> None:
    assert other.signed() != Request().signed()
