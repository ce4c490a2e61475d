"""From a text to envelopes in the outbox: encrypted for every device of the recipient, in one transaction.

What is in the outbox is final. `sending` carries it to the relays; the handles that tell what became of it are here.
"""

import weakref
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from sottovoce_wire.frames import Ttl
from sottovoce_wire.ids import AccountId, DeviceId, MessageId, account_id_text

from . import errors, events
from .crypto import primitives
from .crypto.errors import CryptoRefusal, Reason
from .directory import Directory
from .local import Local
from .message import CANCELLED, Progress, Sent
from .protocol import contacts, sessions
from .protocol.content import MAX_TEXT, Text
from .protocol.state import Own
from .store.database import Tables
from .store.outbox import Waiting
from .store.sent import SentMessage


class Writer:
    """Puts messages in the outbox of one client. `wake` is told of relays that there is something for, `noticed` is
    called when there may be events."""

    def __init__(
        self,
        local: Local,
        directory: Directory,
        wake: Callable[[str], None],
        noticed: Callable[[], None] = lambda: None,
    ) -> None:
        self._local = local
        self._directory = directory
        self._wake = wake
        self._noticed = noticed
        self._handles: weakref.WeakValueDictionary[MessageId, Sent] = weakref.WeakValueDictionary()

    async def write(
        self, own: Own, account_id: AccountId, text: str, ttl: Ttl, also: Callable[[Tables], None] = lambda _: None
    ) -> Sent:
        """Encrypt `text` for every device of the account, and do what there is `also` in the same transaction; it is
        durable when this returns."""
        if account_id == own.account_id:
            raise errors.InvalidInput("a message to oneself has no recipient")
        if len(_utf8(text)) > MAX_TEXT:
            raise errors.MessageTooLarge(f"a message has at most {MAX_TEXT} bytes of text")
        message_id = MessageId(primitives.random_bytes(16))
        await self._encrypt(own, account_id, Text(message_id, self._local.now_ms(), text), ttl, also)
        return self._handle(message_id)

    async def _encrypt(
        self, own: Own, account_id: AccountId, text: Text, ttl: Ttl, also: Callable[[Tables], None]
    ) -> None:
        """Put the text in the outbox, after fetching the bundles of devices that there is no session with."""
        now = self._local.now_ms() // 1000

        def put(tables: Tables) -> set[str]:
            """The relays that there is something for."""
            _check_open(tables, account_id)
            contacts.accept(tables, account_id)
            envelopes = sessions.fan_out(tables, own, account_id, text, ttl, now)
            if not envelopes:
                raise errors.NoDevices("none of the recipient's devices can be written to at present")
            for envelope in envelopes:
                tables.outbox.add(envelope, now)
            devices = tuple(envelope.device_id for envelope in envelopes)
            tables.sent.add(SentMessage(text.message_id, account_id, devices, text.text, ttl, text.sent_at))
            also(tables)
            return {envelope.address.origin for envelope in envelopes}

        def put_or_ask(tables: Tables) -> set[str] | list[DeviceId]:
            """As `put`, or the devices whose bundles are needed first (empty: all)."""
            _check_open(tables, account_id)
            missing = sessions.missing(tables, account_id, now)
            return put(tables) if missing == [] else missing or []

        def put_after(tables: Tables) -> set[str]:
            contacts.learn(tables, peer, now)
            for bundle in bundles:
                device_id = bundle.entry.device_id
                if exhausted or sessions.sending_session(tables, account_id, device_id, now) is None:
                    sessions.start(tables, own, bundle, now)
            return put(tables)

        exhausted = False
        try:
            done = await self._local.transact(put_or_ask)
        except CryptoRefusal:  # a session that cannot go on: its chain or its prekeys have ended
            exhausted, done = True, []
        if isinstance(done, list):
            peer, bundles = await self._directory.bundles(account_id, done or None, now)
            try:
                done = await self._local.transact(put_after)
            except CryptoRefusal as refusal:
                raise await self._untrusted(account_id, peer.device_list, refusal, now) from None
            finally:
                self._noticed()
        for origin in done:
            self._wake(origin)

    async def _untrusted(
        self, account_id: AccountId, device_list: bytes, refusal: CryptoRefusal, now: int
    ) -> errors.SottovoceError:
        """Why nothing is sent under the keys that the keyserver gave. Of a fork, the other list is kept."""
        if refusal.reason is not Reason.FORKED_LIST:
            return errors.UntrustedKeys(f"the recipient's keys are not to be trusted ({refusal.reason})")
        await self._local.transact(lambda tables: contacts.note_fork(tables, account_id, device_list, now))
        return _forked()

    # --- What becomes of it ---

    async def sent(self, message_id: str) -> Sent:
        """The handle of a message that was sent before, by its id. Raises InvalidInput for one that is not known."""
        try:
            known = MessageId(bytes.fromhex(message_id))
        except ValueError:
            raise errors.InvalidInput("a message id has 32 hexadecimal digits") from None
        await self._progress(known)
        return self._handle(known)

    def settled(self, message_ids: Iterable[MessageId]) -> None:
        """Something has become of these messages."""
        for message_id in message_ids:
            handle = self._handles.get(message_id)
            if handle is not None:
                handle._wake()

    def _handle(self, message_id: MessageId) -> Sent:
        handle = self._handles.get(message_id)
        if handle is None:
            handle = self._handles[message_id] = Sent(message_id, self._progress, self._cancel)
        return handle

    async def _progress(self, message_id: MessageId) -> Progress:
        def look(tables: Tables) -> Progress:
            known = tables.sent.progress(message_id)
            if known is None:
                raise errors.InvalidInput("no message of this id was sent, or it is no longer remembered")
            waiting = tables.outbox.waiting(message_id) > 0
            return Progress(waiting, known.delivered_at is not None, known.read_at is not None, known.failure)

        return await self._local.transact(look)

    async def _cancel(self, message_id: MessageId) -> bool:
        def cancel(tables: Tables) -> bool:
            devices = tables.sent.fresh(message_id)
            if not devices or tables.outbox.untouched(message_id) < devices:
                return False
            tables.outbox.take_back(message_id)
            return tables.sent.fail(message_id, CANCELLED)

        is_cancelled = await self._local.transact(cancel)
        if is_cancelled:
            self.settled([message_id])
        return is_cancelled


def failed(tables: Tables, waiting: Waiting, reason: str, now_ms: int) -> None:
    """A message will not reach a device: tell the application, once for each message. What is no message, and what was
    taken back meanwhile, nobody misses."""
    lost = waiting.outgoing
    if tables.outbox.remove(waiting.position) and tables.sent.fail(lost.message_id, reason):
        at = datetime.fromtimestamp(now_ms / 1000, UTC)
        tables.events.add(events.MessageFailed(at, account_id_text(lost.account_id), lost.message_id.hex(), reason))


def _check_open(tables: Tables, account_id: AccountId) -> None:
    if tables.peers.is_blocked(account_id):
        raise errors.Blocked("this account is blocked")
    if tables.peers.forked_list(account_id) is not None:
        raise _forked()


def _forked() -> errors.AccountForked:
    return errors.AccountForked("two device lists were signed for one place in the recipient's account")


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise errors.InvalidInput("the text holds a lone surrogate, which no encoding can carry") from None
