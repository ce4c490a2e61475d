"""matrix-nio with Synapse: Matrix in Python on both sides. Here stands how the server is set up and two people meet.

What the people's programs do stands in `matrix_client`, which runs by the Python that both are installed for.
"""

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from .. import sdk_work
from ..report import Figures
from ..sdk_client import TEXT
from ..sdk_work import Contestant, Pair, Program, Sizes, Work
from ..servers import free_port, process, until_it_listens
from ..wire import BenchError

NAME: Final = "matrix-nio with Synapse"
#: How to get it, in one line.
INSTALLING: Final = (
    "python3 -m venv MATRIX; MATRIX/bin/pip install 'matrix-synapse==1.163.*' 'matrix-nio[e2e]==0.26.*';"
    ' then PATH="$PATH:MATRIX/bin" scripts/bench sdk (MATRIX: a folder outside this one, by its whole path)'
)
#: What the table's reader must know.
NOTES: Final = (
    "Synapse: SQLite with its defaults (write-ahead log, every commit synced). Rate limits, presence, federation and",
    "logs are off, and a client may ask for any number of messages at once, so that a backlog is one answer.",
    "matrix-nio: SQLite with its defaults (every commit synced), for its keys, which are encrypted, and for how far it",
    "has read; no message, no outbox, no receipts. So its open reads as many sessions as ours, but no messages.",
)
_CLIENT: Final = Path(__file__).with_name("matrix_client.py")
#: So many a second that nothing is ever limited.
_UNLIMITED: Final = {"per_second": 1_000_000, "burst_count": 1_000_000}


def find_python() -> str | None:
    """The Python that both are installed for: Synapse's program is on the path, and nio beside it. None if not."""
    program = shutil.which("synapse_homeserver")
    if program is None:
        return None
    python = str(Path(program).resolve().with_name("python"))
    try:
        subprocess.run([python, "-I", "-c", "import nio, vodozemac"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return python


def contestant(python: str) -> Contestant:
    """Both, run by this Python."""
    return Contestant(NAME, partial(_started, python))


@asynccontextmanager
async def _started(python: str) -> AsyncIterator[Mapping[str, Work]]:
    with tempfile.TemporaryDirectory(prefix="sottovoce-bench-") as name:
        folder = Path(name)
        async with (
            _server(python, folder) as url,
            _program(python, folder, "ann", url) as ann,
            _program(python, folder, "bob", url) as bob,
        ):
            pair = Pair(ann, bob)
            await _meet(pair)
            yield {**pair.works, "archive": partial(_archive, bob, python, folder, url)}


@asynccontextmanager
async def _server(python: str, folder: Path) -> AsyncIterator[str]:
    port = free_port()
    (folder / "synapse.yaml").write_text(json.dumps(_settings(folder, port)))
    (folder / "log.yaml").write_text(json.dumps(_LOGS))
    command = [python, "-I", "-m", "synapse.app.homeserver", "--config-path", str(folder / "synapse.yaml")]
    async with process(command, folder, {}) as started:
        try:
            await until_it_listens(started, port)
        except BenchError as error:
            raise BenchError(f"Synapse: {error}: {(folder / 'log').read_text().strip()[-2000:]}") from None
        yield f"http://127.0.0.1:{port}"


#: Errors only, to standard error. JSON is YAML too.
_LOGS: Final = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"level": "ERROR", "handlers": ["console"]},
}


def _settings(folder: Path, port: int) -> dict[str, Any]:
    """One process on loopback, its files in `folder`, that talks to nobody."""
    listener = {"port": port, "bind_addresses": ["127.0.0.1"], "type": "http", "resources": [{"names": ["client"]}]}
    return {
        "server_name": "bench",
        "listeners": [listener],
        "database": {"name": "sqlite3", "args": {"database": str(folder / "synapse.db")}},
        "media_store_path": str(folder / "media"),
        "pid_file": str(folder / "synapse.pid"),
        "log_config": str(folder / "log.yaml"),
        "signing_key": f"ed25519 bench {b64encode(os.urandom(32)).decode().rstrip('=')}",
        "macaroon_secret_key": os.urandom(16).hex(),
        "form_secret": os.urandom(16).hex(),
        "enable_registration": True,
        "enable_registration_without_verification": True,
        "federation_domain_whitelist": [],
        "trusted_key_servers": [],
        "report_stats": False,
        "presence": {"enabled": False},
        "filter_timeline_limit": -1,
        "rc_message": _UNLIMITED,
        "rc_registration": _UNLIMITED,
        "rc_key_requests": _UNLIMITED,
    }


def _program(python: str, folder: Path, name: str, url: str) -> AbstractAsyncContextManager[Program]:
    """A client's process, its store in a folder of its own."""
    store = folder / name
    store.mkdir(exist_ok=True)
    return sdk_work.program([python, "-I", str(_CLIENT), str(store), url, str(TEXT)], folder / f"log-{name}", {})


async def _meet(pair: Pair) -> None:
    """Register both, and bring them into an encrypted room."""
    ann, bob = [await _register(program, name) for name, program in (("ann", pair.ann), ("bob", pair.bob))]
    room = await pair.ann("host", bob)
    await pair.bob("join", room)
    await asyncio.gather(pair.ann("know", bob), pair.bob("know", ann))
    await pair.greet()


async def _register(program: Program, name: str) -> str:
    await program("open")
    return str(await program("register", name))


async def _archive(bob: Program, python: str, folder: Path, url: str, sizes: Sizes) -> Figures:
    """A program that has just started opens a store with many sessions. There are no messages in it."""
    await bob("fill", sizes.sessions)
    await bob("close")
    async with _program(python, folder, "bob", url) as fresh:
        return {"open_ms": await fresh("open") * 1000}
