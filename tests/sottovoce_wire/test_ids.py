"""Ids pin their keys, and their text forms have one spelling."""

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce_wire import ids, limits
from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.ids import AccountId, SendKey

A, B = b"a" * 32, b"b" * 32


def test_ids_are_labelled_hashes_of_what_they_name() -> None:
    assert ids.account_id_of(A) == hashlib.sha256(b"\x17Sottovoce v1 account id" + A).digest()
    assert ids.device_id_of(A, B) == hashlib.sha256(b"\x16Sottovoce v1 device id" + A + B).digest()[:16]
    assert ids.queue_id_of(A) == hashlib.sha256(b"\x15Sottovoce v1 queue id" + A).digest()[:16]
    assert ids.send_key_hash(SendKey(A)) == hashlib.sha256(b"\x1aSottovoce v1 send key hash" + A).digest()


def test_one_key_has_different_ids_for_different_uses() -> None:
    assert len({ids.account_id_of(A)[:16], ids.queue_id_of(A), ids.send_key_hash(SendKey(A))[:16]}) == 3


def test_a_device_id_depends_on_the_order_of_its_keys() -> None:
    assert ids.device_id_of(A, B) != ids.device_id_of(B, A)


@given(st.binary(min_size=32, max_size=32).map(AccountId))
def test_an_account_ids_text_is_read_back(account_id: AccountId) -> None:
    text = ids.account_id_text(account_id)
    assert len(text) == 52
    assert ids.parse_account_id(text) == account_id


TEXT = ids.account_id_text(ids.account_id_of(A))


@pytest.mark.parametrize(
    "text",
    [
        *(TEXT[:length] for length in range(52)),
        TEXT + "a",
        TEXT + "=",
        TEXT + "====",
        TEXT.upper(),
        " " + TEXT,
        TEXT + "\n",
        TEXT[:-1] + "b",  # the last character's unused bits are not zero
        "1" + TEXT[1:],
        "ß" + TEXT[2:],
        "é" + TEXT[1:],
        "\x00" * 52,
    ],
)
def test_any_other_spelling_of_an_account_id_is_refused(text: str) -> None:
    with pytest.raises(WireError) as refused:
        ids.parse_account_id(text)
    assert refused.value.code is Code.BAD_REQUEST


@given(st.text(max_size=60))
def test_no_text_makes_the_account_id_parser_fail_otherwise(text: str) -> None:
    with contextlib.suppress(WireError):
        assert ids.account_id_text(ids.parse_account_id(text)) == text


@pytest.mark.parametrize("name", ["al", "alice", "a1", "a.b", "a_b", "a-b", "a" * 32, "zoe.2026-11_20"])
def test_a_username_is_accepted_as_it_is(name: str) -> None:
    assert ids.check_username(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a",
        "a" * 33,
        "Alice",
        "1a",
        ".a",
        "-a",
        "_a",
        "a b",
        "a\n",
        "al\x00",
        "älice",
        "аlice",
        "al/ice",
        "a@b",
        "١a",
    ],
)
def test_what_is_not_a_username_is_refused(name: str) -> None:
    with pytest.raises(WireError) as refused:
        ids.check_username(name)
    assert refused.value.code is Code.BAD_REQUEST


def test_no_username_can_be_taken_for_an_account_id() -> None:
    assert len(TEXT) > limits.MAX_USERNAME
