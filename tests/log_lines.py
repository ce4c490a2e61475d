"""Which lines a server may log: fixed sentences of its sources, counts, names of errors and places. Nothing else.

An allow-list, so that it need not know the secrets of each test: what is no sentence of ours is a complaint, and so is
whatever could be an id, a key, a hash or an address. tests/conftest.py gives it every line that a server logs.
"""

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[1]
_SERVERS: Final = ("relay", "keyserver", "sdk/sottovoce_wire")
#: What stands in a hole of one of our sentences: a few short words, such as SQLite's own, and numbers.
_HOLE: Final = r"[\w ,.:'()/-]{0,80}"
#: Fields whose value is no sentence, and how it looks.
_NAMES: Final = {
    "level": r"debug|info|warning|error|critical",
    "timestamp": r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?",
    "error": r"[A-Za-z_]{1,40}",
    "at": r"unknown|[a-z_][a-z_0-9]{0,20}(\.[A-Za-z_0-9]{1,30}){0,5}:\d{1,5}",
    "service": r"relay|keyserver|probe|stub|one|two",
    "seconds": r"-?\d{1,12}",
    "library": r"[a-z_][a-z_0-9]{0,20}(\.[a-z_0-9]{1,30}){0,5}",
}
#: Reasons that tests give to databases that they make fail.
_FAKED: Final = frozenset({"the disk is full", "the disk went away"})
#: What no value may hold, whatever sentence it stands in.
_TRACES: Final = {
    "hexadecimal": r"[0-9a-fA-F]{12}",
    "base64": r"(?=[A-Za-z0-9+/_-]*\d)(?=[A-Za-z0-9+/_-]*[A-Z])[A-Za-z0-9+/_-]{20}",
    "bytes": r"\\x[0-9a-f]{2}",
    "a path": r"(^|[ '(:])[/~]\w",
    "a list of bytes": r"(\d{1,3}, ?){6}",
    "an address": r"\d{1,3}(\.\d{1,3}){3}|[0-9a-fA-F]{0,4}:[0-9a-fA-F]{0,4}:[0-9a-fA-F:]*",
}
#: What a person is told at the start or the end, before there are clients or after: `sottovoce-relay: …`.
_SAID: Final = re.compile(r"sottovoce-[a-z]+: .*")
#: An f-string with fewer characters of its own would let anything pass.
_SENTENCE: Final = 12
#: Bytes of a large disk; any id or key is far more.
_LARGEST_COUNT: Final = 10**14


def complaints(line: str) -> list[str]:
    """What a log line holds that it must not. The line is repeated: these are tests."""
    if _SAID.fullmatch(line) or not line.strip():
        return []
    try:
        fields = dict(json.loads(line))
    except (ValueError, TypeError):
        return [f"no JSON object: {line}"]
    return [f"{reason} in {name}: {line}" for name, value in fields.items() for reason in _faults(name, value)]


def _faults(name: str, value: object) -> Iterator[str]:
    if name in _NAMES:
        if not re.fullmatch(_NAMES[name], str(value)):
            yield "not what the field is for"
    elif isinstance(value, str):
        if value not in _FAKED and not sentences().fullmatch(value):
            yield "no sentence of the servers"
        yield from (trace for trace, pattern in _TRACES.items() if re.search(pattern, value))
    elif not (value is None or (isinstance(value, int | float) and abs(value) < _LARGEST_COUNT)):
        yield "neither a sentence nor a count"


@cache
def sentences() -> re.Pattern[str]:
    """The sentences of the servers' sources; what is filled into one at run time is a hole."""
    trees = [ast.parse(file.read_text("utf-8")) for source in _SERVERS for file in (_ROOT / source).rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    whole = {re.escape(text) for node in nodes if (text := _text(node))}
    filled = {
        "".join(re.escape(text) if (text := _text(part)) else _HOLE for part in node.values)
        for node in nodes
        if isinstance(node, ast.JoinedStr) and sum(len(_text(part)) for part in node.values) >= _SENTENCE
    }
    return re.compile("|".join(sorted(whole | filled)))


def _text(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
