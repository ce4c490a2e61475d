"""Why a server cannot start, and how failures are named in a log: by type and place, never by what they say.

An exception's text may hold bytes from the network, so it is never logged.
"""

import traceback
from collections.abc import Iterator


class StartError(Exception):
    """The server cannot start. The text is one line that says what to do."""


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions inside a group, however deep; or the exception itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def name_of(error: BaseException) -> str:
    """The type of the first exception in `error`."""
    return type(next(leaves(error))).__name__


def place_of(error: BaseException) -> str:
    """`module:line` where the first exception in `error` was raised."""
    frames = list(traceback.walk_tb(next(leaves(error)).__traceback__))
    if not frames:
        return "unknown"
    frame, line = frames[-1]
    return f"{frame.f_globals.get('__name__', 'unknown')}:{line}"
