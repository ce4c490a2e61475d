"""The keyserver as the client sees it: look-ups that prove themselves, and signed changes to one's own account.

Whatever the keyserver answers is checked here against the account id that it is about: it can withhold, not swap.
Spec: directory.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar

from sottovoce_wire import directory as wire
from sottovoce_wire import ids, records
from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.frames import KeyClass
from sottovoce_wire.ids import AccountId, DeviceId
from sottovoce_wire.origins import may_dial, parse_origin

from . import errors
from .crypto import identity, prekeys
from .crypto.errors import CryptoRefusal, Reason
from .crypto.identity import DeviceKeys
from .network import Network
from .protocol.sessions import Bundle
from .protocol.state import Address, Peer

_B = TypeVar("_B", bound=wire.Body)

SERVICE: Final = "sottovoce-keyserver"
VERSION: Final = 1


class CounterConflict(Exception):  # noqa: N818 - an answer, not a fault
    """The counter was used before; `last` is the greatest that the keyserver has seen from this device."""

    def __init__(self, last: int) -> None:
        super().__init__("the request counter was used before")
        self.last = last


class NumberConflict(Exception):  # noqa: N818 - as above
    """The records go back; `last` is the greatest number that the keyserver says it knows of this device."""

    def __init__(self, last: int) -> None:
        super().__init__("the keyserver knows a later state of this device")
        self.last = last


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs a change: the account and its device."""

    account_id: AccountId
    device: DeviceKeys


