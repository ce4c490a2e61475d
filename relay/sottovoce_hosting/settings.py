"""Settings that every server has, and how they are read: the command line, then the environment, then defaults.

Nothing here touches the network or the disk.
"""

import os
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from sottovoce_wire.errors import WireError
from sottovoce_wire.origins import parse_origin

from .errors import StartError
from .logs import Level

ENVIRONMENT_PREFIX: Final = "SOTTOVOCE_SERVER_"
DEFAULT_PORT: Final = 8480
S = TypeVar("S", bound="HostingSettings")


def canonical_origin(url: str | None) -> str | None:
    """A setting that is an origin, in its canonical spelling. Raises ValueError that says the rule."""
    try:
        return None if url is None else parse_origin(url)
    except WireError as error:
        raise ValueError(error.detail) from None


class HostingSettings(BaseSettings):
    """Where a server keeps its data and where it is reached. A server adds its own fields by subclassing."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, extra="forbid", frozen=True)

    #: The folder of the databases; made if it is not there.
    data: Path = Path("sottovoce-data")
    #: The interface to listen on. Any but loopback needs `public_url`.
    host: str = "127.0.0.1"
    #: 0 takes a free port.
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65535)
    #: The address that clients use, such as https://chat.example: what signatures meant for this server name.
    public_url: str | None = None
    #: Certificate chain and private key (PEM): with them the server speaks TLS itself.
    tls_cert: Path | None = None
    tls_key: Path | None = None
    log_level: Level = "info"
    #: Open connections at a time; fewer if the system allows fewer files.
    max_connections: int = Field(default=10_000, ge=1)
    #: Seconds that clients and databases get to finish when the server is told to stop.
    drain_seconds: float = Field(default=10, gt=0)

    _canonical_public_url = field_validator("public_url")(canonical_origin)

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        if self.tls_cert is not None and self.public_url is None:
            raise ValueError("with tls_cert, public_url says which https address the certificate is for")
        return self


def read_settings(kind: type[S], also: tuple[type[HostingSettings], ...] = (), **given: object) -> S:
    """The settings of one server: what was `given` and is not None, else the environment, else the default.

    `also` names the other servers of this process, whose variables are no mistakes. Raises StartError that names the
    first bad setting.
    """
    _refuse_unknown_variables((kind, *also))
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        return kind(**chosen)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        raise StartError(f"{name}: {first['msg'].removeprefix('Value error, ')}") from None


def _refuse_unknown_variables(kinds: tuple[type[HostingSettings], ...]) -> None:
    known = {f"{ENVIRONMENT_PREFIX}{name}".upper() for kind in kinds for name in kind.model_fields}
    for variable in sorted(os.environ):
        if variable.upper().startswith(ENVIRONMENT_PREFIX) and variable.upper() not in known:
            raise StartError(f"{variable}: there is no such setting")
