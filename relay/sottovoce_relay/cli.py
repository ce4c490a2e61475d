"""The command `sottovoce-relay`. It reads arguments and hands over to the hosting package; nothing else."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

import cyclopts

from sottovoce_hosting.errors import StartError
from sottovoce_hosting.process import run, say
from sottovoce_hosting.settings import read_settings

from .app import open_relay
from .settings import RelaySettings

_NAME: Final = "sottovoce-relay"
app: Final = cyclopts.App(
    name=_NAME,
    version=lambda: version("sottovoce"),
    help="A Sottovoce relay: queues of ciphertext for programs that talk privately.",
)


@app.command
def serve(
    *, data: Path | None = None, host: str | None = None, port: int | None = None, public_url: str | None = None
) -> int:
    """Serve until SIGTERM or SIGINT. What is not given is read from SOTTOVOCE_SERVER_... variables.

    Parameters
    ----------
    data
        The folder of the database.
    host
        The interface to listen on. Any but loopback needs the public URL.
    port
        The port; 0 takes a free one.
    public_url
        The address that clients use, such as https://chat.example.
    """
    try:
        settings = read_settings(RelaySettings, data=data, host=host, port=port, public_url=public_url)
    except StartError as error:
        say(_NAME, str(error))
        return 1
    return run(_NAME, lambda origins: [open_relay(settings, origins)], settings)


def main() -> None:
    """The console script's entry."""
    sys.exit(app())
