"""How the generator builds files: types of tests with their fields, groups, numbering, the schema.

A construction's module gives the inputs and, for an invalid test, the reason that the spec demands. What a valid test
gives is computed by the project's code here; that the second implementation agrees is for the tests.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sottovoce.crypto.errors import Reason
from tests.vectors import ours
from tests.vectors.form import SCHEMA, Case, Value, to_json

HEX, NUMBER, TEXT = "hex", "number", "text"
HEX_LIST, OPTIONAL_NUMBER = "hexList", "optionalNumber"
OPTIONAL_REASON, SIDE, STEP_LIST, RESULT_LIST = "optionalReason", "side", "stepList", "resultList"

#: The steps of a session: what is done, and its fields besides `do` and `side`.
_DRAWN_BY_KEM: Mapping[str, str] = {"kemCoins": HEX, "kemSecret": HEX, "kemCiphertext": HEX}
STEPS: Mapping[str, Mapping[str, str]] = {
    "send": {"at": NUMBER, "body": HEX, "nonce": HEX, "ratchetSecret": HEX, "kemSeed": HEX},
    "sendEphemeral": {"body": HEX, "nonce": HEX},
    "deliver": {"at": NUMBER, "step": NUMBER, "flipped": OPTIONAL_NUMBER, **_DRAWN_BY_KEM},
    "receive": {"at": NUMBER, "message": HEX},
    "receiveAs": {"at": NUMBER, "message": HEX, "chain": NUMBER, "number": NUMBER, "ephemeral": NUMBER},
    "restart": {},
    "restore": {"state": HEX},
}
#: What came of a step.
RESULT: Mapping[str, str] = {
    "gave": HEX,
    "refused": OPTIONAL_REASON,
    "epoch": NUMBER,
    "tags": HEX,
    "state": HEX,
}

#: What a flag says; a file's notes hold those that it uses.
FLAGS: Mapping[str, str] = {
    "Boundary": "A value at the edge of what is allowed, or one step beyond it.",
    "ChangedBytes": "Bytes that somebody on the way changed.",
    "Encoding": "Bytes that do not have the one form that their place asks for.",
    "Forgery": "A statement that its supposed author did not make.",
    "InvalidKey": "A key that makes secrets or signatures worthless.",
    "Misplaced": "Genuine bytes in the place of others: of another account, device, kind or time.",
    "Mistake": "What an implementation computes that reads the spec in a wrong way.",
    "Usual": "What happens every day.",
}

Fields = Mapping[str, str]


@dataclass(frozen=True)
class Type:
    """A type of test: the fields of its groups and of its tests, and what a valid one gives."""

    name: str
    group: Fields
    inputs: Fields
    outputs: Fields


@dataclass(frozen=True)
class Test:
    """One test: what goes in, and the reason if it must be refused."""

    __test__ = False

    comment: str
    flag: str
    inputs: Mapping[str, Value]
    reason: Reason | None = None


def valid(comment: str, flag: str = "Usual", /, **inputs: Value) -> Test:
    """A test whose outputs are computed."""
    return Test(comment, flag, inputs)


def invalid(reason: Reason, comment: str, flag: str, /, **inputs: Value) -> Test:
    """A test that must be refused with this reason."""
    return Test(comment, flag, inputs, reason)


@dataclass(frozen=True)
class Group:
    """Tests of one type, and the fields that they share."""

    type: Type
    tests: Sequence[Test]
    fields: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Construction:
    """One file: its name, what it is about, and its groups."""

    name: str
    algorithm: str
    types: Sequence[Type]
    groups: Callable[[], Sequence[Group]]


def _outputs(kind: Type, shared: dict[str, Any], test: Test) -> dict[str, Any]:
    case = Case(shared | {name: to_json(value) for name, value in test.inputs.items()})
    try:
        outputs = ours.OPERATIONS[kind.name](case)
    except ours.Refusal as refusal:
        if test.reason is refusal.reason:
            return {"result": "invalid", "reason": refusal.reason.value}
        raise ValueError(f"{kind.name}: {test.comment}: refused as {refusal}") from None
    if test.reason is not None or set(outputs) != set(kind.outputs):
        raise ValueError(f"{kind.name}: {test.comment}: not refused, or with other outputs than declared")
    return {name: to_json(value) for name, value in outputs.items()} | {"result": "valid"}


def _check_fields(where: str, declared: Fields, given: Mapping[str, Value]) -> None:
    if set(declared) != set(given):
        raise ValueError(f"{where}: fields {sorted(given)} instead of {sorted(declared)}")


def _group(group: Group, first: int) -> dict[str, Any]:
    _check_fields(group.type.name, group.type.group, group.fields)
    shared = {name: to_json(value) for name, value in group.fields.items()}
    tests = []
    for number, test in enumerate(group.tests, first):
        _check_fields(f"{group.type.name}: {test.comment}", group.type.inputs, test.inputs)
        inputs = {name: to_json(value) for name, value in test.inputs.items()}
        head = {"tcId": number, "comment": test.comment, "flags": [test.flag]}
        tests.append(head | inputs | _outputs(group.type, shared, test))
    return {"type": group.type.name, **shared, "tests": tests}


def file_text(construction: Construction) -> str:
    """The file of a construction."""
    groups: list[dict[str, Any]] = []
    count = 0
    for group in construction.groups():
        groups.append(_group(group, count + 1))
        count += len(group.tests)
    used = sorted({flag for group in groups for test in group["tests"] for flag in test["flags"]})
    head = {"algorithm": construction.algorithm, "schema": SCHEMA, "numberOfTests": count}
    return _text(head | {"notes": {flag: FLAGS[flag] for flag in used}, "testGroups": groups})


def _text(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


# --- Schema -----------------------------------------------------------------------------------------------------

_KINDS: Mapping[str, Any] = {
    HEX: {"type": "string", "pattern": "^(?:[0-9a-f]{2})*$"},
    NUMBER: {"type": "integer", "minimum": 0},
    TEXT: {"type": "string"},
    HEX_LIST: {"type": "array", "items": {"$ref": "#/$defs/hex"}},
    OPTIONAL_NUMBER: {"oneOf": [{"type": "null"}, {"$ref": "#/$defs/number"}]},
    OPTIONAL_REASON: {"oneOf": [{"type": "null"}, {"$ref": "#/$defs/reason"}]},
    SIDE: {"enum": ["A", "B"]},
}

#: What every test begins with.
_HEAD: Mapping[str, Any] = {
    "tcId": {"type": "integer", "minimum": 1},
    "comment": {"type": "string"},
    "flags": {"type": "array", "minItems": 1, "items": {"enum": list(FLAGS)}},
}


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(properties),
        "properties": dict(properties),
        "additionalProperties": False,
    }


def _references(declared: Fields) -> dict[str, Any]:
    return {name: {"$ref": f"#/$defs/{kind}"} for name, kind in declared.items()}


def _step_schema(do: str) -> dict[str, Any]:
    return _object({"do": {"const": do}, **_references({"side": SIDE, **STEPS[do]})})


def _lists() -> dict[str, Any]:
    return {
        STEP_LIST: {"type": "array", "minItems": 1, "items": {"oneOf": [_step_schema(do) for do in STEPS]}},
        RESULT_LIST: {"type": "array", "minItems": 1, "items": _object(_references(RESULT))},
    }


def _type_schema(kind: Type) -> dict[str, Any]:
    inputs = {name: {"$ref": f"#/$defs/{name}"} for name in _HEAD} | _references(kind.inputs)
    accepted = inputs | _references(kind.outputs) | {"result": {"const": "valid"}}
    refused = inputs | {"result": {"const": "invalid"}, "reason": {"$ref": "#/$defs/reason"}}
    tests = {"type": "array", "minItems": 1, "items": {"oneOf": [_object(accepted), _object(refused)]}}
    return _object({"type": {"const": kind.name}, **_references(kind.group), "tests": tests})


def schema_text(constructions: Sequence[Construction]) -> str:
    """The JSON schema of all files, with the closed list of reasons."""
    types = {kind.name: _type_schema(kind) for construction in constructions for kind in construction.types}
    reasons = {"enum": [reason.value for reason in Reason]}
    top = _object(
        {
            "algorithm": {"type": "string"},
            "schema": {"const": SCHEMA},
            "numberOfTests": {"type": "integer", "minimum": 1},
            "notes": {"type": "object"},
            "testGroups": {
                "type": "array",
                "minItems": 1,
                "items": {"oneOf": [{"$ref": f"#/$defs/{name}"} for name in types]},
            },
        }
    )
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Test vectors of the Sottovoce protocol",
    }
    return _text(head | top | {"$defs": {**_KINDS, **_lists(), **_HEAD, "reason": reasons, **types}})
