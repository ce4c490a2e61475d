"""The form of the vectors: how a file, a group and a test look, and how values stand in JSON.

No construction stands here; what a type of test computes is in `ours` and `second`, what is in it in `generate`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "protocol-spec" / "vectors"
SCHEMA = "schema.json"

#: Beside a method of the same name.
ByteString = bytes
#: One of several like it in a list: a step, or what came of it.
Entry = Mapping[str, bytes | int | str | None]
#: What an operation takes and gives. Byte strings are hexadecimal in JSON, the rest is what it is.
Value = bytes | int | str | list[bytes] | list[Entry] | None
Outputs = Mapping[str, Value]


def to_json(value: Value | Entry) -> Any:
    """A value as it stands in a file."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {name: to_json(item) for name, item in value.items()}
    return value


class Case:
    """The fields of one test, those of its group included."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    def bytes(self, name: str) -> bytes:
        """A byte string."""
        return bytes.fromhex(self._fields[name])

    def items(self, name: str) -> list[ByteString]:
        """A list of byte strings."""
        return [ByteString.fromhex(item) for item in self._fields[name]]

    def entries(self, name: str) -> list["Case"]:
        """A list of entries with fields of their own."""
        return [Case(entry) for entry in self._fields[name]]

    def number(self, name: str) -> int:
        """A number."""
        value = self._fields[name]
        assert isinstance(value, int)
        return value

    def text(self, name: str) -> str:
        """A text."""
        value = self._fields[name]
        assert isinstance(value, str)
        return value

    def is_null(self, name: str) -> bool:
        """Whether the field says that there is nothing."""
        return self._fields[name] is None


def attachment_bytes(case: Case) -> bytes:
    """The container of a test: the group's, cut, with one bit changed, and with bytes behind it."""
    container = bytearray(case.bytes("container")[: case.number("length")])
    if not case.is_null("flipped"):
        container[case.number("flipped")] ^= 1
    return bytes(container) + case.bytes("tail")


def delivered(step: Case, given: list[ByteString]) -> ByteString:
    """The message of an earlier step, with one bit changed if the step says so."""
    message = bytearray(given[step.number("step")])
    if not step.is_null("flipped"):
        message[step.number("flipped")] ^= 1
    return bytes(message)


#: What a type of test computes; it raises its implementation's refusal.
Operation = Callable[[Case], Outputs]


@dataclass(frozen=True)
class Vector:
    """One test of a file, ready to run."""

    file: str
    number: int
    type: str
    case: Case
    fields: Mapping[str, Any]

    @property
    def reason(self) -> str | None:
        """Why it is refused; None for a valid one."""
        reason: str | None = self.fields.get("reason")
        return reason

    def __str__(self) -> str:
        return f"{self.file}-{self.number}"


def files() -> list[Path]:
    """The files of vectors, without the schema."""
    return sorted(path for path in FOLDER.glob("*.json") if path.name != SCHEMA)


def vectors() -> Iterator[Vector]:
    """Every test of every file."""
    for path in files():
        for group in json.loads(path.read_text("utf-8"))["testGroups"]:
            shared = {name: value for name, value in group.items() if name not in ("type", "tests")}
            for test in group["tests"]:
                yield Vector(path.stem, test["tcId"], group["type"], Case(shared | test), test)
