"""Logs: one JSON object a line on stderr.

No line holds a path, an address, an identifier, a key or a payload: events are fixed sentences, their fields are
counts, reasons and the types and places of errors.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

import structlog
from structlog.typing import FilteringBoundLogger

Level: TypeAlias = Literal["debug", "info", "warning", "error"]

#: The logger of every server module.
log: Final[FilteringBoundLogger] = structlog.get_logger()


def configure(level: Level) -> None:
    """Send the log to stderr from `level` up, and what libraries log from warnings up."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_LibraryHandler()], force=True)


class _LibraryHandler(logging.Handler):
    """Libraries put what they please into their texts: only who logged, and the type of the error, is kept."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[0] if record.exc_info else None
        line = {
            "event": "a library reported",
            "library": record.name,
            "error": error.__name__ if error else None,
            "level": record.levelname.lower(),
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
        }
        sys.stderr.write(json.dumps(line) + "\n")
