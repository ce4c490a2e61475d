"""The specification's table of limits is the code's, and the limits fit each other."""

from collections.abc import Callable

from sottovoce_wire import frames, limits
from sottovoce_wire.errors import Code
from sottovoce_wire.ids import EnvelopeId, QueueId, SendKey, SendKeyHash

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
    listed = {constant: in_units(value) for constant, value, *_ in spec_rows("limits.md") if "." not in constant}
    assert listed == LIMITS  # a name with a dot is another room's


def test_every_limit_has_a_reason(spec_rows: Callable[[str], list[list[str]]]) -> None:
    assert [row for row in spec_rows("limits.md") if not row[2]] == []


def test_what_may_wait_unacknowledged_fits_what_a_queue_may_hold() -> None:
    assert limits.MAX_UNACKNOWLEDGED <= limits.STRANGER_ENVELOPES <= limits.QUEUE_ENVELOPES
    assert limits.MAX_ENVELOPE < limits.MAX_UNACKNOWLEDGED_BYTES <= limits.STRANGER_BYTES <= limits.QUEUE_BYTES


def test_the_largest_envelope_fits_a_message_with_as_many_targets_as_there_may_be() -> None:
    target = frames.Target(QueueId(bytes(16)), SendKey(bytes(32)), EnvelopeId(bytes(16)))
    body = bytes(limits.MAX_ENVELOPE)
    largest = frames.SendMany(2**32 - 1, frames.Ttl.MONTH, body, [target] * limits.MAX_TARGETS)
    assert len(frames.message(largest)) <= limits.MAX_MESSAGE


def test_a_connection_proves_and_receives_all_its_queues_in_one_message() -> None:
    key = frames.NewSendKey(SendKeyHash(bytes(32)), frames.KeyClass.GROUP)
    code = "é" * limits.MAX_REGISTRATION_CODE
    create = frames.CreateQueue(2**32 - 1, bytes(32), bytes(64), [key] * limits.MAX_SEND_KEYS, code)
    receive = frames.Receive(2**32 - 1, QueueId(bytes(16)), limits.MAX_UNACKNOWLEDGED, limits.MAX_UNACKNOWLEDGED_BYTES)
    proof: list[frames.ClientFrame] = [create, receive] * limits.MAX_QUEUES_PER_CONNECTION
    assert len(proof) <= limits.MAX_FRAMES
    assert len(frames.message(*proof)) <= limits.MAX_MESSAGE


def test_one_answer_holds_the_results_of_the_largest_request() -> None:
    results = [frames.SendResult(Code.QUEUE_FULL, 2**32 - 1)] * max(limits.MAX_SEND_ITEMS, limits.MAX_TARGETS)
    answer = frames.SendResults(1, results)
    assert frames.decode_relay_message(frames.message(answer)) == [answer]


def test_a_demoted_key_outlives_every_envelope_that_was_sent_before_its_holders_could_hear_of_it() -> None:
    assert max(ttl.seconds for ttl in frames.Ttl) < limits.DEMOTED_LIFETIME
