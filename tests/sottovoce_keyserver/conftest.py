"""A real keyserver on a real socket, and accounts that sign as clients do, for the keyserver's tests."""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import httpx
import msgspec
import pytest
import trio
from nacl.signing import SigningKey

from sottovoce_hosting.testing import ServedForTest, start_server
from sottovoce_keyserver.app import open_keyserver
from sottovoce_keyserver.settings import KeyserverSettings
from sottovoce_wire import directory as wire
from sottovoce_wire import ids, labels, limits
from sottovoce_wire.errors import Code
from sottovoce_wire.ids import AccountId, DeviceId, QueueId, SendKey
from sottovoce_wire.records import (
    NO_LIST_HASH,
    ContactRecord,
    DeviceEntry,
    DeviceList,
    ListFlag,
    PrekeyRecord,
    UsernameClaim,
    device_consent,
    directory_request,
)

B = TypeVar("B", bound=wire.Body)


@dataclass
class Clock:
    """Unix time, as the test wants it."""

    now: float = 1_800_000_000

    def __call__(self) -> float:
        return self.now


def sign(key: SigningKey, label: bytes, payload: bytes) -> bytes:
    """A signed record."""
    return payload + key.sign(label + payload).signature


def key_from(number: int) -> SigningKey:
    """A signing key that is the same on every run."""
    return SigningKey(number.to_bytes(32, "big"))


@dataclass
class Device:
    """A device that counts its requests."""

    account_id: AccountId
    key: SigningKey
    identity_key: bytes
    now: int
    counter: int = 0

    @property
    def id(self) -> DeviceId:
        return ids.device_id_of(bytes(self.key.verify_key), self.identity_key)

    def entry(self) -> DeviceEntry:
        signing_key = bytes(self.key.verify_key)
        consent = self.key.sign(device_consent(self.account_id, signing_key, self.identity_key)).signature
        return DeviceEntry(signing_key, self.identity_key, consent)

    def prekeys(self, **changes: Any) -> bytes:
        record = PrekeyRecord(
            self.account_id,
            self.id,
            1,
            self.now,
            self.now + limits.RECORD_LIFETIME,
            bytes(32),
            bytes(1184),
            bytes(1216),
        )
        return sign(self.key, labels.PREKEY_RECORD, msgspec.structs.replace(record, **changes).pack())

    def contact(self, **changes: Any) -> bytes:
        record = ContactRecord(
            self.account_id,
            self.id,
            1,
            self.now,
            self.now + limits.RECORD_LIFETIME,
            QueueId(bytes(16)),
            SendKey(bytes(32)),
            "https://relay.example",
        )
        return sign(self.key, labels.CONTACT_RECORD, msgspec.structs.replace(record, **changes).pack())

    def publish(self, one_time: range = range(3), **changes: bytes | int) -> wire.Publish:
        prekeys = [wire.OneTimePrekey(number, number.to_bytes(32, "big")) for number in one_time]
        body = wire.Publish(self.prekeys(), self.contact(), prekeys)
        return msgspec.structs.replace(body, **changes)

    def headers(self, origin: str, path: str, body: bytes, counter: int | None = None) -> dict[str, str]:
        if counter is None:
            self.counter += 1
            counter = self.counter
        signed = directory_request(origin, self.account_id, self.id, counter, "POST", path, body)
        return {
            wire.HEADER_ACCOUNT: base64.b64encode(self.account_id).decode(),
            wire.HEADER_DEVICE: base64.b64encode(self.id).decode(),
            wire.HEADER_COUNTER: str(counter),
            wire.HEADER_SIGNATURE: base64.b64encode(self.key.sign(signed).signature).decode(),
        }


