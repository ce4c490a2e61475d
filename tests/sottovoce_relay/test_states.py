"""The tables of states: the same in the specification, complete, and without dead ends."""

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from sottovoce_relay import states
from sottovoce_wire import frames

PAGE: Final = (Path(__file__).parents[2] / "protocol-spec" / "relay.md").read_text("utf-8")
TABLES: Final[dict[str, Mapping[tuple[Any, Any], Any]]] = {
    "Connection": states.CONNECTION,
    "Delivery of one queue on one connection": states.DELIVERY,
    "Envelope": states.ENVELOPE,
}
ENDS: Final = {states.ConnectionState.CLOSING, states.EnvelopeState.GONE}


def rows_under(heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, without its head."""
    section = PAGE.split(f"### {heading}\n")[1].split("\n#")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


@pytest.mark.parametrize("heading", TABLES)
def test_the_specification_shows_the_same_table(heading: str) -> None:
    steps = [[state.value, event.value, then.value] for (state, event), then in TABLES[heading].items()]
    assert rows_under(heading) == steps


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_every_state_can_be_left_unless_it_is_an_end_and_every_event_moves_something(
    table: Mapping[tuple[enum.Enum, enum.Enum], enum.Enum],
) -> None:
    left, events = {state for state, _ in table}, {event for _, event in table}
    state_type, event_type = type(next(iter(left))), type(next(iter(events)))
    assert left | ENDS >= set(state_type)
    assert left.isdisjoint(ENDS)
    assert events == set(event_type)


@pytest.mark.parametrize(
    ("heading", "union"), [("Client to relay", frames.ClientFrame), ("Relay to client", frames.RelayFrame)]
)
def test_the_specification_lists_every_frame_with_its_tag_and_fields(heading: str, union: Any) -> None:
    shown = [(int(tag), name, fields.split(", ")) for tag, name, fields, *_ in rows_under(heading)]
    for (tag, name, fields), kind in zip(shown, union.__args__, strict=True):
        assert (tag, name) == (kind.__struct_config__.tag, kind.__name__)
        words = [word.split(":")[0].split(" ")[0] for word in fields]
        assert [word for word in words if word in kind.__struct_fields__] == list(kind.__struct_fields__)
