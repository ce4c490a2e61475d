"""The client's task that heals sessions: it makes the handshakes that are wanted, sends once more what was lost, and
gives the answers that are owed.

Whether and when stands in `protocol.healing`. Nothing here is sent to an account that the person has not written to.
"""

from collections.abc import Callable, Iterable
from math import inf
from typing import Final

import trio

from sottovoce_wire.ids import AccountId, DeviceId, MessageId

from . import errors
from .crypto.errors import CryptoRefusal, Reason
from .directory import Directory
from .local import Local, unexpected
from .outgoing import failed
from .protocol import contacts, healing, sessions
from .protocol.content import Text
from .protocol.opening import Opener
from .protocol.state import Own, Peer
from .store.database import Tables
from .store.sent import Repeats

#: Seconds between two looks at what time alone has made due.
EVERY: Final = 300.0
#: Envelopes that may be waiting when repeats and receipts are added: an outbox that does not empty is filled no
#: further, but for accounts that nothing waits for. Else a few whose queues take nothing would silence this device.
OUTBOX_ENOUGH: Final = 1_000
#: Beyond this nothing is added for anybody: where everyone is accepted, accounts cost nothing.
OUTBOX_FULL: Final = 10_000


def room(waiting: dict[AccountId, int], account_id: AccountId, everybody: int) -> int:
    """How many envelopes may be added for an account, where `everybody` has so many waiting in all."""
    left = OUTBOX_ENOUGH - everybody
    return left if account_id in waiting else max(left, int(everybody < OUTBOX_FULL))


