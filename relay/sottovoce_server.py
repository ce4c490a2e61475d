"""The command `sottovoce-server`: a relay and a keyserver in one process on one port, for a small host.

They share the process and nothing else: each has its own database file in the data folder.
"""

from collections.abc import Callable
from typing import Final

from sottovoce_hosting.entry import start
from sottovoce_keyserver import cli as keyserver
from sottovoce_relay import cli as relay

_NAME: Final = "sottovoce-server"
_HELP: Final = """A Sottovoce relay and keyserver in one process: all that a small host needs.

It keeps ciphertext in queues and public keys in a directory; it cannot read a
message.

Without arguments it serves this machine only, at http://127.0.0.1:8480. For
others to reach it, tell it the public https address, and put it behind a proxy
that speaks TLS (on this machine, and named in trusted_proxies), or give it a
certificate (tls_cert and tls_key, PEM files) and an interface (host):

    sottovoce-server --public-url https://chat.example

GET /livez answers as long as the process runs, GET /readyz if it can take work. SIGTERM ends it in order.
"""


def _commands() -> Callable[[], object]:
    from sottovoce_hosting.commands import Program, make_commands

    return make_commands(Program(_NAME, _HELP, (relay.part(), keyserver.part()), serves_without_command=True))


def main() -> None:
    """The console script's entry."""
    start(_NAME, "server", _commands)


if __name__ == "__main__":
    main()
