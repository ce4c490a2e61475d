"""The specification's table of limits is the code's, and the limits fit each other."""

from collections.abc import Callable

from sottovoce_wire import limits

UNITS = {"KIB", "MIB", "HOUR", "DAY"}
LIMITS = {name: value for name, value in vars(limits).items() if name.isupper() and name not in UNITS}
FACTORS = {
    "KiB": limits.KIB,
    "MiB": limits.MIB,
    "hours": limits.HOUR,
    "days": limits.DAY,
    "day": limits.DAY,
    "bytes": 1,
}


def in_units(text: str) -> int:
    """`64 KiB`, `10,000` or `30 days` as a number of bytes, things or seconds."""
    number, _, unit = text.replace(",", "").partition(" ")
    return int(number) * (FACTORS[unit] if unit else 1)


def test_the_spec_lists_exactly_these_limits(spec_rows: Callable[[str], list[list[str]]]) -> None:
    listed = {constant: in_units(value) for constant, value, *_ in spec_rows("limits.md")}
    assert listed == LIMITS


def test_every_limit_has_a_reason(spec_rows: Callable[[str], list[list[str]]]) -> None:
    assert [row for row in spec_rows("limits.md") if not row[2]] == []


def test_what_may_wait_unacknowledged_fits_what_a_queue_may_hold() -> None:
    assert limits.MAX_UNACKNOWLEDGED <= limits.STRANGER_ENVELOPES <= limits.QUEUE_ENVELOPES
    assert limits.MAX_ENVELOPE < limits.MAX_UNACKNOWLEDGED_BYTES <= limits.STRANGER_BYTES <= limits.QUEUE_BYTES


def test_the_largest_envelope_fits_a_frame() -> None:
    assert limits.MAX_ENVELOPE < limits.MAX_FRAME
