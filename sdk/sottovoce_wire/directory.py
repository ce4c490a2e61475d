"""The keyserver's JSON bodies, as both sides parse them (spec: directory).

Signed records travel inside as base64 of opaque bytes. Every request is a POST and carries its ids in the body,
so that no identifier stands in a URL or in a proxy's access log.
"""

from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from . import limits
from .errors import Code, WireError
from .frames import Bytes16, Bytes32

PATH_INFO: Final = "/v1/info"
PATH_REGISTER: Final = "/v1/register"
PATH_PUBLISH: Final = "/v1/publish"
PATH_FIND_NAME: Final = "/v1/names/find"
PATH_BUNDLES: Final = "/v1/bundles"

#: Headers of a signed change: base64 of account id, device id and signature; the counter in decimal.
HEADER_ACCOUNT: Final = "Sottovoce-Account"
HEADER_DEVICE: Final = "Sottovoce-Device"
HEADER_COUNTER: Final = "Sottovoce-Counter"
HEADER_SIGNATURE: Final = "Sottovoce-Signature"

Record: TypeAlias = Annotated[bytes, Meta(min_length=65, max_length=4096)]
Username: TypeAlias = Annotated[str, Meta(max_length=limits.MAX_USERNAME)]


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A JSON object with exactly these members."""


class Info(Body, frozen=True):
    """GET /v1/info: what this server is, and the origin of the relay that its users' queues live on."""

    service: str
    versions: list[int]
    relay: str


class OneTimePrekey(Body, frozen=True):
    """An X25519 prekey that is handed out once."""

    id: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    key: Bytes32


class Publish(Body, frozen=True):
    """POST /v1/publish, signed: the device's current records, and one-time prekeys to add (known ids are kept). Where
    `one_time_prekeys_from` is greater than before, all that are there go, and of these those below it."""

    prekey_record: Record
    contact_record: Record
    one_time_prekeys: Annotated[list[OneTimePrekey], Meta(max_length=limits.MAX_ONE_TIME_PREKEYS)]
    one_time_prekeys_from: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0


class Published(Body, frozen=True):
    """How many one-time prekeys of the device the keyserver now holds."""

    one_time_prekeys: Annotated[int, Meta(ge=0, le=limits.MAX_ONE_TIME_PREKEYS)]


class Register(Body, frozen=True):
    """POST /v1/register, signed: an account, its device list, one device's keys, and a username, all or nothing."""

    root_key: Bytes32
    device_list: Record
    publish: Publish
    username_claim: Record | None = None


class FindName(Body, frozen=True):
    """POST /v1/names/find, anonymous."""

    username: Username


class FoundName(Body, frozen=True):
    """The account that claimed the name, with the proof: its root key and the signed claim."""

    root_key: Bytes32
    username_claim: Record


class FetchBundles(Body, frozen=True):
    """POST /v1/bundles, anonymous: the prekey bundles of these devices, or of all. Each pops a one-time prekey.

    A caller that only wants the signed device list asks for no devices.
    """

    account_id: Bytes32
    devices: Annotated[list[Bytes16], Meta(max_length=limits.MAX_DEVICES)] | None = None


class Bundle(Body, frozen=True):
    """One device's prekey bundle; without a one-time prekey when none is left or too many were asked for."""

    device_id: Bytes16
    prekey_record: Record
    contact_record: Record
    one_time_prekey: OneTimePrekey | None = None


class Bundles(Body, frozen=True):
    """The account's signed device list, and the bundles of those devices that have published."""

    root_key: Bytes32
    device_list: Record
    bundles: Annotated[list[Bundle], Meta(max_length=limits.MAX_DEVICES)]


class Problem(Body, frozen=True):
    """Every answer that is not a success: the code, its meaning, for COUNTER_CONFLICT the last counter, and for a
    BAD_RECORD that goes back the greatest number that the keyserver knows of the device."""

    code: Annotated[int, Meta(ge=0, le=9999)]
    detail: Annotated[str, Meta(max_length=400)]
    last_counter: Annotated[int, Meta(ge=0, le=limits.MAX_COUNTER)] | None = None
    last_number: Annotated[int, Meta(ge=0, le=limits.MAX_COUNTER)] | None = None


_B = TypeVar("_B", bound=Body)


def encode(body: Body) -> bytes:
    """The JSON bytes of a body."""
    return msgspec.json.encode(body)


def decode(kind: type[_B], data: bytes) -> _B:
    """Parse a body strictly. Raises WireError (BAD_REQUEST) that names the offending member."""
    if len(data) > limits.MAX_DIRECTORY_BODY:
        raise WireError(Code.FRAME_TOO_LARGE, f"a body has at most {limits.MAX_DIRECTORY_BODY} bytes")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise WireError(Code.BAD_REQUEST, str(error)[:200]) from None
