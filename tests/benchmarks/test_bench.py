"""The bench measures real work on real servers, says what it measured, and leaves nothing behind.

A small setting, on asyncio's own loop: uvloop stands in the bench's lock only. What the figures are is no matter here.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import relay, report
from benchmarks.__main__ import main
from tests.processes import processes_of

ROOT = Path(__file__).parents[2]
TINY = relay.Sizes(
    single=160,
    batched=512,
    online_single=160,
    online_batched=512,
    latency=10,
    fan_outs=2,
    idle=20,
    idle_warm=2,
    flat_queues=(1, 20),
    flat=80,
    disk={50: 5, 1_000: 40},
    echoes=160,
    echo_turns=10,
    echo_idle=10,
    commits=3,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders go."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_every_figure_is_measured_beside_its_goal(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "FAN_OUT", 16)
    assert main(["relay", "--repeats", "1", "--json", "-"], TINY) == 0
    out, table = capsys.readouterr()
    figures = json.loads(out)
    assert tuple(figures) == report.KEYS
    assert all(value > 0 for key, value in figures.items() if not key.startswith("never"))
    assert all(f"\n{key} " in table for key in report.KEYS)
    assert "FAILED" not in table
    assert list(home.iterdir()) == []
    assert processes_of(home) == []


def test_one_figure_alone_takes_its_scenario_alone(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = home / "figures.json"
    assert main(["relay", "--repeats", "1", "--only", "drain_s", "--json", str(file)], TINY) == 0
    assert json.loads(file.read_text()).keys() == {"ingest_single_s", "ingest_batched_s", "drain_s"}
    assert "idle" not in capsys.readouterr().err


def test_what_does_not_exist_cannot_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["relay", "--only", "everything"])
    assert "no such scenario or figure: everything" in capsys.readouterr().err


def test_what_cannot_be_measured_is_no_figure_and_an_error(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOTTOVOCE_SERVER_QUEUE_ENVELOPES", "5")
    assert main(["relay", "--repeats", "1", "--only", "ingest", "--json", "-"], TINY) == 1
    out, table = capsys.readouterr()
    assert set(json.loads(out).values()) == {None}
    assert "FAILED: ingest: BenchError: a connection ended: an envelope was refused: QUEUE_FULL" in table
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_bench_leaves_no_process_and_no_folder(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "relay", "--only", "idle"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while not processes_of(tmp_path):
            assert process.poll() is None
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []
