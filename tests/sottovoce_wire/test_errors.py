"""A code's number is for ever; the specification's table is the record of it."""

from collections.abc import Callable

import pytest

from sottovoce_wire.errors import Code, WireError


def test_the_spec_lists_exactly_these_codes(spec_rows: Callable[[str], list[list[str]]]) -> None:
    listed = [(int(number), name) for number, name, *_ in spec_rows("codes.md")]
    assert listed == [(code.value, code.name) for code in Code]


@pytest.mark.parametrize("code", Code)
def test_every_code_but_accepted_stands_in_the_hundred_of_its_chapter(code: Code) -> None:
    assert code is Code.ACCEPTED or 100 <= code < 600


def test_an_error_names_its_rule_and_its_number() -> None:
    error = WireError(Code.BAD_RECORD, "the record is too short")
    assert str(error) == "bad_record (406): the record is too short"
    assert (error.code, error.detail) == (Code.BAD_RECORD, "the record is too short")
