"""The command `sottovoce-server`: a relay and a keyserver in one process on one port, for a small host.

They share the process and nothing else: each has its own database file in the data folder.
"""

import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Final

import cyclopts

from sottovoce_hosting.errors import StartError
from sottovoce_hosting.process import run, say
from sottovoce_hosting.service import Origins, Service
from sottovoce_hosting.settings import read_settings
from sottovoce_keyserver.app import open_keyserver
from sottovoce_keyserver.settings import KeyserverSettings
from sottovoce_relay.app import open_relay
from sottovoce_relay.settings import RelaySettings

_NAME: Final = "sottovoce-server"

app: Final = cyclopts.App(
    name=_NAME,
    version=lambda: version("sottovoce"),
    help="""A Sottovoce relay and keyserver in one process: everything that a small host needs.

It keeps ciphertext in queues and public keys in a directory; it cannot read a message.

Without arguments it serves this machine only, at http://127.0.0.1:8480. For others to reach it, tell it the public
https address, and put it behind a proxy that speaks TLS or give it a certificate (SOTTOVOCE_SERVER_TLS_CERT and
SOTTOVOCE_SERVER_TLS_KEY, PEM files):

    sottovoce-server --host 0.0.0.0 --public-url https://chat.example

GET /livez answers as long as the process runs, GET /readyz if it can take work. SIGTERM ends it in order.
""",
)


@app.default
@app.command
def serve(
    *,
    data: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    public_url: str | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT (what happens without a command, too).

    What is not given is read from SOTTOVOCE_SERVER_... variables.

    Parameters
    ----------
    data
        The folder of the databases.  [default: sottovoce-data]
    host
        The interface to listen on. Any but loopback needs the public URL.  [default: 127.0.0.1]
    port
        The port; 0 takes a free one.  [default: 8480]
    public_url
        The address that clients use, such as https://chat.example.
    """
    try:
        relay = read_settings(
            RelaySettings, (KeyserverSettings,), data=data, host=host, port=port, public_url=public_url
        )
        keyserver = read_settings(
            KeyserverSettings, (RelaySettings,), data=data, host=host, port=port, public_url=public_url
        )
    except StartError as error:
        say(_NAME, str(error))
        return 1

    def open_services(origins: Origins) -> Sequence[AbstractAsyncContextManager[Service]]:
        return [open_relay(relay, origins), open_keyserver(keyserver, origins)]

    return run(_NAME, open_services, keyserver)


def main() -> None:
    """The console script's entry."""
    sys.exit(app())


if __name__ == "__main__":
    main()
