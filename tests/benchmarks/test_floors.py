"""What a bare machine and a bare stack can do is measured with work that is really done."""

import sqlite3
from typing import Any

import pytest

from benchmarks import floors


@pytest.mark.parametrize("rows", [1, 2_049, 5_121])
def test_a_bare_backlog_is_read_and_deleted_to_its_end(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    left: list[int] = []

    class Watched(sqlite3.Connection):
        def close(self) -> None:
            left.append(self.execute("SELECT count(*) FROM envelopes").fetchone()[0])
            super().close()

    connect = sqlite3.connect

    def watched(*where: Any, **chosen: Any) -> sqlite3.Connection:
        return connect(*where, **chosen, factory=Watched)

    monkeypatch.setattr(sqlite3, "connect", watched)
    assert floors._backlog(rows) > 0
    assert left[-1] == 0
