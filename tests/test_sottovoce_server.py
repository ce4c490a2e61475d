"""The command `sottovoce-server`: relay and keyserver in one process on one port, hosted as a person would."""

import os
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import pytest

import sottovoce_relay.app
from sottovoce_hosting.testing import PATIENCE, ServerProcess, server_command, server_process
from sottovoce_wire import directory as wire
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import Hello, Ping, Pong, message
from tests.relay_clients import connect

COMMAND = (sys.executable, "-m", "sottovoce_server")
RELAY = sottovoce_relay.app.PATH


def serving(data: Path) -> list[str | Path]:
    return [*COMMAND, "--data", data, "--port", "0"]


def get(server: ServerProcess, path: str) -> httpx.Response:
    return httpx.get(server.url + path, timeout=PATIENCE, trust_env=False)


@pytest.mark.parametrize("command", [[], ["serve"]], ids=["bare", "serve"])
async def test_one_port_is_relay_and_keyserver(tmp_path: Path, command: list[str]) -> None:
    with server_process([*COMMAND, *command, "--data", tmp_path / "data", "--port", "0"]) as server:
        assert server.ready.startswith("sottovoce-server: ready at http://127.0.0.1:")
        assert [get(server, path).status_code for path in ("/livez", "/readyz")] == [200, 200]
        info = wire.decode(wire.Info, get(server, wire.PATH_INFO).content)
        assert info == wire.Info("sottovoce-keyserver", [1], server.url)
        async with connect(server.url) as client:
            await client.say(Ping(7))
            assert await client.hear() == Pong(7)
        assert server.process.stdout is not None
        assert server.process.stdout.readline() == f"sottovoce-server: data in {tmp_path / 'data'}\n"
        names = {path.name for path in (tmp_path / "data").iterdir()}
        assert {"relay.db", "keyserver.db"} <= names
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == (0, "")


async def test_it_ends_in_order_with_a_client_connected(tmp_path: Path) -> None:
    with server_process(serving(tmp_path)) as server:
        async with connect(server.url) as client:
            server.process.send_signal(signal.SIGTERM)
            assert (await client.goodbye()).code == Code.SHUTTING_DOWN
        assert server.wait() == (0, "")


async def test_a_client_that_does_not_go_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with server_process(serving(tmp_path), SOTTOVOCE_SERVER_DRAIN_SECONDS="0.5") as server, silent_client(server):
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == (0, "")


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with (
        server_process(serving(tmp_path), SOTTOVOCE_SERVER_DRAIN_SECONDS="600") as server,
        silent_client(server) as client,
    ):
        server.process.send_signal(signal.SIGTERM)
        assert client.recv(100)  # Goodbye: the first signal has arrived
        server.process.send_signal(signal.SIGTERM)
        assert server.wait()[0] == -signal.SIGTERM


def silent_client(server: ServerProcess) -> socket.socket:
    """A client that has said Hello and nothing since."""
    port = int(server.url.rpartition(":")[2])
    client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    client.sendall(
        b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n" % RELAY.encode()
    )
    assert client.recv(1000).startswith(b"HTTP/1.1 101")
    hello = message(Hello([1]))
    client.sendall(bytes([0x82, 0x80 | len(hello), 0, 0, 0, 0]) + hello)
    assert client.recv(1000)
    return client


def bad_opening(server: ServerProcess) -> None:
    """Something that the server logs."""
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(
            b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: \xff\r\n\r\n" % RELAY.encode()
        )
        client.recv(1000)


def unwritable(kind: str) -> tuple[int, list[int]]:
    """A descriptor for a log that takes nothing, and what is to be closed afterwards."""
    if kind == "full disk":
        descriptor = os.open("/dev/full", os.O_WRONLY)
        return descriptor, [descriptor]
    reader, writer = os.pipe()
    if kind == "nobody there":
        os.close(reader)
        return writer, [writer]
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, bytes(4096))
    except BlockingIOError:
        os.set_blocking(writer, True)
    return writer, [reader, writer]


