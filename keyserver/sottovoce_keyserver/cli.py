"""The command `sottovoce-keyserver`: what a keyserver is to the hosting package, which has the commands."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sottovoce_hosting.entry import start

if TYPE_CHECKING:
    from sottovoce_hosting.commands import Part
    from sottovoce_keyserver.settings import KeyserverSettings

_NAME: Final = "sottovoce-keyserver"
_HELP: Final = "A Sottovoce keyserver: the public keys and queue addresses of accounts, and their usernames."
_OPTIONS: Final = ("data", "host", "port", "public_url", "relay_url")


def part() -> "Part[KeyserverSettings]":
    """The keyserver as a part of a program. Raises ModuleNotFoundError without the extra `keyserver`."""
    from sottovoce_hosting.commands import Part

    from .app import DATABASE, MIGRATIONS, open_keyserver
    from .settings import KeyserverSettings
    from .statistics import statistics
    from .storage import forget_one_time_prekeys

    return Part(
        "keyserver", KeyserverSettings, open_keyserver, DATABASE, MIGRATIONS, statistics, forget_one_time_prekeys
    )


def _commands() -> Callable[[], object]:
    from sottovoce_hosting.commands import Program, make_commands

    return make_commands(Program(_NAME, _HELP, (part(),), _OPTIONS))


def main() -> None:
    """The console script's entry."""
    start(_NAME, "keyserver", _commands)
