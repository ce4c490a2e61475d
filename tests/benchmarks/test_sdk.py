"""`scripts/bench sdk` measures real clients at a real server, says what it measured, and leaves nothing behind.

A small setting. What the figures are is no matter here.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from benchmarks import sdk, sdk_archive, sdk_floors, sdk_peers, sdk_report, sdk_work
from benchmarks.__main__ import main
from benchmarks.crypto_report import Row
from benchmarks.report import Figures
from benchmarks.sdk_work import Contestant, Sizes, Work
from sottovoce.registration import prepare
from sottovoce.store import witness
from sottovoce.store.database import open_store
from tests.benchmarks.loops import run
from tests.benchmarks.test_bench import ROOT
from tests.processes import processes_of

TINY = Sizes(latency=2, oneway=70, backlog=70, tasks=10, archive=20, sessions=3, floors=3)
ROWS = {row.key: row for row in sdk_report.ROWS}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders go. No peer is installed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_every_figure_is_measured_beside_its_goal_and_nothing_is_left(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sdk.main(["--repeats", "1", "--json", "-"], TINY) == 0
    out, table = capsys.readouterr()
    shown = json.loads(out)
    assert tuple(shown["ours"]) == ("p50_ms", "p99_ms", "oneway_s", "backlog_s", "open_ms", "rss_mib")
    assert all(value > 0 for value in shown["ours"].values())
    assert shown["floors"].keys() == {"fsync_ms", "commit_ms", "commit_64_ms", "loopback_ms"}
    assert all(value > 0 for value in shown["floors"].values())
    assert all(f"\n{key} " in table for key in sdk_report.KEYS)
    assert shown["peers"] == {}
    assert "\nmatrix-nio with Synapse: not measured, it is not installed here; " in table
    assert "FAILED" not in table
    assert list(home.iterdir()) == []
    assert processes_of(home) == []


def test_the_bench_s_command_leads_here(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["sdk", "--help"])
    assert end.value.code == 0
    assert "scripts/bench sdk" in capsys.readouterr().out


def test_what_cannot_be_measured_is_no_figure_and_an_error(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sdk, "_CLIENT", "raise SystemExit('no client')")
    file = home / "figures.json"
    assert sdk.main(["--repeats", "1", "--json", str(file)], TINY) == 1
    assert set(json.loads(file.read_text())["ours"].values()) == {None}
    assert "FAILED: ours: BenchError: open: the client ended: no client" in capsys.readouterr().out
    assert list(home.iterdir()) == [file]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_bench_leaves_no_process_and_no_folder(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "sdk"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while not any("sdk_client" in line for line in processes_of(tmp_path)):
            assert process.poll() is None
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


def test_a_peer_that_is_missing_is_named_with_how_to_install_it(home: Path) -> None:
    found, (line,) = sdk_peers.installed()
    assert found == []
    assert "matrix-nio with Synapse: not measured" in line
    assert "pip install 'matrix-synapse==1.163.*' 'matrix-nio[e2e]==0.26.*'" in line


def test_half_a_peer_is_not_installed(home: Path) -> None:
    """Synapse is there, and the Python beside it, which knows no nio."""
    server = home / "synapse_homeserver"
    server.touch(0o755)
    (home / "python").symlink_to(Path(sys.executable).resolve())
    assert sdk_peers.installed()[0] == []


def test_a_peer_that_fails_is_named_once_and_does_not_end_the_others() -> None:
    tried: list[str] = []

    def contestant(name: str, error: Exception | None = None) -> Contestant:
        async def work(_: Sizes) -> Figures:
            tried.append(name)
            if error:
                raise error
            return {"p50_ms": 5.0}

        @asynccontextmanager
        async def started() -> AsyncIterator[Mapping[str, Work]]:
            yield {"latency": work, "again": work}

        return Contestant(name, started)

    peers = [contestant("failing", OSError("no luck")), contestant("other")]
    measured = sdk.Run(TINY, 2, peers)

    async def measure() -> None:
        for number in (1, 2):
            await measured.again(peers, TINY, number)

    run(measure())
    assert tried == ["failing", "other", "other", "other", "other"]
    assert measured.failures == {"failing": "OSError: no luck"}
    assert measured.beside() == {"other": {"p50_ms": 5.0}}


def test_a_filled_store_holds_what_it_is_measured_with(tmp_path: Path) -> None:
    """Handled messages, and sessions that could go on."""
    path = tmp_path / "store.db"
    store = open_store(path)
    with store.transaction() as tables:
        prepare(tables, "http://127.0.0.1:1", "http://127.0.0.1:1", int(time.time()))
    store.close()
    folder = witness.state_folder()
    assert folder is not None
    sdk_archive.fill(path, folder, 20, 3)
    store = open_store(path)
    with store.transaction() as tables:
        assert tables.inbox.unhandled(100) == []
        assert tables.inbox._execute("SELECT count(*) FROM messages").get == 20
        assert len(tables.peers.contacts()) == 3
        assert len(list(tables.sessions.routes())) == 3
        assert len(tables.routing) >= 3
    store.close()


# --- The report ---


def test_the_goals_are_those_of_the_design() -> None:
    assert {row.key: row.goal for row in sdk_report.ROWS} == {
        "p50_ms": 6,
        "p99_ms": None,
        "oneway_s": 1_000,
        "backlog_s": 2_500,
        "open_ms": 300,
        "rss_mib": None,
    }


def line(row: Row, lines: list[str]) -> str:
    """The one line of this figure."""
    (found,) = (each for each in lines if each.startswith(f"{row.key} "))
    return found


@pytest.mark.parametrize(("key", "good", "bad"), [("p50_ms", 6, 6.1), ("oneway_s", 1_000, 999)])
def test_a_goal_is_met_from_its_own_value_on(key: str, good: float, bad: float) -> None:
    assert " met " in line(ROWS[key], sdk_report.table({key: good}, {}, {}))
    assert " MISSED " in line(ROWS[key], sdk_report.table({key: bad}, {}, {}))
    assert " not measured " in line(ROWS[key], sdk_report.table({}, {}, {}))


def test_beside_a_peer_s_figure_stands_how_many_times_as_good_ours_is() -> None:
    """Less time, and more in a second."""
    lines = sdk_report.table({"p50_ms": 6.0, "oneway_s": 1_000.0}, {}, {"peer": {"p50_ms": 30.0, "oneway_s": 100.0}})
    assert " 30.0 (5.00 ×) " in line(ROWS["p50_ms"], lines)
    assert " 100 (10.0 ×) " in line(ROWS["oneway_s"], lines)
    assert " × " not in line(ROWS["open_ms"], lines)
    assert lines[0].endswith(" peer")


def test_where_a_peer_was_measured_the_report_says_at_how_many_messages() -> None:
    assert any("500 one way, a backlog of 1,000" in note for note in sdk_report.note_lines({"peer": {}}, sdk_work.FULL))
    assert sdk_report.note_lines({}, sdk_work.FULL) == []


@pytest.mark.parametrize(
    ("commit", "bound", "words"),
    [(1.0, "2.50", "allows the goal: the rest is ours"), (4.0, "8.50", "is what stops it")],
)
def test_a_missed_goal_is_compared_with_its_floor(commit: float, bound: str, words: str) -> None:
    lines = sdk_report.table({"p50_ms": 9.0}, {"commit_ms": commit, "loopback_ms": 0.5}, {})
    assert lines[2].split()[:2] == [bound, "floor"]
    assert words in lines[2]


def test_a_rate_s_floor_is_as_many_as_full_commits_hold() -> None:
    assert sdk_report.FLOORS["backlog_s"].bound({"commit_64_ms": 2.0}) == 32_000


def test_every_floor_is_measured() -> None:
    floors = sdk_floors.measure(2)
    assert all(floor.bound(floors) > 0 for floor in sdk_report.FLOORS.values())
