"""Safety numbers: the digits that two people read to each other, the code, and which side a comparison names."""

import dataclasses
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce.crypto import fingerprint
from sottovoce.crypto.errors import CryptoRefusal, Reason
from sottovoce.crypto.fingerprint import Comparison, ListState, SafetyCode, Side, Verdict, compare, safety_number
from sottovoce.crypto.identity import RootKey, open_device_list
from sottovoce_wire import labels
from sottovoce_wire.ids import AccountId
from tests.random_input import examples

SPEC = Path(__file__).parents[3] / "protocol-spec"
ALICE, BOB, MALLORY = AccountId(b"a" * 32), AccountId(b"b" * 32), AccountId(b"m" * 32)
ALICES, BOBS = ListState(3, b"A" * 32), ListState(9, b"B" * 32)
BOB_SHOWS = SafetyCode(BOB, ALICE, BOBS, ALICES)
ALICE_KNOWS = SafetyCode(ALICE, BOB, ALICES, BOBS)


def half_by_hand(account_id: bytes) -> str:
    state = account_id
    for _ in range(8192):
        state = hashlib.sha256(b"\x1aSottovoce v1 safety number" + state + account_id).digest()
    return " ".join(str(int.from_bytes(state[at : at + 5], "big") % 10**5).zfill(5) for at in range(0, 30, 5))


def refused(packed: bytes) -> Reason:
    with pytest.raises(CryptoRefusal) as refusal:
        SafetyCode.parse(packed)
    return refusal.value.reason


def test_the_label_is_the_one_in_the_formula() -> None:
    assert labels.SAFETY_NUMBER == b"\x1aSottovoce v1 safety number"


def test_a_safety_number_is_twelve_groups_of_five_digits() -> None:
    groups = safety_number(ALICE, BOB).split(" ")
    assert len(groups) == 12
    assert all(len(group) == 5 and group.isdigit() for group in groups)


def test_both_people_see_the_same_number() -> None:
    assert safety_number(ALICE, BOB) == safety_number(BOB, ALICE)


def test_the_number_is_both_halves_the_smaller_first() -> None:
    halves = half_by_hand(ALICE), half_by_hand(BOB)
    assert safety_number(ALICE, BOB) == " ".join(sorted(halves))


def test_a_group_keeps_its_leading_zeros() -> None:
    numbers = [safety_number(ALICE, AccountId(bytes([n]) * 32)) for n in range(8)]
    assert any(group.startswith("0") for number in numbers for group in number.split(" "))
    assert all(len(number) == 71 for number in numbers)


def test_another_account_on_either_side_gives_another_number() -> None:
    assert len({safety_number(*pair) for pair in [(ALICE, BOB), (ALICE, MALLORY), (MALLORY, BOB)]}) == 3


def test_a_number_stays_when_devices_come_and_go(alice_root: RootKey, bob_root: RootKey) -> None:
    again = RootKey.from_entropy(alice_root.entropy)
    assert safety_number(alice_root.account_id, bob_root.account_id) == safety_number(
        again.account_id, bob_root.account_id
    )


def test_one_account_has_no_number_with_itself() -> None:
    with pytest.raises(CryptoRefusal) as refusal:
        safety_number(ALICE, ALICE)
    assert refusal.value.reason is Reason.WRONG_ACCOUNT


@pytest.mark.parametrize("length", [0, 31, 33])
def test_an_id_of_another_length_has_no_number(length: int) -> None:
    for pair in ((ALICE, AccountId(bytes(length))), (AccountId(bytes(length)), ALICE)):
        with pytest.raises(CryptoRefusal) as refusal:
            safety_number(*pair)
        assert refusal.value.reason is Reason.MALFORMED


def test_a_code_has_a_fixed_layout() -> None:
    packed = b"\x01" + BOB + ALICE + (9).to_bytes(8, "big") + b"B" * 32 + (3).to_bytes(8, "big") + b"A" * 32
    assert BOB_SHOWS.pack() == packed
    assert SafetyCode.parse(packed) == BOB_SHOWS
    assert len(packed) == SafetyCode.LENGTH == 145


def test_a_code_names_the_list_that_was_verified(alice_root: RootKey, alice_list: bytes) -> None:
    state = ListState.of(open_device_list(alice_root.public, alice_list))
    assert state == ListState(1, hashlib.sha256(labels.DEVICE_LIST_HASH + alice_list[:-64]).digest())


def test_a_code_cut_short_or_with_a_tail_is_refused() -> None:
    packed = BOB_SHOWS.pack()
    for bad in (*(packed[:length] for length in range(len(packed))), packed + b"\x00"):
        assert refused(bad) is Reason.MALFORMED


@pytest.mark.parametrize("version", [0, 2, 255])
def test_a_code_of_another_version_is_refused_whatever_its_length(version: int) -> None:
    assert refused(bytes([version]) + BOB_SHOWS.pack()[1:]) is Reason.UNSUPPORTED_VERSION
    assert refused(bytes([version])) is Reason.UNSUPPORTED_VERSION


