"""The sensor: readings arrive, and the server keeps them for an hour, no longer."""

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from sottovoce import sync
from sottovoce_wire import limits
from tests.examples.programs import PATIENCE, run
from tests.servers import ServerProcess


def kept_until(server: ServerProcess) -> list[int]:
    with closing(sqlite3.connect(server.folder / "relay.db")) as database:
        return [until for (until,) in database.execute("SELECT expires_at FROM envelopes")]


def test_readings_wait_for_an_hour_and_are_shown_in_order(server: ServerProcess, tmp_path: Path) -> None:
    opened = sync.open_client(tmp_path / "station.db", server=server.url, accept_everyone=True)
    with opened as station:
        station.register("station")
    began = int(time.time())
    done = run("sensor.py", "cellar", "station", server.url, folder=tmp_path, text="7.1\n7.2\n7.3\n")
    assert (done.returncode, done.stderr) == (0, "")
    until = kept_until(server)
    assert len(until) == 3
    assert all(began + limits.HOUR <= moment <= time.time() + limits.HOUR + 1 for moment in until)
    with opened as station:
        station.wait_caught_up(timeout=PATIENCE)
        readings = [json.loads(message.text) for message in station.messages(timeout=0)]
    assert [reading["value"] for reading in readings] == ["7.1", "7.2", "7.3"]


def test_what_no_further_reading_can_mend_ends_it_with_a_line_and_1(server: ServerProcess, tmp_path: Path) -> None:
    done = run("sensor.py", "cellar", "station", server.url, folder=tmp_path, text="7.1\n7.2\n7.3\n")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "registered as station" in done.stderr
