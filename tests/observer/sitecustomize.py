"""On the path of every Python process that a test starts: what a server logs there is written down for the test too.

Python imports a module of this name by itself. It loads nothing and changes nothing but the server's one log sink, and
that only once the server has loaded it. tests/log_lines.py reads what is written.
"""

import os
import sys
from contextlib import suppress
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

#: The folder to write to, one file for each process.
VARIABLE = "SOTTOVOCE_TEST_LOGS"
_MODULE = "sottovoce_hosting.logs"
#: Lines that could not be written: tests take the disk away from servers.
_waiting: list[str] = []


class Finder:
    """Finds the log module where it is, and observes it when it is loaded."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """As importlib asks for it."""
        spec = PathFinder.find_spec(name, path, target) if name == _MODULE else None
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            observe(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign] # of this one loader
        return spec


def observe(logs: ModuleType) -> None:
    """Write down every line that goes to the sink of this log module, once."""
    write = logs.stderr.write

    def write_down(line: str) -> None:
        keep(line)
        write(line)

    if not hasattr(write, "is_observed"):
        write_down.is_observed = True  # type: ignore[attr-defined] # a mark
        logs.stderr.write = write_down


def keep(line: str) -> None:
    """Append a line to this process's file; without a folder there is nobody who wants it."""
    folder = os.environ.get(VARIABLE, "")
    if not os.path.isdir(folder):
        return
    _waiting.append(line)
    with suppress(OSError), open(os.path.join(folder, f"{os.getpid()}.log"), "a", buffering=1) as file:
        while _waiting:
            file.write(_waiting[0])
            del _waiting[0]


sys.meta_path.insert(0, Finder)
