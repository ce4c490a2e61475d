"""The alert from cron: what its exit code promises, with the server there, away, and back."""

import subprocess
from pathlib import Path

from sottovoce import sync
from tests.examples.programs import PATIENCE, run
from tests.servers import ServerProcess


def alert(server: ServerProcess, folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    return run("alert.py", "watchdog", "alice", text, "--server", server.url, *options, folder=folder)


def test_the_exit_code_says_sent_or_safe_and_every_alert_arrives_once(server: ServerProcess, tmp_path: Path) -> None:
    opened = sync.open_client(tmp_path / "alice.db", server=server.url, accept_everyone=True)
    with opened as alice:
        alice.register("alice")
    assert alert(server, tmp_path, "first").returncode == 0
    server.kill()
    assert alert(server, tmp_path, "second", "--seconds", "0.1").returncode == 75
    server.start()
    assert alert(server, tmp_path, "third").returncode == 0
    with opened as alice:
        alice.wait_caught_up(timeout=PATIENCE)
        assert [message.text for message in alice.messages(timeout=0)] == ["first", "second", "third"]


def test_what_cannot_be_written_is_told_in_a_line(server: ServerProcess, tmp_path: Path) -> None:
    done = alert(server, tmp_path, "to nobody")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "alice" in done.stderr
