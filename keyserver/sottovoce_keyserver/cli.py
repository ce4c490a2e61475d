"""The command `sottovoce-keyserver`. It reads arguments and hands over to the hosting package; nothing else."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

import cyclopts

from sottovoce_hosting.errors import StartError
from sottovoce_hosting.process import run, say
from sottovoce_hosting.settings import read_settings

from .app import open_keyserver
from .settings import KeyserverSettings

_NAME: Final = "sottovoce-keyserver"
app: Final = cyclopts.App(
    name=_NAME,
    version=lambda: version("sottovoce"),
    help="A Sottovoce keyserver: the public keys and queue addresses of accounts, and their usernames.",
)


@app.command
def serve(
    *,
    data: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    public_url: str | None = None,
    relay_url: str | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT. What is not given is read from SOTTOVOCE_SERVER_... variables.

    Parameters
    ----------
    data
        The folder of the database.  [default: sottovoce-data]
    host
        The interface to listen on. Any but loopback needs the public URL.  [default: 127.0.0.1]
    port
        The port; 0 takes a free one.  [default: 8480]
    public_url
        The address that clients use, such as https://keys.example.
    relay_url
        The address of the relay that these clients use, such as https://relay.example.  [default: the public URL]
    """
    try:
        settings = read_settings(
            KeyserverSettings, data=data, host=host, port=port, public_url=public_url, relay_url=relay_url
        )
    except StartError as error:
        say(_NAME, str(error))
        return 1
    return run(_NAME, lambda origins: [open_keyserver(settings, origins)], settings)


def main() -> None:
    """The console script's entry."""
    sys.exit(app())
