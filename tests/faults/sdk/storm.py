"""A client process that does as it is told and may die at any point; run as `python -m tests.faults.sdk.storm`.

It reads orders, one line each, forks for each, and says how the child ended: all that is slow is done once.
"""

import os
import sys
import time
import traceback
from pathlib import Path
from typing import Final, NoReturn

import msgspec
import trio

from sottovoce import Client, open_client
from sottovoce.connection import Watched
from sottovoce.store import inbox
from tests.faults.sdk import keys, points
from tests.faults.sdk.journal import Journal
from tests.faults.sdk.points import Points

PATIENCE: Final = 60.0


class Order(msgspec.Struct, frozen=True):
    """One life. `folder` holds the store, the journal and the record of keys. It registers as `name` if there is one,
    blocks `blocks` if there is one and waits until the relay knows the key that follows from it,
    sends `texts` to `to`, handles what comes until it has handled all of `until` (nothing: while it sends), and is
    killed at the point `fatal` (nothing: never). Its clock is `clock` seconds ahead. `forgets`: it remembers only the
    newest envelope that came, as if thousands had come since."""

    folder: str
    server: str
    name: str = ""
    blocks: str = ""
    to: str = ""
    texts: list[str] = []
    until: list[str] = []
    fatal: str = ""
    clock: int = 0
    forgets: bool = False


async def live(order: Order, journal: Journal) -> None:
    async with open_client(Path(order.folder) / "store.db", server=order.server, accept_everyone=True) as me:
        if order.name:
            await me.register(order.name)
        with trio.fail_after(PATIENCE):
            if order.blocks:
                await _block(me, order.blocks)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_handle, me, order.until, journal)
                await _write(me, order, journal)
                if not order.until:
                    nursery.cancel_scope.cancel()


async def _block(me: Client, who: str) -> None:
    genuine, proven = Watched.up, trio.Event()

    def up(self: Watched) -> None:
        """After whatever the relay was told, and what follows from its answer."""
        genuine(self)
        proven.set()

    Watched.up = up  # type: ignore[method-assign]
    await me.block(who)
    while await me._local.transact(lambda tables: tables.account.next_contact_key()) is not None:
        await proven.wait()
        proven = trio.Event()


async def _write(me: Client, order: Order, journal: Journal) -> None:
    handles = []
    for text in order.texts:
        journal.note("tried", text)
        handles.append((text, await me.send(order.to, text)))
        journal.note("sent", text)
    for text, handle in handles:
        await handle.wait_sent()
        journal.note("settled", text)


async def _handle(me: Client, until: list[str], journal: Journal) -> None:
    awaited, handled = set(until), set[str]()
    async for message in me.messages():
        journal.note("shown", message.text, str(message.attempt))
        await message.mark_handled()
        journal.note("handled", message.text)
        assert message.text not in handled, "handled, and shown again"
        handled.add(message.text)
        awaited.discard(message.text)
        if until and not awaited:
            return


def run(order: Order) -> NoReturn:
    """In the child. Ends without anything that is the parent's."""
    code = 1
    try:
        journal = Journal(Path(order.folder) / "journal")
        counting = Points(order.fatal, lambda what: journal.note("killed", what))
        keys.install(Journal(Path(order.folder) / "keys"))
        points.install(counting)
        if order.clock:
            genuine = time.time_ns
            time.time_ns = lambda: genuine() + order.clock * 10**9
        if order.forgets:
            inbox.SEEN = 1  # type: ignore[misc]
        journal.note("life", order.fatal)
        trio.run(live, order, journal)
        journal.note("passed", *counting.passed)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> None:
    for line in sys.stdin:
        order = msgspec.json.decode(line, type=Order)
        child = os.fork()
        if child == 0:
            run(order)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
