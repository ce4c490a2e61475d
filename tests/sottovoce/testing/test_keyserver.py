"""The keyserver in memory answers what the real one answers, request by request, on a real socket and database."""

import base64
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import msgspec
import pytest
import trio

from sottovoce.testing.keyserver import MemoryKeyserver
from sottovoce_hosting.testing import start_server
from sottovoce_keyserver.app import open_keyserver
from sottovoce_keyserver.settings import KeyserverSettings
from sottovoce_wire import directory as wire
from sottovoce_wire import limits
from sottovoce_wire.errors import Code
from sottovoce_wire.records import NO_LIST_HASH, ListFlag
from tests.sottovoce_keyserver.conftest import Clock, Device, Person

RELAY = "https://relay.example"
DAY = limits.DAY


@dataclass(frozen=True)
class Request:
    """What is asked, at `after` seconds of the conversation."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    after: float = 0


Answer: TypeAlias = tuple[int, object]


@dataclass
class Conversation:
    """Requests to a keyserver at `origin`, in order."""

    origin: str
    requests: list[Request] = field(default_factory=list)
    after: float = 0

    def post(self, path: str, body: wire.Body | bytes, headers: Mapping[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else wire.encode(body)
        self.requests.append(Request("POST", path, data, headers or {}, self.after))

    def signed(
        self,
        device: Device,
        path: str,
        body: wire.Body,
        counter: int | None = None,
        origin: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """As the device, with its next counter unless told otherwise; `headers` takes the place of its own."""
        data = wire.encode(body)
        own = device.headers(origin or self.origin, path, data, counter)
        self.post(path, data, own | dict(headers or {}))

    def register(self, person: Person, username: str | None = None, **changes: Any) -> None:
        self.signed(person.phone, wire.PATH_REGISTER, person.register(username, **changes))

    def publish(self, device: Device, body: wire.Publish, **changed: Any) -> None:
        self.signed(device, wire.PATH_PUBLISH, body, **changed)

    def bundles(self, person: Person, devices: list[bytes] | None = None) -> None:
        self.post(wire.PATH_BUNDLES, wire.FetchBundles(person.id, devices))

    def find(self, username: str) -> None:
        self.post(wire.PATH_FIND_NAME, wire.FindName(username))


def accounts(talk: Conversation, alice: Person, bob: Person) -> None:
    talk.requests.append(Request("GET", wire.PATH_INFO))
    talk.find("alice")
    talk.bundles(alice)
    talk.register(alice)
    talk.register(alice, "alice")
    talk.register(alice, "alice")
    talk.register(alice, "alicia")
    talk.register(bob, "alice")
    talk.bundles(bob)
    talk.register(bob, "bob")
    for name in ("alice", "bob", "alicia", "Alice", "x"):
        talk.find(name)


def bundles_and_prekeys(talk: Conversation, alice: Person, bob: Person) -> None:
    alice.devices.append(alice.device(1))
    talk.register(alice, "alice")
    for _ in range(4):
        talk.bundles(alice)
    laptop = alice.devices[1]
    talk.publish(laptop, laptop.publish(range(10, 12)))
    talk.bundles(alice)
    talk.bundles(alice, [])
    talk.bundles(alice, [laptop.id, bob.phone.id])
    talk.publish(laptop, laptop.publish(range(9, 14)))
    talk.bundles(alice, [laptop.id])
    talk.bundles(alice, [laptop.id])
    talk.publish(laptop, laptop.publish(range(20, 220)))
    talk.publish(laptop, laptop.publish(range(20, 218)))
    talk.publish(laptop, laptop.publish(range(218, 240), one_time_prekeys_from=216))
    talk.publish(laptop, laptop.publish(range(210, 216)))
    for _ in range(4):
        talk.bundles(alice)
    for begun in (309, 309, 305, 312):
        talk.publish(laptop, laptop.publish(range(300, 315), one_time_prekeys_from=begun))
        talk.bundles(alice, [laptop.id])
    for number in (2**32, -1):
        talk.signed(laptop, wire.PATH_PUBLISH, laptop.publish(range(0), one_time_prekeys_from=number))


def draining(talk: Conversation, alice: Person, bob: Person) -> None:
    talk.register(alice, publish=alice.phone.publish(range(100)))
    for _ in range(32):
        talk.bundles(alice)
    talk.after = 60
    talk.bundles(alice)


def who_signs(talk: Conversation, alice: Person, bob: Person) -> None:
    talk.publish(alice.phone, alice.phone.publish())
    talk.register(alice)
    publish = alice.phone.publish(range(3, 5))
    alice.devices.append(alice.device(1))
    talk.publish(alice.devices[1], alice.devices[1].publish())
    talk.publish(alice.phone, publish, origin="https://elsewhere.example")
    for headers in (
        {wire.HEADER_SIGNATURE: base64.b64encode(bytes(64)).decode()},
        {wire.HEADER_SIGNATURE: "AAAA"},
        {wire.HEADER_ACCOUNT: "Ä"},
        {wire.HEADER_DEVICE: ""},
        *({wire.HEADER_COUNTER: counter} for counter in ("0", "01", "-1", "1e3", str(2**53))),
    ):
        talk.publish(alice.phone, publish, headers=headers)
    talk.signed(alice.phone, wire.PATH_PUBLISH, publish, 1)
    talk.signed(alice.phone, wire.PATH_PUBLISH, publish, 50)
    talk.signed(alice.phone, wire.PATH_PUBLISH, publish, 50)
    talk.register(alice)


def bad_lists(talk: Conversation, alice: Person, bob: Person) -> None:
    stranger = bob.phone.entry()
    changes: dict[str, Any]
    for changes in (
        {"account_id": bob.id},
        {"previous": bytes(range(32))},
        {"version": 2**63},
        {"version": 0},
        {"time": alice.now + 2 * DAY},
        {"flag": ListFlag.FINAL},
        {"devices": (stranger,)},
        {"devices": (alice.phone.entry(), stranger)},
    ):
        talk.register(alice, device_list=alice.list(**changes))
    talk.register(alice, device_list=bob.list())
    talk.register(alice, root_key=bytes(32))
    talk.register(alice, device_list=alice.list(version=5, previous=bytes(range(32))))
    talk.register(alice, device_list=alice.list(version=6, previous=NO_LIST_HASH))


def bad_claims(talk: Conversation, alice: Person, bob: Person) -> None:
    for claim in (
        bob.claim("alice"),
        alice.claim("alice", account_id=bob.id),
        alice.claim("alice", time=alice.now + 2 * DAY),
        alice.claim("Alice"),
        alice.claim("a"),
    ):
        talk.register(alice, username_claim=claim)
    talk.bundles(alice)


def bad_publications(talk: Conversation, alice: Person, bob: Person) -> None:
    phone, now = alice.phone, alice.now
    talk.register(alice)
    changes: dict[str, bytes]
    for changes in (
        {"prekey_record": bob.phone.prekeys()},
        {"prekey_record": phone.prekeys(account_id=bob.id)},
        {"contact_record": phone.contact(device_id=bob.phone.id)},
        {"contact_record": phone.contact(origin="https://Relay.example")},
        {"contact_record": phone.contact(sequence=2**63)},
        {"prekey_record": phone.prekeys(created=now + 2 * DAY, expires=now + 3 * DAY)},
        {"prekey_record": phone.prekeys(expires=now + 31 * DAY)},
        {"prekey_record": phone.prekeys(created=now - 2 * DAY, expires=now - DAY)},
        {"contact_record": phone.contact(expires=now)},
        {"prekey_record": phone.prekeys(record_id=0)},
        {"prekey_record": phone.prekeys(created=now - 1)},
        {"prekey_record": phone.prekeys(record_id=2), "contact_record": phone.contact(sequence=2)},
        {"contact_record": phone.contact(sequence=1)},
        {"prekey_record": bytes(70)},
    ):
        talk.publish(phone, msgspec.structs.replace(phone.publish(), **changes))
    twice = [wire.OneTimePrekey(7, bytes(32)), wire.OneTimePrekey(7, bytes(32))]
    talk.publish(phone, msgspec.structs.replace(phone.publish(), one_time_prekeys=twice))
    talk.bundles(alice)


def what_expires(talk: Conversation, alice: Person, bob: Person) -> None:
    talk.register(alice, "alice")
    talk.after = limits.RECORD_LIFETIME
    talk.bundles(alice)
    talk.find("alice")


def bad_requests(talk: Conversation, alice: Person, bob: Person) -> None:
    for path in (wire.PATH_REGISTER, wire.PATH_PUBLISH, wire.PATH_FIND_NAME, wire.PATH_BUNDLES):
        talk.post(path, b"{")
        talk.post(path, b"\xff")
        talk.post(path, b'{"username": "alice", "more": 1}')
        talk.requests.append(Request("GET", path))
    talk.requests += [Request("POST", wire.PATH_INFO), Request("GET", "/v1/nothing")]
    talk.post(wire.PATH_FIND_NAME, b'{"username": "' + bytes(limits.MAX_DIRECTORY_BODY) + b'"}')
    talk.post(wire.PATH_BUNDLES, b'{"account_id": "AAAA"}')


def _readable(status: int, body: bytes) -> Answer:
    """The answer without the words that are for people."""
    if status == 200:
        return status, msgspec.json.decode(body)
    problem = wire.decode(wire.Problem, body)
    return status, (Code(problem.code), problem.last_counter, problem.last_number)


@asynccontextmanager
async def real_keyserver(folder: Path, clock: Clock) -> AsyncIterator[str]:
    settings = KeyserverSettings.model_validate({"data": folder, "port": 0, "relay_url": RELAY})
    async with trio.open_nursery() as nursery:
        server = await start_server(nursery, lambda origins: [open_keyserver(settings, origins, clock)], settings)
        yield server.url
        server.stop.set()


async def for_real(talk: Conversation, clock: Clock) -> list[Answer]:
    answers = []
    async with httpx.AsyncClient(timeout=20, trust_env=False) as http:
        for request in talk.requests:
            clock.now = Clock.now + request.after
            raw = [(name.encode(), value.encode("utf-8")) for name, value in request.headers.items()]
            answer = await http.request(request.method, talk.origin + request.path, content=request.body, headers=raw)
            answers.append(_readable(answer.status_code, answer.content))
    return answers


def in_memory(talk: Conversation) -> list[Answer]:
    clock = Clock()
    keyserver = MemoryKeyserver(talk.origin, RELAY, clock)
    answers = []
    for request in talk.requests:
        clock.now = Clock.now + request.after
        answers.append(_readable(*keyserver.answer(request.method, request.path, request.body, request.headers)))
    return answers


CONVERSATIONS: list[Callable[[Conversation, Person, Person], None]] = [
    accounts,
    bundles_and_prekeys,
    draining,
    who_signs,
    bad_lists,
    bad_claims,
    bad_publications,
    what_expires,
    bad_requests,
]


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=lambda conversation: conversation.__name__)
async def test_the_keyserver_in_memory_answers_what_the_real_one_answers(
    conversation: Callable[[Conversation, Person, Person], None], tmp_path: Path
) -> None:
    clock = Clock()
    async with real_keyserver(tmp_path, clock) as origin:
        talk = Conversation(origin)
        conversation(talk, Person(1), Person(2))
        answers = await for_real(talk, clock)
    assert in_memory(talk) == answers
