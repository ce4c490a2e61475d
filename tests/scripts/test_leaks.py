"""The search finds a line wherever a server could have let it slip, and nothing where nothing is."""

import base64
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.leaks import Search, base64_within, files_in, forms, is_evidence

LINE = "def send(self, to: str, text: str) -> Sent:  # ∀ öffentlich 👋"
SEARCH = Search([(7, "another line of the same text"), (9, LINE)])
RAW = LINE.encode()


def found(data: bytes) -> set[tuple[int, str]]:
    return {(trace.line, trace.form) for trace in SEARCH.in_bytes(data, "somewhere")}


PLANTED = {
    "raw": (b"\x00\xff" + RAW + b"\x80", "as it is"),
    "at the very start": (RAW + b"x", "as it is"),
    "at the very end": (b"x" + RAW, "as it is"),
    "in a JSON log": (json.dumps({"event": LINE}).encode(), "in JSON"),
    "in hexadecimal": (b'{"body": "' + (b"\x01" + RAW + b"\x02").hex().encode() + b'"}', "in hexadecimal"),
    "in capital hexadecimal": (b"X'" + RAW.hex().upper().encode() + b"'", "in hexadecimal"),
    **{
        f"in base64, shifted by {n}": (base64.b64encode(b"\xfe" * n + RAW + b"\xfe\xff"), "in base64") for n in range(5)
    },
    **{
        f"in URL-safe base64, shifted by {n}": (base64.urlsafe_b64encode(b"\xfe" * n + RAW + b"\xfe"), "in base64")
        for n in range(3)
    },
}


@pytest.mark.parametrize("how", PLANTED)
def test_a_planted_line_is_found(how: str) -> None:
    data, form = PLANTED[how]
    assert (9, form) in found(b"a log line before\n" + data + b"\nand one after")


@given(before=st.binary(max_size=10), after=st.binary(max_size=10), line=st.text(min_size=20, max_size=60))
def test_every_line_is_found_in_base64_of_anything_around_it(before: bytes, after: bytes, line: str) -> None:
    raw = line.strip().encode()
    assert base64_within(raw, len(before) % 3) in base64.b64encode(before + raw + after)


@pytest.mark.parametrize("cut", [slice(None, -1), slice(1, None)], ids=["its end", "its beginning"])
def test_a_line_without_a_piece_of_it_is_not_the_line(cut: slice) -> None:
    assert found(b"x" + RAW[cut] + b"x") == set()


@pytest.mark.parametrize("data", [b"", b"short", b"\x00" * 5000, bytes(range(256)) * 20])
def test_nothing_is_found_where_nothing_is(data: bytes) -> None:
    assert found(data) == set()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "}",
        "    return None",
        "-" * 200,
        "                                       ",
        "| --- | --- | --- |",
        "абвгдеж",
    ],
)
def test_a_line_that_could_stand_anywhere_is_no_evidence(line: str) -> None:
    assert not is_evidence(line)
    assert Search([(1, line)]).size == 0
    assert Search([(1, line)]).in_bytes(line.encode() * 3, "itself") == set()


@pytest.mark.parametrize("line", ["Hello, it is me!", "    return value_of(x)  ", "早上好,祝你今天平安。"])
def test_a_line_of_sixteen_bytes_is_evidence_without_the_spaces_around_it(line: str) -> None:
    assert is_evidence(line)
    assert Search([(1, line)]).in_bytes(line.strip().encode(), "itself")


def test_the_number_of_lines_looked_for_is_told() -> None:
    assert SEARCH.size == 2
    assert LINE in SEARCH
    assert "something else entirely" not in SEARCH


def test_every_form_of_a_line_is_looked_for() -> None:
    assert {form for form, _ in forms(LINE)} == {"as it is", "in JSON", "in hexadecimal", "in base64"}
    for form, pattern in forms(LINE):
        assert (9, form) in found(pattern)


def test_a_line_in_a_databases_journal_is_found(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "relay.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE envelopes (body BLOB)")
        connection.execute("INSERT INTO envelopes VALUES (?)", (RAW,))
        connection.commit()
        places = {trace.place for trace in SEARCH.in_files(files_in(tmp_path))}
    assert "relay.db-wal" in places


def test_a_line_in_a_log_below_the_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "server.log").write_bytes(b'{"event": "' + base64.b64encode(RAW) + b'"}\n')
    (tmp_path / "clean.log").write_bytes(b'{"event": "ready"}\n')
    assert {(trace.line, trace.place) for trace in SEARCH.in_files(files_in(tmp_path))} == {(9, "server.log")}


def test_a_line_in_a_files_name_is_found(tmp_path: Path) -> None:
    (tmp_path / "another line of the same text").touch()
    assert {trace.line for trace in SEARCH.in_files(files_in(tmp_path))} == {7}


def test_a_trace_names_the_line_and_does_not_repeat_it() -> None:
    (trace,) = {trace for trace in SEARCH.in_bytes(RAW, "log") if trace.form == "as it is"}
    assert (trace.line, trace.place) == (9, "log")
    assert LINE not in repr(trace)
