"""The command `sottovoce-keyserver`, as a process: it says when it is ready, and in one line what is wrong."""

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from sottovoce_hosting.testing import PATIENCE, server_command, server_process
from sottovoce_wire import directory as wire

COMMAND = Path(sys.executable).with_name("sottovoce-keyserver")


def refusal(*arguments: str | Path, **environment: str) -> str:
    """What the command says, in its one line, when it does not start."""
    process = server_command([COMMAND, "serve", *arguments], **environment)
    said, logged = process.communicate(timeout=2 * PATIENCE)
    assert (process.returncode, said) == (1, "")
    assert logged.count("\n") == 1
    return logged.removeprefix("sottovoce-keyserver: ").rstrip("\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_that_it_is_ready_answers_and_ends_in_order(tmp_path: Path, number: signal.Signals) -> None:
    with server_process([COMMAND, "serve", "--data", tmp_path, "--port", "0"]) as server:
        assert server.ready.startswith("sottovoce-keyserver: ready at http://127.0.0.1:")
        assert httpx.get(server.url + "/readyz", timeout=PATIENCE, trust_env=False).status_code == 200
        answer = httpx.get(server.url + wire.PATH_INFO, timeout=PATIENCE, trust_env=False)
        assert wire.decode(wire.Info, answer.content).relay == server.url
        server.process.send_signal(number)
        assert server.wait() == (0, "")


def test_it_takes_its_settings_from_the_environment_too(tmp_path: Path) -> None:
    environment = {"SOTTOVOCE_SERVER_PORT": "0", "SOTTOVOCE_SERVER_RELAY_URL": "https://relay.example"}
    with server_process([COMMAND, "serve", "--data", tmp_path], **environment) as server:
        answer = httpx.get(server.url + wire.PATH_INFO, timeout=PATIENCE, trust_env=False)
        assert wire.decode(wire.Info, answer.content).relay == "https://relay.example"


def test_a_database_or_port_in_use_is_one_line(tmp_path: Path) -> None:
    with server_process([COMMAND, "serve", "--data", tmp_path, "--port", "0"]) as server:
        assert refusal("--data", tmp_path, "--port", "0").startswith(
            f"another process is using {tmp_path}/keyserver.db;"
        )
        port = server.url.rpartition(":")[2]
        said = refusal("--data", tmp_path / "other", "--port", port)
    assert said.startswith(f"cannot listen on 127.0.0.1 port {port}: Address already in use; a server may be running")
    assert said.endswith(" choose another with --port")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refusal("--data", tmp_path / "file" / "data", "--port", "0").endswith("data: Not a directory")


def test_another_interface_without_a_public_url_is_one_line(tmp_path: Path) -> None:
    said = refusal("--data", tmp_path, "--port", "0", "--host", "0.0.0.0")  # noqa: S104 - it is refused
    assert "set the public URL" in said
    assert not list(tmp_path.iterdir())


def test_a_bad_setting_is_one_line(tmp_path: Path) -> None:
    assert refusal("--data", tmp_path, "--relay-url", "relay.example").startswith("relay_url: an address starts with")


def test_its_file_has_no_settings_of_a_relay(tmp_path: Path) -> None:
    (tmp_path / "keyserver.toml").write_text("max_envelope = 2048")
    said = refusal("--config", tmp_path / "keyserver.toml")
    assert said == f"{tmp_path}/keyserver.toml: max_envelope: there is no such setting"


def test_the_help_names_every_option() -> None:
    said = subprocess.run([COMMAND, "serve", "--help"], capture_output=True, text=True, check=True).stdout
    for option in ("--config", "--data", "--host", "--port", "--public-url", "--relay-url"):
        assert option in said