@dataclass
class Person:
    """An account: its root key and devices. `number` tells people apart."""

    number: int
    now: int = 1_800_000_000
    root: SigningKey = field(init=False)
    devices: list[Device] = field(init=False)

    def __post_init__(self) -> None:
        self.root = key_from(1000 * self.number)
        self.devices = [self.device(0)]

    @property
    def id(self) -> AccountId:
        return ids.account_id_of(bytes(self.root.verify_key))

    @property
    def phone(self) -> Device:
        return self.devices[0]

    def device(self, index: int) -> Device:
        number = 1000 * self.number + 2 * index
        return Device(self.id, key_from(number + 1), (number + 2).to_bytes(32, "big"), self.now)

    def list(self, **changes: Any) -> bytes:
        entries = tuple(device.entry() for device in self.devices)
        unsigned = DeviceList(self.id, 1, NO_LIST_HASH, self.now, ListFlag.NORMAL, entries)
        return sign(self.root, labels.DEVICE_LIST, msgspec.structs.replace(unsigned, **changes).pack())

    def claim(self, username: str, **changes: Any) -> bytes:
        unsigned = UsernameClaim(self.id, self.now, username)
        return sign(self.root, labels.USERNAME_CLAIM, msgspec.structs.replace(unsigned, **changes).pack())

    def register(self, username: str | None = None, device: Device | None = None, **changes: Any) -> wire.Register:
        claim = None if username is None else self.claim(username)
        publish = (device or self.phone).publish()
        body = wire.Register(bytes(self.root.verify_key), self.list(), publish, claim)
        return msgspec.structs.replace(body, **changes)


@dataclass
class ServedKeyserver:
    """A keyserver that answers, and a client of it."""

    server: ServedForTest
    http: httpx.AsyncClient
    clock: Clock

    async def post(self, path: str, body: bytes | wire.Body, headers: dict[str, str] | None = None) -> httpx.Response:
        data = body if isinstance(body, bytes) else wire.encode(body)
        raw = [(name.encode(), value.encode("utf-8")) for name, value in (headers or {}).items()]
        return await self.http.post(self.server.url + path, content=data, headers=raw)

    async def signed(
        self, device: Device, path: str, body: wire.Body, *, counter: int | None = None, origin: str | None = None
    ) -> httpx.Response:
        """POST as the device; with its next counter unless told otherwise."""
        data = wire.encode(body)
        return await self.post(path, data, device.headers(origin or self.server.url, path, data, counter))

    async def register(self, person: Person, username: str | None = None) -> httpx.Response:
        return await self.signed(person.phone, wire.PATH_REGISTER, person.register(username))

    async def publish(self, device: Device, body: wire.Publish) -> httpx.Response:
        return await self.signed(device, wire.PATH_PUBLISH, body)

    async def bundles(self, person: Person, devices: list[bytes] | None = None) -> wire.Bundles:
        answer = await self.post(wire.PATH_BUNDLES, wire.FetchBundles(person.id, devices))
        return self.body(wire.Bundles, answer)

    async def knows(self, person: Person) -> bool:
        answer = await self.post(wire.PATH_BUNDLES, wire.FetchBundles(person.id, []))
        return answer.status_code == 200

    def body(self, kind: type[B], answer: httpx.Response, status: int = 200) -> B:
        """The body of an answer with this status."""
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json"), answer.text
        return wire.decode(kind, answer.content)

    def assert_refused(self, answer: httpx.Response, status: int, code: Code, words: str = "") -> wire.Problem:
        problem = self.body(wire.Problem, answer, status)
        assert problem.code == code
        assert words in problem.detail
        return problem

    async def end(self) -> None:
        self.server.stop.set()
        await self.server.stopped.wait()


StartKeyserver: TypeAlias = Callable[..., Awaitable[ServedKeyserver]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def start_keyserver(nursery: trio.Nursery, tmp_path: Path, clock: Clock) -> AsyncIterator[StartKeyserver]:
    async with httpx.AsyncClient(timeout=20, trust_env=False) as http:

        async def start(**chosen: object) -> ServedKeyserver:
            settings = KeyserverSettings.model_validate({"data": tmp_path, "port": 0, **chosen})
            server = await start_server(nursery, lambda origins: [open_keyserver(settings, origins, clock)], settings)
            return ServedKeyserver(server, http, clock)

        yield start


@pytest.fixture
async def keyserver(start_keyserver: StartKeyserver) -> ServedKeyserver:
    return await start_keyserver()


@pytest.fixture
def alice() -> Person:
    return Person(1)


@pytest.fixture
def bob() -> Person:
    return Person(2)
