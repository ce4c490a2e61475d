"""Other servers at the same work, where they are installed: Prosody, ejabberd (XMPP) and Mosquitto (MQTT).

Each runs in a folder of its own, with its own store, on loopback. XMPP clients acknowledge by XEP-0198, MQTT clients by
QoS 1. Nothing of Sottovoce is used here.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from .client import Tally
from .outcome import Outcome
from .servers import Server, free_port, process, until_it_listens
from .talkers import LogIn, MqttTalker, Talker, XmppTalker

_SENDERS: Final = 8
_RECEIVERS: Final = 20
_PAIRS: Final = 4


@dataclass(frozen=True)
class Peer:
    """A server in one configuration. `prepare` writes its files and returns the command that runs it."""

    name: str
    program: str
    prepare: Callable[[Path, int], list[str]]
    log_in: LogIn

    @property
    def is_installed(self) -> bool:
        """Whether its program is on the path."""
        return shutil.which(self.program) is not None


_PROSODY: Final = """
run_as_root = true
pidfile = "{folder}/prosody.pid"
data_path = "{folder}"
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {port} }}
modules_enabled = {{ "saslauth", "register_ibr", "smacks" }}
modules_disabled = {{ "s2s" }}
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
allow_registration = true
authentication = "internal_plain"
{storage}
log = {{ warn = "{folder}/prosody.log" }}
VirtualHost "localhost"
"""
_PROSODY_FILES: Final = 'storage = "internal"'
_PROSODY_SQLITE: Final = """
storage = "sql"
sql = {{ driver = "SQLite3", database = "{folder}/prosody.sqlite" }}
sqlite_tune = "safe"
"""
_MOSQUITTO: Final = """
user root
listener {port} 127.0.0.1
allow_anonymous true
max_queued_messages 0
max_inflight_messages 1000
log_type error
{storage}
"""
_MOSQUITTO_MEMORY: Final = "persistence false"
_MOSQUITTO_SAVING: Final = """
persistence true
persistence_location {folder}/
autosave_on_changes true
autosave_interval 1
"""
_EJABBERD: Final = """
hosts: [localhost]
loglevel: error
auth_method: [internal]
registration_timeout: infinity
access_rules:
  anybody: [{{allow: all}}]
shaper_rules:
  offline: infinity
listen:
  - port: {port}
    ip: "127.0.0.1"
    module: ejabberd_c2s
modules:
  mod_offline: {{access_max_user_messages: offline}}
  mod_register: {{access: anybody, ip_access: anybody}}
  mod_stream_mgmt: {{max_ack_queue: infinity}}
