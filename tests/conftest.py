"""Settings that hold for every test: the same examples on every run, no file left behind, every server's log looked at.

Whatever a server logs, in the test's own process or in one that it started, tests/log_lines.py has to know.
"""

import gc
import json
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings

from sottovoce_hosting import logs
from tests.log_lines import complaints
from tests.observer import sitecustomize as observer
from tests.random_input import PROFILE

settings.register_profile("ours", PROFILE)
settings.load_profile("ours")

_read: Counter[Path] = Counter()  # bytes of each file of lines that were looked at


def pytest_configure() -> None:
    """Have what servers log written down, here and in every process that is started."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a script's background: tests send it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ[observer.VARIABLE] = tempfile.mkdtemp(prefix="sottovoce-test-logs-")
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="sottovoce-test-state-")
    paths = [str(Path(observer.__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    sys.meta_path.remove(observer.Finder)  # here the module is loaded already
    observer.observe(logs)


def pytest_collection_finish() -> None:
    """Let no collection of garbage go through all the tests and modules again: they stay, and are a third of a million
    objects."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    for variable in (observer.VARIABLE, "XDG_STATE_HOME"):
        shutil.rmtree(os.environ.pop(variable, ""), ignore_errors=True)


def new_log_lines() -> list[str]:
    """What servers logged since the last look, in whole lines: a process may be in the middle of one."""
    lines = []
    for file in sorted(Path(os.environ[observer.VARIABLE]).iterdir()):
        new = file.read_bytes()[_read[file] :]
        data = new[: new.rfind(b"\n") + 1]
        _read[file] += len(data)
        lines += data.decode().splitlines()
    return lines


def _write_down(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    observer.keep(json.dumps(dict(event), default=repr) + "\n")
    return event


def _look_at_the_log() -> None:
    assert [complaint for line in new_log_lines() for complaint in complaints(line)] == []


@pytest.fixture(autouse=True)
def _what_servers_log_is_looked_at() -> Iterator[None]:
    if not structlog.is_configured():  # servers in the test's own process log as structlog does by itself
        *before, renderer = structlog.get_config()["processors"]
        structlog.configure(processors=[*before, _write_down, renderer])
    yield
    _look_at_the_log()  # what they logged when they were stopped


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """A test fails if a server told something in its log meanwhile."""
    yield
    _look_at_the_log()
