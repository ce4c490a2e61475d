"""The keyserver over HTTP: JSON in, JSON out, one status per code (spec: directory).

What is right and wrong stands in directory.py, what is stored in storage.py. Nothing here logs what a request says.
"""

from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from quart import Blueprint, Response, request

from sottovoce_hosting.database import Database, DatabaseError
from sottovoce_hosting.service import Origins
from sottovoce_hosting.web import answer
from sottovoce_wire import directory as wire
from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.ids import AccountId, check_username

from . import directory, storage
from .directory import CounterConflict, NumberConflict, Signer
from .metrics import Metrics
from .poplimit import PopLimit

#: Seconds that a look-up waits for a transaction to hand one-time prekeys out in.
_POP_PATIENCE: Final = 0.5
#: The HTTP status of every refusal. What is not here is 400.
STATUS: Final = {
    Code.BAD_REQUEST_SIGNATURE: 401,
    Code.UNKNOWN_DEVICE: 403,
    Code.UNKNOWN_ACCOUNT: 404,
    Code.UNKNOWN_NAME: 404,
    Code.COUNTER_CONFLICT: 409,
    Code.NAME_TAKEN: 409,
    Code.ACCOUNT_CONFLICT: 409,
    Code.FRAME_TOO_LARGE: 413,
    Code.BAD_RECORD: 422,
    Code.TOO_MANY_PREKEYS: 422,
}


@dataclass(frozen=True)
class Directory:
    """What the routes work with. `clock` gives unix seconds."""

    database: Database
    origins: Origins
    relay: str
    clock: Callable[[], float]
    pop_limit: PopLimit
    metrics: Metrics

    async def info(self) -> wire.Info:
        """GET /v1/info."""
        return wire.Info("sottovoce-keyserver", [1], self.relay)

    async def register(self) -> wire.Published:
        """POST /v1/register."""
        signer, body = directory.parse_signer(request.headers.get), await request.body
        register = wire.decode(wire.Register, body)
        device_list = directory.open_device_list(register, signer.account_id)
        signing_key = directory.signing_key_in(device_list, signer.device_id)
        directory.check_request(signer, signing_key, self.origins.accepted, wire.PATH_REGISTER, body)
        registration = directory.check_registration(register, device_list, signer, self.clock())
        count = await self.database.write(lambda c: storage.register(c, signer, registration))
        return wire.Published(count)

    async def publish(self) -> wire.Published:
        """POST /v1/publish."""
        signer, body = directory.parse_signer(request.headers.get), await request.body
        publish = wire.decode(wire.Publish, body)
        signing_key = await self._signing_key(signer)
        directory.check_request(signer, signing_key, self.origins.accepted, wire.PATH_PUBLISH, body)
        publication = directory.check_publication(publish, signer, signing_key, self.clock())
        count = await self.database.write(lambda c: storage.publish(c, signer, publication))
        return wire.Published(count)

    async def _signing_key(self, signer: Signer) -> bytes:
        return await self.database.read(lambda c: storage.signing_key_of(c, signer.account_id, signer.device_id))

    async def find_name(self) -> wire.FoundName:
        """POST /v1/names/find."""
        username = check_username(wire.decode(wire.FindName, await request.body).username)
        found = await self.database.read(lambda c: storage.find_name(c, username))
        if found is None:
            raise WireError(Code.UNKNOWN_NAME, "nobody here has this username")
        return wire.FoundName(*found)

    async def bundles(self) -> wire.Bundles:
        """POST /v1/bundles."""
        asked = wire.decode(wire.FetchBundles, await request.body)
        account_id, now = AccountId(asked.account_id), self.clock()
        account = await self.database.read(lambda c: storage.read_account(c, account_id))
        if account is None:
            raise WireError(Code.UNKNOWN_ACCOUNT, "there is no such account here")
        bundles = [] if asked.devices == [] else await self._take_bundles(account_id, asked.devices, now)
        self.metrics.count_bundles(bundles)
        return wire.Bundles(account.root_key, account.device_list, bundles)

    async def _take_bundles(
        self, account_id: AccountId, wanted: Collection[bytes] | None, now: float
    ) -> list[wire.Bundle]:
        """With one-time prekeys if the account's limit and the database allow it; otherwise without them."""
        if self.pop_limit.allows(account_id):
            with suppress(DatabaseError):
                return await self.database.write(
                    lambda c: storage.pop_bundles(c, account_id, wanted, now), within=_POP_PATIENCE
                )
        return await self.database.read(lambda c: storage.read_bundles(c, account_id, wanted, now))


def make_blueprint(routes: Directory) -> Blueprint:
    """The routes, with refusals as JSON."""
    blueprint = Blueprint("keyserver", "sottovoce_keyserver")
    for method, path, view in (
        ("GET", wire.PATH_INFO, routes.info),
        ("POST", wire.PATH_REGISTER, routes.register),
        ("POST", wire.PATH_PUBLISH, routes.publish),
        ("POST", wire.PATH_FIND_NAME, routes.find_name),
        ("POST", wire.PATH_BUNDLES, routes.bundles),
    ):
        blueprint.add_url_rule(path, path.replace("/", "_"), _as_json(view), methods=[method])
    blueprint.register_error_handler(WireError, _refuse)

    @blueprint.after_request
    async def _count(response: Response) -> Response:
        if request.url_rule is not None:
            routes.metrics.count_request(request.url_rule.rule, response.status_code)
        return response

    return blueprint


def _as_json(view: Callable[[], Awaitable[wire.Body]]) -> Callable[[], Awaitable[Response]]:
    async def respond() -> Response:
        return answer(await view())

    return respond


async def _refuse(error: WireError) -> Response:
    problem = wire.Problem(
        error.code,
        error.detail,
        last_counter=error.last if isinstance(error, CounterConflict) else None,
        last_number=error.last if isinstance(error, NumberConflict) else None,
    )
    return answer(problem, STATUS.get(error.code, 400))