def test_a_code_with_a_list_that_cannot_be_is_refused() -> None:
    nothing = ListState(0, bytes(32))
    assert refused(dataclasses.replace(BOB_SHOWS, own_list=nothing).pack()) is Reason.MALFORMED
    assert refused(dataclasses.replace(BOB_SHOWS, other_list=nothing).pack()) is Reason.MALFORMED


def test_a_code_of_one_account_with_itself_is_refused() -> None:
    assert refused(dataclasses.replace(BOB_SHOWS, other=BOB).pack()) is Reason.WRONG_ACCOUNT


def test_two_devices_that_know_the_same_match() -> None:
    assert compare(BOB_SHOWS, ALICE_KNOWS) == Comparison(Side.SAME, Side.SAME)
    assert compare(BOB_SHOWS, ALICE_KNOWS).matches
    assert compare(ALICE_KNOWS, BOB_SHOWS).matches


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"other": MALLORY}, Comparison(Side.OTHER_ACCOUNT, Side.SAME)),
        ({"own": MALLORY}, Comparison(Side.SAME, Side.OTHER_ACCOUNT)),
        ({"own": MALLORY, "other": AccountId(b"n" * 32)}, Comparison(Side.OTHER_ACCOUNT, Side.OTHER_ACCOUNT)),
        ({"other_list": ListState(4, b"4" * 32)}, Comparison(Side.NEWER, Side.SAME)),
        ({"other_list": ListState(2, b"2" * 32)}, Comparison(Side.OLDER, Side.SAME)),
        ({"other_list": ListState(3, b"F" * 32)}, Comparison(Side.FORKED, Side.SAME)),
        ({"own_list": ListState(10, b"B" * 32)}, Comparison(Side.SAME, Side.NEWER)),
        ({"own_list": ListState(8, b"B" * 32)}, Comparison(Side.SAME, Side.OLDER)),
        ({"own_list": ListState(9, b"F" * 32)}, Comparison(Side.SAME, Side.FORKED)),
    ],
)
def test_a_mismatch_tells_which_side_changed(change: dict[str, AccountId | ListState], found: Comparison) -> None:
    # The dictionary holds one field's own type at a time, which replace() cannot say.
    scanned = dataclasses.replace(BOB_SHOWS, **change)  # type: ignore[arg-type]
    assert compare(scanned, ALICE_KNOWS) == found
    assert not found.matches


@pytest.mark.parametrize(
    ("side", "as_mine", "as_theirs"),
    [
        (Side.SAME, Verdict.VERIFIED, Verdict.VERIFIED),
        (Side.OTHER_ACCOUNT, Verdict.MISMATCH, Verdict.MISMATCH),
        (Side.FORKED, Verdict.MISMATCH, Verdict.MISMATCH),
        (Side.NEWER, Verdict.UNSETTLED, Verdict.VERIFIED),
        (Side.OLDER, Verdict.VERIFIED, Verdict.UNSETTLED),
    ],
)
def test_a_person_is_verified_if_each_device_knows_its_own_account_best(
    side: Side, as_mine: Verdict, as_theirs: Verdict
) -> None:
    assert Comparison(side, Side.SAME).verdict is as_mine
    assert Comparison(Side.SAME, side).verdict is as_theirs


def test_a_mismatch_on_one_side_outweighs_an_old_list_on_the_other() -> None:
    assert Comparison(Side.NEWER, Side.FORKED).verdict is Verdict.MISMATCH
    assert Comparison(Side.OTHER_ACCOUNT, Side.OLDER).verdict is Verdict.MISMATCH


def test_a_device_that_a_thief_of_the_root_key_added_in_silence_is_not_verified() -> None:
    """Bob's phone shows the newest list that it knows; Alice was handed one more, with the thief's device."""
    handed = dataclasses.replace(ALICE_KNOWS, other_list=ListState(BOBS.version + 1, b"T" * 32))
    assert compare(BOB_SHOWS, handed).verdict is Verdict.UNSETTLED
    assert compare(handed, BOB_SHOWS).verdict is Verdict.UNSETTLED
    assert compare(BOB_SHOWS, ALICE_KNOWS).verdict is Verdict.VERIFIED


def test_ones_own_code_shown_back_does_not_match() -> None:
    assert not compare(ALICE_KNOWS, ALICE_KNOWS).matches


def test_a_code_shows_no_id_in_its_repr() -> None:
    for shown in (repr(BOB_SHOWS), repr(ALICES)):
        assert "b'" not in shown
        assert "bbbb" not in shown


@given(data=st.binary(max_size=200))
@examples(200)
def test_no_bytes_raise_anything_but_a_refusal(data: bytes) -> None:
    for packed in (data, b"\x01" + data):
        assert refused(packed) in {Reason.MALFORMED, Reason.UNSUPPORTED_VERSION}


def test_the_numbers_of_the_formulas_are_the_codes() -> None:
    page = (SPEC / "safety-number.md").read_text("utf-8")
    assert f"for i = 1 … {fingerprint.ROUNDS:,}" in page
    assert f"code = 0x{fingerprint.CODE_VERSION:02x} ‖" in page
