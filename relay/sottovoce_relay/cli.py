"""The command `sottovoce-relay`: what a relay is to the hosting package, which has the commands."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sottovoce_hosting.entry import start

if TYPE_CHECKING:
    from sottovoce_hosting.commands import Part
    from sottovoce_relay.settings import RelaySettings

_NAME: Final = "sottovoce-relay"
_HELP: Final = "A Sottovoce relay: queues of ciphertext for programs that talk privately."


def part() -> "Part[RelaySettings]":
    """The relay as a part of a program. Raises ModuleNotFoundError without the extra `relay`."""
    from sottovoce_hosting.commands import Part

    from .app import DATABASE, MIGRATIONS, open_relay
    from .settings import RelaySettings
    from .statistics import statistics

    return Part("relay", RelaySettings, open_relay, DATABASE, MIGRATIONS, statistics)


def _commands() -> Callable[[], object]:
    from sottovoce_hosting.commands import Program, make_commands

    return make_commands(Program(_NAME, _HELP, (part(),)))


def main() -> None:
    """The console script's entry."""
    start(_NAME, "relay", _commands)