class Mender:
    """Keeps the sessions of one device in order. `wake_sender` is told of relays that there is something for, `report`
    of messages that receipts came for, or that will not arrive, `arrived` when there may be messages or events."""

    def __init__(
        self,
        local: Local,
        directory: Directory,
        own: Own,
        opener: Opener,
        wake_sender: Callable[[str], None],
        report: Callable[[Iterable[MessageId]], None] = lambda _: None,
        arrived: Callable[[], None] = lambda: None,
    ) -> None:
        self._local = local
        self._directory = directory
        self._own = own
        self._opener = opener
        self._wake_sender = wake_sender
        self._report = report
        self._arrived = arrived
        self._due = trio.Event()
        self._behind: dict[AccountId, int] = {}  # the versions that the keyserver does not have, as told
        self._asked: dict[AccountId, float] = {}  # and when it was asked for them

    def wake(self) -> None:
        """Something is due."""
        self._due.set()

    async def run(self) -> None:
        """Mend, wait, mend again, for ever. After a failure it waits the whole time, whatever comes in.

        Cancellation: what is not done stays wanted."""
        while True:
            self._due = trio.Event()
            try:
                await self.mend()
            except errors.SottovoceError:
                await trio.sleep(EVERY)
            except Exception as error:
                unexpected(error)
                await trio.sleep(EVERY)
            else:
                with trio.move_on_after(EVERY):
                    await self._due.wait()

    async def mend(self) -> None:
        """Do what is due now. Raises ServerUnreachable, ServerRefused, WrongServer, StoreFailed.

        Cancellation: what is not done stays wanted."""

        def look(tables: Tables) -> tuple[list[tuple[AccountId, DeviceId]], set[MessageId]]:
            now = self._local.now_ms()
            self._opener.tend(tables, now)
            healing.notice_silence(tables, now // 1000)
            tables.sent.expire(now)
            return list(tables.wants.of_contacts()), tables.sent.take_news()

        wanted, receipted = await self._local.transact(look)
        self._report(receipted)
        unanswered = None
        try:
            await self._ask(wanted)
        except errors.SottovoceError as error:  # what follows needs no keyserver
            unanswered = error
        try:
            await self._repeat_all()
            self._wake(await self._local.transact(self._answer))
        finally:
            self._arrived()
        if unanswered is not None:
            raise unanswered

    async def _ask(self, wanted: list[tuple[AccountId, DeviceId]]) -> None:
        """Make the handshakes, and fetch the lists that contacts name: of each once in a while, whatever it names."""
        for account_id, device_id in wanted:
            await self._renew(account_id, device_id)
        for account_id, version in await self._local.transact(lambda tables: tables.peers.behind()):
            if trio.current_time() - self._asked.get(account_id, -inf) >= EVERY:
                self._asked[account_id] = trio.current_time()
                await self._catch_up(account_id, version)

    async def _renew(self, account_id: AccountId, device_id: DeviceId) -> None:
        """Make a handshake with a device and send it. If it has no usable keys, that is all for this time."""
        now = self._local.now_ms() // 1000
        try:
            peer, bundles = await self._directory.bundles(account_id, [device_id], now)
        except (errors.UntrustedKeys, errors.UnknownRecipient):
            await self._local.transact(lambda tables: tables.wants.done(account_id, device_id, now))
            return

        def start(tables: Tables) -> set[str]:
            if (account_id, device_id) not in tables.wants.of_contacts():
                return set()  # a message has made a handshake meanwhile
            try:
                with tables.savepoint():
                    return self._start(tables, peer, bundles, now)
            except CryptoRefusal as refusal:
                _note(tables, peer, refusal, now)
                return set()
            finally:
                tables.wants.done(account_id, device_id, now)

        self._wake(await self._local.transact(start))

    async def _catch_up(self, account_id: AccountId, version: int) -> None:
        """Fetch the list that an account names in its messages. Tell, once, of a keyserver that does not have it."""
        now = self._local.now_ms() // 1000
        try:
            peer, _ = await self._directory.bundles(account_id, [], now)
        except (errors.UntrustedKeys, errors.UnknownRecipient):
            return

        def learn(tables: Tables) -> None:
            try:
                with tables.savepoint():
                    contacts.learn(tables, peer, now)
            except CryptoRefusal as refusal:
                _note(tables, peer, refusal, now)
            if self._behind.get(account_id) != version and (account_id, version) in tables.peers.behind():
                contacts.note_behind(tables, account_id, now)
                self._behind[account_id] = version

        await self._local.transact(learn)

    def _start(self, tables: Tables, peer: Peer, bundles: list[sessions.Bundle], now: int) -> set[str]:
        contacts.learn(tables, peer, now)
        for bundle in bundles:
            sessions.start(tables, self._own, bundle, now)
        return {
            origin
            for bundle in bundles
            for origin in self._acknowledge(tables, peer.account_id, bundle.entry.device_id, now)
        }

    async def _repeat_all(self) -> None:
        """Send once more what is due, a part at a time; then give up what has nowhere to go."""
        is_more = True
        while is_more:
            origins, is_more = await self._local.transact(self._repeat_some)
            self._wake(origins)
        self._report(await self._local.transact(self._give_up))

    def _repeat_some(self, tables: Tables) -> tuple[set[str], bool]:
        """The relays that there is something for, and whether more may be due."""
        now_ms = self._local.now_ms()
        waiting = tables.outbox.sizes()
        everybody = sum(waiting.values())
        due = [
            each for each in tables.sent.repeats_due(now_ms // 1000) if room(waiting, each.account_id, everybody) > 0
        ]
        if not due:
            return set(), False
        repeats, *_ = due
        try:
            with tables.savepoint():
                return self._repeat(tables, repeats, now_ms), True
        except CryptoRefusal:  # a session that cannot go on; another wants its own repeats
            tables.sent.give_up_repeats(repeats.account_id, repeats.device_id)
            return set(), True

    def _repeat(self, tables: Tables, repeats: Repeats, now_ms: int) -> set[str]:
        device, now, origins = (repeats.account_id, repeats.device_id), now_ms // 1000, set()
        for sent in tables.sent.take_lost(repeats, now_ms):
            text = Text(sent.message_id, sent.sent_at, sent.text)
            envelope = sessions.repeat(tables, self._own, *device, text, sent.ttl, now)
            if envelope is None:  # the device is gone, or is to get a handshake, which wants its own repeats
                tables.sent.give_up_repeats(*device)
                break
            tables.outbox.take_back(sent.message_id, repeats.device_id)
            tables.outbox.add(envelope, now)
            origins.add(envelope.address.origin)
        return origins

    def _give_up(self, tables: Tables) -> set[MessageId]:
        """Fail what a relay has refused, and no new address was found for."""
        now_ms = self._local.now_ms()
        hopeless = tables.outbox.hopeless(now_ms // 1000)
        for waiting in hopeless:
            failed(tables, waiting, "refused", now_ms)
        return {waiting.outgoing.message_id for waiting in hopeless}

    def _answer(self, tables: Tables) -> set[str]:
        """What waits for an account already is an answer, too: one whose queue takes nothing gets no more of them."""
        now, waiting = self._local.now_ms() // 1000, tables.outbox.sizes()
        if sum(waiting.values()) >= OUTBOX_FULL:
            return set()
        due = [device for device in healing.answers_due(tables, now) if device[0] not in waiting]
        return {origin for device in due for origin in self._acknowledge(tables, *device, now)}

    def _acknowledge(self, tables: Tables, account_id: AccountId, device_id: DeviceId, now: int) -> set[str]:
        try:
            with tables.savepoint():  # the ratchet moves before the message is sealed, which may be refused
                envelope = sessions.acknowledge(tables, self._own, account_id, device_id, now)
        except CryptoRefusal:  # a session that cannot go on; the next message makes another
            envelope = None
        if envelope is None:
            return set()
        tables.outbox.add(envelope, now)
        return {envelope.address.origin}

    def _wake(self, origins: set[str]) -> None:
        for origin in origins:
            self._wake_sender(origin)


def _note(tables: Tables, peer: Peer, refusal: CryptoRefusal, now: int) -> None:
    if refusal.reason is Reason.FORKED_LIST:
        contacts.note_fork(tables, peer.account_id, peer.device_list, now)
