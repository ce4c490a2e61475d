"""One message from a script or from cron: python examples/alert.py NAME WHOM TEXT [--server URL] [--seconds NUMBER].

    0 * * * *  cd /var/lib/watchdog && ./is-disk-full && python alert.py watchdog alice "the disk is full"

Exit codes: 0, the server has it; 75, it is safe in NAME.db and goes out with the next run; 1, it could not be written,
and stderr says why. After 1 nothing was sent; after 0 and 75 it arrives once, however often the network fails.
"""

import argparse
import sys

import sottovoce.sync
from sottovoce import Ttl, errors

LATER = 75  # what sendmail calls a temporary failure


def alert(name: str, whom: str, text: str, server: str, seconds: float) -> int:
    """Write to `whom`, and wait until the server has it, at most so many seconds. Returns the exit code."""
    try:
        with sottovoce.sync.open_client(f"{name}.db", server=server) as me:
            me.register(name)  # does nothing, and needs no network, the second time
            sent = me.send(whom, text, ttl=Ttl.DAY)  # from here on it is safe
            sent.wait_sent(timeout=seconds)
    except errors.TimedOut:
        return LATER
    except errors.SottovoceError as error:
        print(error.diagnostics(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("whom")
    parser.add_argument("text")
    parser.add_argument("--server", default="http://127.0.0.1:8480")
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    sys.exit(alert(asked.name, asked.whom, asked.text, asked.server, asked.seconds))