@pytest.mark.parametrize("kind", ["full disk", "nobody there", "nobody reads"])
def test_a_log_that_takes_nothing_neither_ends_nor_freezes_the_server(tmp_path: Path, kind: str) -> None:
    descriptor, opened = unwritable(kind)
    process = subprocess.Popen(serving(tmp_path), stdout=subprocess.PIPE, stderr=descriptor, text=True)
    with process:
        try:
            assert process.stdout is not None
            server = ServerProcess(process, process.stdout.readline().rstrip())
            for _ in range(3):
                bad_opening(server)
            assert get(server, "/livez").status_code == 200
            process.terminate()
            assert process.wait(2 * PATIENCE) == 0
        finally:
            process.kill()
            for number in opened:
                os.close(number)


async def test_settings_of_both_servers_are_known_and_others_refused(tmp_path: Path) -> None:
    known = {"SOTTOVOCE_SERVER_RELAY_URL": "https://relay.example", "SOTTOVOCE_SERVER_MAX_ENVELOPE": "2048"}
    with server_process(serving(tmp_path), **known) as server:
        assert wire.decode(wire.Info, get(server, wire.PATH_INFO).content).relay == "https://relay.example"
    process = server_command(serving(tmp_path), SOTTOVOCE_SERVER_WEATHER="1")
    _, logged = process.communicate(timeout=2 * PATIENCE)
    assert (process.returncode, logged) == (
        1, "sottovoce-server: SOTTOVOCE_SERVER_WEATHER: there is no such setting\n"
    )  # fmt: skip


def test_one_file_has_the_settings_of_both_servers_and_metrics_of_both_are_served(tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text(
        f"data = '{tmp_path / 'data'}'\nport = 0\nmetrics_port = 0\nmax_envelope = 2048\n"
        "relay_url = 'https://relay.example'\n"
    )
    with server_process([*COMMAND, "--config", config]) as server:
        assert wire.decode(wire.Info, get(server, wire.PATH_INFO).content).relay == "https://relay.example"
        assert server.process.stdout is not None
        name, metrics = server.process.stdout.readline().split(": metrics at ")
        assert name == "sottovoce-server"
        text = httpx.get(metrics.strip(), timeout=PATIENCE, trust_env=False).text
        assert 'sottovoce_keyserver_requests_total{route="/v1/info",status="2xx"} 1.0' in text
        assert "process_open_fds" in text
        assert get(server, "/metrics").status_code == 404
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == (0, "")


def command(*words: str | Path) -> tuple[int, str, str]:
    """A command's exit code, what it printed and what it said on stderr."""
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
    return done.returncode, done.stdout, done.stderr


def test_databases_are_looked_at_beside_the_server_and_upgraded_without_it(tmp_path: Path) -> None:
    names = [tmp_path / "relay.db", tmp_path / "keyserver.db"]
    intact = "".join(f"{name} is intact\n" for name in names)
    with server_process(serving(tmp_path)) as server:
        assert command("db", "health", "--data", tmp_path) == (0, intact, "")
        code, printed, _ = command("db", "stats", "--data", tmp_path)
        counted = tomllib.loads(printed)
        assert (code, counted["relay"]["queues"], counted["keyserver"]["accounts"]) == (0, 0, 0)
        code, printed, said = command("db", "upgrade", "--data", tmp_path)
        assert (code, printed, said.count("\n")) == (1, "", 1)
        assert said.startswith(f"sottovoce-server: another process is using {names[0]};")
        server.process.kill()
        server.wait()
    assert command("db", "health", "--data", tmp_path) == (0, intact, "")
    done = "".join(f"{name} is up to date\n" for name in names)
    assert command("db", "upgrade", "--data", tmp_path) == (0, done, "")


async def test_one_database_in_use_stops_the_whole(tmp_path: Path) -> None:
    with server_process(serving(tmp_path)):
        process = server_command(serving(tmp_path))
        _, logged = process.communicate(timeout=2 * PATIENCE)
    said = f"another process is using {tmp_path}/relay.db; stop it, or choose another folder with --data"
    assert (process.returncode, logged) == (1, f"sottovoce-server: {said}\n")
