"""The table of tags that windows make."""

from collections.abc import Iterable

from sottovoce.crypto.message import Expected, Window


def announced(windows: Iterable[Window]) -> dict[bytes, Expected]:
    """Each tag, and what it announces."""
    return {tag: window.find(tag) for window in windows for tag in window.tags}
