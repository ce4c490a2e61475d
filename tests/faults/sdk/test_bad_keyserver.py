"""A keyserver that withholds, swaps, rolls back or raves, on real sockets: one clear error, and nothing sent under its
keys. Those who know each other do not need it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from sottovoce import Client, errors
from sottovoce.crypto import identity
from sottovoce.protocol import sessions
from sottovoce.store.database import Tables
from sottovoce_wire import directory as wire
from sottovoce_wire import records
from sottovoce_wire.errors import Code
from sottovoce_wire.ids import AccountId
from sottovoce_wire.records import ListFlag
from tests.faults.sdk.between import Bad, Cut, Mischief, bad_server
from tests.faults.sdk.world import Peer, peer
from tests.servers import ServerProcess

UNKNOWN: Final = wire.encode(wire.Problem(int(Code.UNKNOWN_ACCOUNT), "no such account"))


class Withholding(Mischief):
    """Knows nobody."""

    raises: type[errors.SottovoceError] | tuple[type[errors.SottovoceError], ...] = errors.UnknownRecipient

    def answered(self, path: str, asked: bytes, status: int, answer: bytes) -> tuple[int, bytes]:
        return 404, UNKNOWN


class WithholdingBundles(Withholding):
    """Knows the account, and none of its devices' prekeys."""

    raises = errors.NoDevices

    def answered(self, path: str, asked: bytes, status: int, answer: bytes) -> tuple[int, bytes]:
        if path != wire.PATH_BUNDLES:
            return status, answer
        found = wire.decode(wire.Bundles, answer)
        return status, wire.encode(wire.Bundles(found.root_key, found.device_list, []))


class Swapping(Withholding):
    """Answers every question with what it has answered to the first of its kind."""

    raises = errors.UntrustedKeys

    def __init__(self) -> None:
        self.first: dict[str, bytes] = {}

    def answered(self, path: str, asked: bytes, status: int, answer: bytes) -> tuple[int, bytes]:
        return status, self.first.setdefault(path, answer)


class SwappingKeys(Swapping):
    """The same, but the account is right: its keys are somebody else's."""

    def answered(self, path: str, asked: bytes, status: int, answer: bytes) -> tuple[int, bytes]:
        if path != wire.PATH_BUNDLES:
            return status, answer
        genuine = wire.decode(wire.Bundles, answer)
        other = wire.decode(wire.Bundles, self.first.setdefault(path, answer))
        return status, wire.encode(wire.Bundles(genuine.root_key, genuine.device_list, other.bundles))


class Raving(Withholding):
    """Answers what is no answer."""

    raises = errors.WrongServer

    def answered(self, path: str, asked: bytes, status: int, answer: bytes) -> tuple[int, bytes]:
        return 200, b'{"root_key": [' * 1000


class Silent(Withholding):
    """Hangs up."""

    raises = (errors.ServerUnreachable, errors.WrongServer)

    def answered(self, path: str, asked: bytes, status: int, answer: bytes) -> tuple[int, bytes]:
        raise Cut


@asynccontextmanager
async def three(hidden_server: ServerProcess, folder: Path, name: str) -> AsyncIterator[tuple[Bad, Peer, Peer, Peer]]:
    """A server that is honest so far; Alice and Mallory, who know each other, and Bob."""
    async with (
        bad_server(hidden_server.url) as bad,
        peer(folder / "a.db", bad.url, f"{name}-alice") as alice,
        peer(folder / "b.db", bad.url, f"{name}-bob") as bob,
        peer(folder / "m.db", bad.url, f"{name}-mallory") as mallory,
    ):
        yield bad, alice, bob, mallory


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", [Withholding, WithholdingBundles, Swapping, SwappingKeys, Raving, Silent])
async def test_a_bad_keyserver_stops_a_first_message_with_a_clear_error_and_nothing_else(
    hidden_server: ServerProcess, tmp_path: Path, kind: type[Withholding]
) -> None:
    name = kind.__name__.lower()
    async with three(hidden_server, tmp_path, name) as (bad, alice, bob, mallory):
        mischief = kind()
        bad.mischief = mischief if isinstance(mischief, Swapping) else Mischief()
        await alice.send(f"{name}-mallory", "hello")
        bad.mischief = Mischief()
        await mallory.until("hello")
        await mallory.send(f"{name}-alice", "hello to you")
        await alice.until("hello to you")

        bad.mischief = mischief
        with pytest.raises(kind.raises):
            await alice.client.send(f"{name}-bob", "under false keys")
        assert await alice.client._local.transact(lambda tables: tables.outbox.size()) == 0
        await alice.send(f"{name}-mallory", "one needs no keyserver")  # among those who know each other
        await mallory.until("one needs no keyserver")

        bad.mischief = Mischief()
        await alice.send(f"{name}-bob", "under true keys")
        await bob.until("under true keys")
        assert bob.arrived == ["under true keys"]
        assert mallory.arrived == ["hello", "one needs no keyserver"]


class Advancing(Mischief):
    """Serves one account's next device list, which the account itself has signed."""

    def __init__(self, device_list: bytes) -> None:
        self.device_list = device_list

    def answered(self, path: str, asked: bytes, status: int, answer: bytes) -> tuple[int, bytes]:
        if path != wire.PATH_BUNDLES:
            return status, answer
        found = wire.decode(wire.Bundles, answer)
        return status, wire.encode(wire.Bundles(found.root_key, self.device_list, found.bundles))


async def next_list(person: Client) -> bytes:
    """The list that follows a person's, with the same device."""
    account = await person._local.transact(lambda tables: tables.account.get())
    assert account is not None
    payload, _ = records.split_signed(account.device_list)
    return identity.make_device_list(
        account.root,
        [account.device.consent(account.root.account_id)],
        version=2,
        previous=records.device_list_hash(payload),
        time=records.DeviceList.parse(payload).time,
        flag=ListFlag.NORMAL,
    )


def lose_sessions(tables: Tables, account_id: AccountId) -> None:
    for session in tables.sessions.of_account(account_id):
        sessions.wipe(tables, session)


@pytest.mark.usefixtures("impatient")
async def test_a_device_list_that_the_keyserver_rolls_back_is_not_taken(
    hidden_server: ServerProcess, tmp_path: Path
) -> None:
    async with three(hidden_server, tmp_path, "rolled") as (bad, alice, bob, _):
        newer = await next_list(bob.client)
        bad.mischief = Advancing(newer)
        await alice.send("rolled-bob", "under the newer list")
        bad.mischief = Mischief()
        account_id = bob.client._registered().account_id
        peer_, _ = await alice.client._directory.bundles(account_id, [], 0)
        assert peer_.device_list != newer, "the keyserver must have gone back"
        await alice.client._local.transact(lambda tables: lose_sessions(tables, account_id))
        await alice.send("rolled-bob", "which needs new keys")
        known = await alice.client._local.transact(lambda tables: tables.peers.get(account_id))
        assert known is not None
        assert known.device_list == newer
        await bob.until("under the newer list", "which needs new keys")
