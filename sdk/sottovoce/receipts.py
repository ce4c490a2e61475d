"""The client's task that tells contacts what has come and what was handled, some seconds later and many at once.

What is owed to whom, and what a receipt looks like, stands in `protocol.receipts`.
"""

from collections.abc import Callable
from math import inf
from typing import Final

import trio

from sottovoce_wire.ids import AccountId

from . import errors
from .crypto.errors import CryptoRefusal
from .local import Local, unexpected
from .mending import room
from .protocol import receipts
from .protocol.state import Outgoing, Own
from .store.database import Tables

#: Seconds until the next try, where receipts cannot go out now.
LATER: Final = 10.0
#: Envelopes that one account has waiting in the outbox before it gets no receipts: its relay is away, and the outbox is
#: everybody's.
ENOUGH_FOR_ONE: Final = 32
#: Envelopes made in one transaction.
AT_ONCE: Final = 16


class Receipts:
    """Sends the receipts of one client, if `is_on`. `wake_sender` is told of relays that there is something for."""

    def __init__(self, local: Local, wake_sender: Callable[[str], None], *, is_on: bool) -> None:
        self._local = local
        self._wake_sender = wake_sender
        self._is_on = is_on
        self._owed = trio.Event()

    def wake(self) -> None:
        """Something may be owed."""
        self._owed.set()

    def handled(self, tables: Tables, position: int) -> None:
        """The application has handled the message at this place of the inbox. `wake` once that is stored."""
        if tables.inbox.mark_handled(position) and self._is_on:
            tables.receipts.owe_read(position, receipts.due_at(self._local.now_ms()))

    async def run(self, own: Own) -> None:
        """Send what is due, wait, and again, for ever. What is owed meanwhile is not due before `receipts.SOONEST`.

        Cancellation: what is not in the outbox stays owed."""
        while self._is_on:
            self._owed = trio.Event()
            wait = await self._try(own)
            with trio.move_on_after(wait):
                await self._owed.wait()
                await trio.sleep(receipts.SOONEST / 1000)

    async def _try(self, own: Own) -> float:
        try:
            return await self.give(own)
        except errors.SottovoceError:
            return LATER
        except Exception as error:
            unexpected(error)
            return LATER

    async def give(self, own: Own) -> float:
        """Put what is due in the outbox; returns the seconds until more is, or until another try. Raises StoreFailed.

        Cancellation: what is not in the outbox stays owed."""
        while True:
            origins, wait = await self._local.transact(lambda tables: self._give(tables, own))
            for origin in origins:
                self._wake_sender(origin)
            if not origins:
                return wait

    def _give(self, tables: Tables, own: Own) -> tuple[set[str], float]:
        """Some of what is due. The relays that there is something for, and the seconds until more is due."""
        now_ms = self._local.now_ms()
        due = tables.receipts.due(now_ms, now_ms + receipts.LATEST)
        origins = self._give_to(tables, own, due, now_ms // 1000) if due else set()
        following = tables.receipts.next_due(now_ms)
        wait = inf if following is None else (following - now_ms) / 1000
        return origins, min(wait, LATER) if due else wait

    def _give_to(self, tables: Tables, own: Own, due: list[AccountId], now: int) -> set[str]:
        waiting = tables.outbox.sizes()
        everybody = sum(waiting.values())
        envelopes: list[Outgoing] = []
        for account_id in due:
            enough = min(room(waiting, account_id, everybody), ENOUGH_FOR_ONE - waiting.get(account_id, 0))
            enough = min(enough, AT_ONCE - len(envelopes))
            envelopes += _tell(tables, own, account_id, enough, now)
        for envelope in envelopes:
            tables.outbox.add(envelope, now)
        return {envelope.address.origin for envelope in envelopes}


def _tell(tables: Tables, own: Own, account_id: AccountId, enough: int, now: int) -> list[Outgoing]:
    """Receipts for one account, until there are enough for now."""
    envelopes: list[Outgoing] = []
    while len(envelopes) < enough and (more := _tell_some(tables, own, account_id, now)):
        envelopes += more
    return envelopes


def _tell_some(tables: Tables, own: Own, account_id: AccountId, now: int) -> list[Outgoing]:
    try:
        with tables.savepoint():  # one that is refused must not have moved a ratchet
            return receipts.give(tables, own, account_id, now)
    except CryptoRefusal:  # a session that cannot go on; the next message makes another
        return []
