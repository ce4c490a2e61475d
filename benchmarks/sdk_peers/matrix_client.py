"""A program that uses matrix-nio, as a process of its own: it takes the orders of `sdk_client`, and some to meet.

Run by the Python that nio is installed for, so nothing of this project is imported. A text begins with the time at
which it was handed to nio.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from nio import (
    AsyncClient,
    AsyncClientConfig,
    ErrorResponse,
    JoinResponse,
    KeysUploadResponse,
    MatrixRoom,
    MegolmEvent,
    RegisterResponse,
    RoomCreateResponse,
    RoomMessageText,
    RoomSendResponse,
)
from nio.crypto import InboundGroupSession, OlmAccount, OlmDevice, OutboundGroupSession, OutboundSession

_CONFIG: Final = AsyncClientConfig(store_sync_tokens=True, pickle_key="the passphrase of a bench")
_ENCRYPTION: Final = {
    "type": "m.room.encryption",
    "state_key": "",
    "content": {"algorithm": "m.megolm.v1.aes-sha2"},
}
#: A whole backlog in one answer.
_EVERYTHING: Final = {"room": {"timeline": {"limit": 1_000_000}}}
#: Milliseconds that the server may wait for something to say.
_LONG_POLL: Final = 30_000
#: Seconds between two looks, while the two meet. Nothing is measured then.
_PAUSE: Final = 0.05

Order: TypeAlias = Callable[..., Awaitable[Any]]
_Expected = TypeVar("_Expected")


class Program:
    """One client, and the orders that it takes: each a method's name and its arguments; the answer is what it returns.
    Times are seconds of the clock that all processes of this machine share."""

    def __init__(self, folder: Path, server: str, text: int) -> None:
        self._folder = folder
        self._server = server
        self._text = text
        self._client: AsyncClient
        self._syncing: asyncio.Task[None]
        #: When each message was sent and was there; or what went wrong.
        self._arrived: asyncio.Queue[tuple[float, float] | Exception] = asyncio.Queue()

    @property
    def orders(self) -> dict[str, Order]:
        """What can be asked of it."""
        meeting = self.register, self.host, self.join, self.know, self.fill
        every = self.open, self.close, self.send, self.pour, self.take, self.take_pages, *meeting
        return {order.__name__: order for order in every}

    @property
    def _login(self) -> Path:
        return self._folder / "login.json"

    async def open(self) -> float:
        """Open the client, and go on where it was; how long the opening took."""
        began = time.monotonic()
        self._client = AsyncClient(self._server, store_path=str(self._folder), config=_CONFIG)
        self._client.add_event_callback(self._hear, RoomMessageText)
        self._client.add_event_callback(self._fail, MegolmEvent)
        if not self._login.exists():
            return 0.0
        self._client.restore_login(**json.loads(self._login.read_text()))
        taken = time.monotonic() - began
        self._listen()
        return taken

    async def close(self) -> None:
        """Close it."""
        self._syncing.cancel()
        with suppress(asyncio.CancelledError):
            await self._syncing
        await self._client.close()

    async def register(self, name: str) -> str:
        """Make the account, and publish its keys; its id."""
        answer = _expect(RegisterResponse, await self._client.register(name, f"{name} of the bench", "bench"))
        login = {"user_id": answer.user_id, "device_id": answer.device_id, "access_token": answer.access_token}
        self._login.write_text(json.dumps(login))
        _expect(KeysUploadResponse, await self._client.keys_upload())
        self._listen()
        return str(answer.user_id)

    async def host(self, guest: str) -> str:
        """Make an encrypted room, and invite somebody; the room's id."""
        created = await self._client.room_create(invite=[guest], initial_state=[_ENCRYPTION])
        return str(_expect(RoomCreateResponse, created).room_id)

    async def join(self, room: str) -> None:
        """Follow the invitation."""
        _expect(JoinResponse, await self._client.join(room))

    async def know(self, other: str) -> None:
        """Wait until the other is in the room, and has keys to encrypt for."""
        while not self._knows(other):  # noqa: ASYNC110 - nio has no event for it
            await asyncio.sleep(_PAUSE)

    async def send(self, _to: str) -> None:
        """Send one message, until the server has accepted it."""
        content = {"msgtype": "m.text", "body": f"{time.monotonic()} ".ljust(self._text, ".")}
        (room,) = self._client.rooms
        sent = await self._client.room_send(room, "m.room.message", content, ignore_unverified_devices=True)
        _expect(RoomSendResponse, sent)

    async def pour(self, to: str, count: int, tasks: int) -> tuple[float, float]:
        """Send so many messages from so many tasks, until the server has accepted all. When it began, and ended."""
        began = time.monotonic()
        left = iter(range(count))

        async def send_some() -> None:
            for _ in left:
                await self.send(to)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(tasks, count)):
                group.create_task(send_some())
        return began, time.monotonic()

    async def take(self, count: int) -> tuple[float, float]:
        """Wait for so many messages: when the last was sent, and when it was there."""
        for _ in range(count):
            arrived = await self._arrived.get()
            if isinstance(arrived, Exception):
                raise arrived
            sent, ended = arrived
        return sent, ended

    async def take_pages(self, count: int) -> float:
        """The same, and only when the last was there: nio has no pages."""
        return (await self.take(count))[1]

    async def fill(self, count: int) -> None:
        """Add so many people to the store, with a session of each kind for each."""
        store, account = self._client.store, self._client.olm.account
        with store.database.atomic():
            for number in range(count):
                other = OlmAccount()
                other.generate_one_time_keys(1)
                keys = other.identity_keys
                (one_time,) = other.one_time_keys["curve25519"].values()
                device = OlmDevice(f"@other{number}:bench", "DEVICE", dict(keys))
                store.save_device_keys({device.user_id: {device.id: device}})
                store.save_session(keys["curve25519"], OutboundSession(account, keys["curve25519"], one_time))
                group = OutboundGroupSession().session_key, keys["ed25519"], keys["curve25519"]
                store.save_inbound_group_session(InboundGroupSession(*group, f"!room{number}:bench"))

    def _knows(self, other: str) -> bool:
        rooms = self._client.rooms.values()
        is_here = any(room.encrypted and room.member_count == 2 and other in room.users for room in rooms)
        return is_here and any(self._client.device_store.active_user_devices(other))

    def _listen(self) -> None:
        self._syncing = asyncio.create_task(self._sync())

    async def _sync(self) -> None:
        try:
            await self._client.sync_forever(_LONG_POLL, _EVERYTHING, full_state=True)
        except Exception as error:  # whatever it is, who waits for a message must hear of it
            self._arrived.put_nowait(error)

    async def _hear(self, _room: MatrixRoom, event: RoomMessageText) -> None:
        if event.sender == self._client.user_id:
            return
        if not event.decrypted:
            self._arrived.put_nowait(RuntimeError("a message came unencrypted"))
        self._arrived.put_nowait((float(event.body.split()[0]), time.monotonic()))

    async def _fail(self, _room: MatrixRoom, _event: MegolmEvent) -> None:
        self._arrived.put_nowait(RuntimeError("a message could not be decrypted"))


def _expect(kind: type[_Expected], answer: _Expected | ErrorResponse) -> _Expected:
    if not isinstance(answer, kind):
        raise RuntimeError(f"not a {kind.__name__}: {answer}")
    return answer


async def _obey(program: Program) -> None:
    orders = program.orders
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, *arguments = json.loads(line)
        answer = await orders[name](*arguments)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_obey(Program(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
