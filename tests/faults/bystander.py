"""An owner in a process of its own that takes and acknowledges until it is ended: `python -m tests.faults.bystander`.

Beside the one who measures: what an owner does must not cost that one time.
"""

import sys

import trio
from nacl.signing import SigningKey

from sottovoce_wire.frames import CaughtUp, Deliver
from tests.relay_clients import Mailbox, connect


async def main(url: str, seed: str) -> None:
    """Receive the queue of this owner key at `url`, and say so."""
    box = Mailbox(SigningKey(bytes.fromhex(seed)))
    async with connect(url) as client:
        await client.open(box)
        await client.receive(box)
        while True:
            match await client.hear():
                case Deliver(_, items):
                    await client.ack(box, items[-1].number)
                case CaughtUp():
                    sys.stdout.write("ready\n")
                    sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