class Directory:
    """A client of the keyserver at one origin.

    Every method raises ServerUnreachable, WrongServer or ServerRefused besides what it names.
    Cancellation: a change may or may not have been carried out; saying it again is safe.
    """

    def __init__(self, origin: str, network: Network) -> None:
        self._origin = origin
        self._http = network.http(origin)

    async def relay(self) -> str:
        """The canonical origin of the relay on which this keyserver's users have their queues."""
        info = await self._ask("GET", wire.PATH_INFO, b"", wire.Info)
        if info.service != SERVICE or VERSION not in info.versions:
            raise errors.WrongServer(f"{self._origin} is not a keyserver that this version can use")
        try:
            relay = parse_origin(info.relay)
        except WireError:
            raise errors.WrongServer(f"{self._origin} names a relay without a proper address") from None
        if not may_dial(relay, own=self._origin):
            raise errors.WrongServer(f"{self._origin} names a relay in a private network")
        return relay

    async def find(self, username: str) -> AccountId:
        """The account that claims a name, checked by the claim's signature. Raises UnknownRecipient, UntrustedKeys."""
        try:
            found = await self._ask("POST", wire.PATH_FIND_NAME, wire.encode(wire.FindName(username)), wire.FoundName)
        except errors.UnknownRecipient:
            raise errors.UnknownRecipient(f"nobody is registered as {username} at {self._origin}") from None
        try:
            claim = identity.open_username_claim(found.root_key, found.username_claim)
        except CryptoRefusal as refusal:
            raise _untrusted(refusal) from None
        if claim.username != username:
            raise errors.UntrustedKeys("the keyserver answered with the claim to another name")
        return claim.account_id

    async def bundles(
        self, account_id: AccountId, devices: Sequence[DeviceId] | None, now: int
    ) -> tuple[Peer, list[Bundle]]:
        """The account's device list and the verified bundles of `devices` (None: all); one that has expired is left
        out. Raises UnknownRecipient, UntrustedKeys."""
        request = wire.FetchBundles(account_id, None if devices is None else list(devices))
        answer = await self._ask("POST", wire.PATH_BUNDLES, wire.encode(request), wire.Bundles)
        if ids.account_id_of(answer.root_key) != account_id:
            raise errors.UntrustedKeys("the keyserver answered with the keys of another account")
        try:
            device_list = identity.open_device_list(answer.root_key, answer.device_list)
            entries = {entry.device_id: entry for entry in device_list.devices}
            opened = [self._bundle(account_id, entries, bundle, now) for bundle in answer.bundles]
        except CryptoRefusal as refusal:
            raise _untrusted(refusal) from None
        return Peer(account_id, answer.root_key, answer.device_list), [b for b in opened if b is not None]

    def _bundle(
        self, account_id: AccountId, entries: dict[DeviceId, records.DeviceEntry], bundle: wire.Bundle, now: int
    ) -> Bundle | None:
        entry = entries.get(DeviceId(bundle.device_id))
        if entry is None:
            raise CryptoRefusal(Reason.NOT_LISTED, "a bundle of a device that is not on the list")
        try:
            recipient = prekeys.open_prekeys(entry, account_id, bundle.prekey_record, now)
            contact = prekeys.open_contact_record(entry, account_id, bundle.contact_record, now)
        except CryptoRefusal as refusal:
            if refusal.reason in (Reason.EXPIRED, Reason.NOT_YET_VALID):
                return None
            raise
        if not may_dial(contact.origin, own=self._origin):
            return None
        one_time = bundle.one_time_prekey
        return Bundle(
            account_id,
            entry,
            bundle.prekey_record,
            recipient,
            None if one_time is None else (one_time.id, one_time.key),
            Address(contact.origin, contact.queue, contact.send_key, KeyClass.STRANGER),
        )

    async def register(self, signer: Signer, counter: int, request: wire.Register) -> None:
        """Register an account. Raises NameTaken, CounterConflict, NumberConflict. Saying the same again changes
        nothing."""
        await self._change(signer, counter, wire.PATH_REGISTER, request, wire.Published)

    async def publish(self, signer: Signer, counter: int, request: wire.Publish) -> int:
        """Publish a device's records and new one-time prekeys; returns how many the keyserver holds.

        Raises CounterConflict, NumberConflict."""
        return (await self._change(signer, counter, wire.PATH_PUBLISH, request, wire.Published)).one_time_prekeys

    async def _change(self, signer: Signer, counter: int, path: str, body: wire.Body, kind: type[_B]) -> _B:
        data = wire.encode(body)
        device_id = signer.device.device_id
        signed = records.directory_request(self._origin, signer.account_id, device_id, counter, "POST", path, data)
        headers = {
            wire.HEADER_ACCOUNT: _base64(signer.account_id),
            wire.HEADER_DEVICE: _base64(device_id),
            wire.HEADER_COUNTER: str(counter),
            wire.HEADER_SIGNATURE: _base64(signer.device.sign_detached(signed)),
        }
        status, answer = await self._http.request("POST", path, data, headers)
        problem = None if status == 200 else self._parse(wire.Problem, answer)
        if problem is not None and problem.code == Code.COUNTER_CONFLICT and problem.last_counter is not None:
            raise CounterConflict(problem.last_counter)
        if problem is not None and problem.code == Code.BAD_RECORD and problem.last_number is not None:
            raise NumberConflict(problem.last_number)
        return self._parse(kind, answer) if problem is None else _refuse(self._origin, problem)

    async def _ask(self, method: str, path: str, body: bytes, kind: type[_B]) -> _B:
        status, answer = await self._http.request(method, path, body, {})
        return self._parse(kind, answer) if status == 200 else _refuse(self._origin, self._parse(wire.Problem, answer))

    def _parse(self, kind: type[_B], answer: bytes) -> _B:
        try:
            return wire.decode(kind, answer)
        except WireError:
            raise errors.WrongServer(f"{self._origin} does not answer as a keyserver does") from None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _untrusted(refusal: CryptoRefusal) -> errors.UntrustedKeys:
    return errors.UntrustedKeys(f"the keyserver's answer does not prove itself ({refusal.reason})")


def _refuse(origin: str, problem: wire.Problem) -> NoReturn:
    """The keyserver's refusal as an exception of ours. Its own words are not repeated: they may be anything."""
    if problem.code == Code.UNKNOWN_PATH:
        raise errors.WrongServer(f"{origin} is not a keyserver", hint="if it is a relay, give its keyserver's address")
    if problem.code == Code.NAME_TAKEN:
        raise errors.NameTaken("this name belongs to another account")
    if problem.code in (Code.UNKNOWN_NAME, Code.UNKNOWN_ACCOUNT):
        raise errors.UnknownRecipient("the keyserver does not know this recipient")
    known = problem.code in Code.__members__.values()
    name = Code(problem.code).name.lower().replace("_", " ") if known else "an unknown reason"
    raise errors.ServerRefused(f"the keyserver refused: {name} (code {problem.code})")
