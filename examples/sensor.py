"""Readings that nobody wants when they are old: python examples/sensor.py NAME STATION [SERVER].

Every line of standard input is a reading; a sensor is any program that prints one now and then:

    while sleep 60; do cat /sys/class/thermal/thermal_zone0/temp; done | python examples/sensor.py cellar station

The station may be any client: `sottovoce --store station.db listen --json`. If it is away, each reading waits for it at
the server for an hour and not longer; when the network is away, here in the store, and not longer either.

Exit codes: 0, the input has ended; 1, no reading can be sent before somebody has done something, and stderr says what.
"""

import json
import sys
import time

import sottovoce.sync
from sottovoce import Ttl, errors


def measure(name: str, station: str, server: str) -> int:
    """Send every line to the station, with the time, as it comes. Returns the exit code."""
    try:
        with sottovoce.sync.open_client(f"{name}.db", server=server) as me:
            me.register(name)
            for line in sys.stdin:
                reading = json.dumps({"at": time.time(), "value": line.strip()})
                try:
                    me.send(station, reading, ttl=Ttl.HOUR)  # safe when it returns; it goes out while we wait
                except errors.ServerUnreachable as error:  # only where the station's keys are not here yet
                    print(error.diagnostics(), file=sys.stderr)
    except errors.SottovoceError as error:  # the next reading would meet it, too
        print(error.diagnostics(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(measure(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "http://127.0.0.1:8480"))
