"""The demonstration runs whole, compares honestly, and leaves nothing behind."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from scripts import demo
from scripts.demo import DemoError, Text, check_search, evidence, first_difference, own_text, read_text, search_host
from scripts.leaks import Search
from tests.processes import processes_of

LINES = [
    "A first line that is long enough.",
    "",
    "  Η δεύτερη γραμμή, με κενά.  ",
    "👩‍💻🤫🔐 and the third one",
    "x",
    "\\r \t end",
]


def run_demo(file: Path, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.demo", file],
        cwd=demo.ROOT,
        env=os.environ | {"TMPDIR": str(home), "SOTTOVOCE_SERVER": "http://127.0.0.1:1", "SOTTOVOCE_SERVER_PORT": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_the_story_ends_well_and_leaves_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_text("\n".join(LINES * 3), "utf-8")
    home = tmp_path / "home"
    home.mkdir()
    done = run_demo(file, home)
    assert (done.returncode, done.stderr) == (0, "")
    assert "all 18 after" in done.stdout
    assert "byte for byte the same" in done.stdout
    assert "looked for 17 lines" in done.stdout
    assert "the search can see" in done.stdout
    before, after = (int(count) for count in re.findall(r"envelopes ([0-9]+)", done.stdout))
    assert before == 18
    assert after <= 1, "but for a receipt, nothing waits"
    assert list(home.iterdir()) == []
    assert processes_of(home) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_story_ends_its_programs_and_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "scripts.demo"],
        cwd=demo.ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "ready at" in process.stdout.readline()
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


# --- What is sent -------------------------------------------------------------------------------------------


def test_the_projects_own_text_is_long_and_in_several_scripts() -> None:
    text = own_text()
    assert 1_000 <= len(text.lines) <= demo.MAX_LINES
    assert {"Καλημέρα, καλή σου μέρα.", "おはようございます。静かな一日を。"} <= set(text.lines)
    assert text.content.decode().split("\n") == [*text.lines, ""]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\ntwo", ["one", "two"]),
        (b"\n", [""]),
        (b"one\r\n\ntwo\x0c\n", ["one\r", "", "two\x0c"]),
    ],
)
def test_a_files_lines_end_with_newlines_and_nothing_else(tmp_path: Path, content: bytes, lines: list[str]) -> None:
    (tmp_path / "file").write_bytes(content)
    assert read_text(tmp_path / "file").lines == lines


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\xff\xfe\n", "not a text in UTF-8"),
        (b"x\n" * 2001, "2,001 lines, but .* at most 2,000"),
        (b"x" * 49_153, "a line of more than 48 KiB"),
        ((b"x" * 40_000 + b"\n") * 105, "more than 4 MiB"),
    ],
    ids=["empty", "not UTF-8", "too many lines", "a line too long", "too much"],
)
def test_a_file_that_cannot_be_sent_is_refused_with_a_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DemoError, match=reason):
        read_text(tmp_path / "file")


def test_a_file_that_is_not_there_is_refused_with_a_reason(tmp_path: Path) -> None:
    done = run_demo(tmp_path / "nothing", tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == f"demo: {tmp_path / 'nothing'} cannot be read: No such file or directory"


# --- What must be noticed -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "difference"),
    [
        (["one", "twö", "three"], "message 2 differs from line 2"),
        (["one", "three", "two"], "message 2 differs from line 2"),
        (["one", "two"], "2 messages for 3 lines"),
        (["one", "two", "three", "three"], "4 messages for 3 lines"),
    ],
)
def test_what_did_not_arrive_as_it_was_sent_is_named(texts: list[str], difference: str) -> None:
    sent = Text("a file", b"one\ntwo\nthree\n", ["one", "two", "three"])
    assert first_difference([{"text": text} for text in texts], sent) == difference


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """What a server wrote: a relay's database in WAL mode, and a log."""
    host = tmp_path / "server"
    (host / "data").mkdir(parents=True)
    (host / "log").write_text('{"event": "ready"}\n')
    with closing(sqlite3.connect(host / "data" / "relay.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE envelopes (seq INTEGER, body BLOB)")
        connection.commit()
        yield host


SPOKEN = "something that was said in confidence"


def test_a_line_in_the_servers_log_fails_the_demonstration(host: Path) -> None:
    search = Search([(3, SPOKEN)])
    search_host(search, host)
    (host / "log").write_text('{"event": "' + SPOKEN.encode().hex() + '"}\n')
    with pytest.raises(DemoError, match=r"PLAIN TEXT.*line 3 in hexadecimal in log"):
        search_host(search, host)


def test_a_line_in_the_servers_database_fails_the_demonstration(host: Path) -> None:
    with closing(sqlite3.connect(host / "data" / "relay.db")) as connection:
        connection.execute("INSERT INTO envelopes VALUES (1, ?)", (SPOKEN.encode(),))
        connection.commit()
        with pytest.raises(DemoError, match=r"PLAIN TEXT.*line 3 as it is in relay.db-wal"):
            search_host(Search([(3, SPOKEN)]), host)


def test_the_servers_own_words_are_no_evidence(host: Path) -> None:
    schema = "CREATE TABLE envelopes (seq INTEGER, body BLOB)"
    search = evidence(Text("a file", b"", [schema, SPOKEN]), host)
    assert (schema in search, SPOKEN in search) == (False, True)


def test_a_search_that_sees_is_trusted_and_cleans_up(host: Path) -> None:
    check_search(Search([(3, SPOKEN)]), SPOKEN, host)
    assert list(host.parent.iterdir()) == [host]


def test_a_search_that_is_blind_fails_the_demonstration(host: Path) -> None:
    with pytest.raises(DemoError, match="blind"):
        check_search(Search([(3, "another line, not the planted one")]), SPOKEN, host)
