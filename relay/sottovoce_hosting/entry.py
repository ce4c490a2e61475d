"""The first lines of every server's command: they import nothing that an extra brings.

So that a server whose extra is not installed says what to install.
"""

import sys
from collections.abc import Callable
from typing import NoReturn


def start(command: str, extra: str, load: Callable[[], Callable[[], object]]) -> NoReturn:
    """Exit with what the program that `load` imports and returns comes to; with one line if a package is missing."""
    try:
        program = load()
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("sottovoce"):
            raise
        sys.exit(f"{command}: {missing.name} is not installed: pip install '.[{extra}]' in the clone brings it")
    sys.exit(program())  # type: ignore[arg-type] # cyclopts exits by itself, or gives the exit code