"""


def _prosody(storage: str) -> Callable[[Path, int], list[str]]:
    def prepare(folder: Path, port: int) -> list[str]:
        text = _PROSODY.format(folder=folder, port=port, storage=storage.format(folder=folder))
        (folder / "prosody.cfg.lua").write_text(text)
        return ["prosody", "-F", "--config", str(folder / "prosody.cfg.lua")]

    return prepare


def _mosquitto(storage: str) -> Callable[[Path, int], list[str]]:
    def prepare(folder: Path, port: int) -> list[str]:
        text = _MOSQUITTO.format(port=port, storage=storage.format(folder=folder))
        (folder / "mosquitto.conf").write_text(text)
        return ["mosquitto", "-c", str(folder / "mosquitto.conf")]

    return prepare


def _ejabberd(folder: Path, port: int) -> list[str]:
    (folder / "ejabberd.yml").write_text(_EJABBERD.format(port=port))
    libraries = ":".join({str(found.parent) for found in Path("/usr/lib").glob("**/ejabberd-*") if found.is_dir()})
    # Started without a node name, so that no port mapper is left behind.
    command = ["env", f"ERL_LIBS={libraries}", "erl", "-noinput", "-mnesia", "dir", f'"{folder}/mnesia"']
    command += ["-ejabberd", "config", f'"{folder}/ejabberd.yml"', "-ejabberd", "log_path", f'"{folder}/ejabberd.log"']
    return [*command, "-s", "ejabberd"]


PEERS: Final = (
    Peer("Prosody, files", "prosody", _prosody(_PROSODY_FILES), XmppTalker.log_in),
    Peer("Prosody, SQLite, fsync", "prosody", _prosody(_PROSODY_SQLITE), XmppTalker.log_in),
    Peer("Mosquitto, in memory", "mosquitto", _mosquitto(_MOSQUITTO_MEMORY), MqttTalker.log_in),
    Peer("Mosquitto, saving always", "mosquitto", _mosquitto(_MOSQUITTO_SAVING), MqttTalker.log_in),
    Peer("ejabberd, Mnesia", "ejabberdctl", _ejabberd, XmppTalker.log_in),
)


@asynccontextmanager
async def _running(peer: Peer) -> AsyncIterator[tuple[Server, int]]:
    with tempfile.TemporaryDirectory(prefix="sottovoce-bench-") as name:
        folder, port = Path(name), free_port()
        async with process(peer.prepare(folder, port), folder, {}) as started:
            await until_it_listens(started, port)
            yield Server(started.pid, f"127.0.0.1:{port}"), port


async def measure(peer: Peer, count: int, turns: int) -> Outcome:
    """`count` messages to those who are away, the same drained, as many online, and `turns` in turn."""
    count = count // _SENDERS * _SENDERS
    names = [f"receiver{number}" for number in range(_RECEIVERS)]
    async with _running(peer) as (server, port):
        for name in names:
            (await peer.log_in(port, name)).wire.close()
        senders = [await peer.log_in(port, f"sender{number}") for number in range(_SENDERS)]
        with server.measured() as ingest:
            await _ingest(senders, names, count)
        tally = Tally(count)
        receivers = [await peer.log_in(port, name, tally) for name in names]
        with server.measured() as drain:
            await _drain(receivers, tally)
        with server.measured() as online:
            await _online(senders, receivers, names, count)
        taken = await _turns(senders[0], receivers[0], names[0], turns)
    figures = {
        "ingest_single_s": count / ingest.elapsed,
        "drain_s": count / drain.elapsed,
        "online_single_s": count / online.elapsed,
        "latency_no_commit_p50_ms": median(taken),
        "latency_no_commit_p99_ms": quantiles(taken, n=100)[98],
    }
    return Outcome(
        figures,
        {f"{peer.name}: ingest": ingest, f"{peer.name}: drain": drain, f"{peer.name}: online": online},
    )


async def _ingest(senders: Sequence[Talker], names: Sequence[str], count: int) -> None:
    async with asyncio.TaskGroup() as group:
        for at, sender in enumerate(senders):
            group.create_task(sender.send_all([*names[at:], *names[:at]], count // len(senders)))


async def _drain(receivers: Sequence[Talker], tally: Tally) -> None:
    async with asyncio.TaskGroup() as group:
        for receiver in receivers:
            group.create_task(receiver.receive())
    await receivers[0].wire.wait(tally.reached)
    for receiver in receivers:
        receiver.acknowledge()


async def _online(senders: Sequence[Talker], receivers: Sequence[Talker], names: Sequence[str], count: int) -> None:
    tally = Tally(count)
    async with asyncio.TaskGroup() as group:
        for sender, receiver, name in list(zip(senders, receivers, names, strict=False))[:_PAIRS]:
            receiver.tally = tally
            group.create_task(sender.send_all([name], count // _PAIRS))
    await receivers[0].wire.wait(tally.reached)


async def _turns(sender: Talker, receiver: Talker, name: str, count: int) -> list[float]:
    """Milliseconds from write to read, one message after the other."""
    taken = []
    for _ in range(count):
        receiver.tally = tally = Tally(1)
        began = time.perf_counter()
        await sender.send_all([name], 1)
        taken.append((await receiver.wire.wait(tally.reached) - began) * 1000)
    return taken
