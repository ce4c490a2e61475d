"""Other ways to make two programs talk, end-to-end encrypted, at the work of `sdk_work`, one file each.

Each has its server, its store and its defaults; what is set otherwise, or is less than ours, its `NOTES` say. Their
code runs in processes of their own, by a Python of their own, and none of it is imported here.
"""

from typing import Final

from ..sdk_work import Contestant
from . import matrix

NOTES: Final = matrix.NOTES


def installed() -> tuple[list[Contestant], list[str]]:
    """The peers that can be run, and a line for each that cannot, which says how to install it."""
    python = matrix.find_python()
    if python is None:
        return [], [f"{matrix.NAME}: not measured, it is not installed here; {matrix.INSTALLING}"]
    return [matrix.contestant(python)], []
