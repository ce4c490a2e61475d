"""Settings that every server has: their names, what they mean, their defaults and bounds.

Only data: where values come from stands in configuration.py. Nothing here touches the network or the disk.
"""

import ipaddress
from pathlib import Path
from typing import Final, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from sottovoce_wire.errors import WireError
from sottovoce_wire.origins import parse_origin

from .addresses import Network
from .logs import Level

ENVIRONMENT_PREFIX: Final = "SOTTOVOCE_SERVER_"
DEFAULT_PORT: Final = 8480


def canonical_origin(url: str | None) -> str | None:
    """A setting that is an origin, in its canonical spelling. Raises ValueError that says the rule."""
    try:
        return None if url is None else parse_origin(url)
    except WireError as error:
        raise ValueError(error.detail) from None


class HostingSettings(BaseSettings):
    """Where a server keeps its data and where it is reached. A server adds its own fields by subclassing.

    Descriptions are what `--help` says of a setting. A field that may be a SecretStr can be given as a file, too.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        enable_decoding=False,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    data: Path = Field(default=Path("sottovoce-data"), description="The folder of the databases; made if missing.")
    host: str = Field(
        default="127.0.0.1", description="The interface to listen on. Any but loopback needs the public URL."
    )
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65535, description="The port; 0 takes a free one.")
    public_url: str | None = Field(
        default=None,
        description="The address that clients use, such as https://chat.example: what their signatures name.",
    )
    tls_cert: Path | None = Field(
        default=None, description="Certificate chain (PEM): with it and the key, the server speaks TLS itself."
    )
    tls_key: Path | None = Field(default=None, description="Private key of the certificate (PEM).")
    log_level: Level = Field(default="info", description="The least that is logged: debug, info, warning or error.")
    max_connections: int = Field(
        default=10_000, ge=1, description="Open connections at a time; fewer if the system allows fewer files."
    )
    max_connections_per_block: int = Field(
        default=256, ge=1, description="Open connections at a time from one address (IPv6: one /64); not of proxies."
    )
    connections_per_second: float = Field(
        default=20, gt=0, description="New connections a second from one address block, after a first burst of all."
    )
    requests_per_second: float = Field(
        default=50, gt=0, description="HTTP requests a second from one address block, after a burst of four times that."
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=(), description="Networks of proxies whose X-Forwarded-For is believed, such as 10.0.0.0/8."
    )
    drain_seconds: float = Field(
        default=10, gt=0, description="Seconds that clients and databases get to finish when the server has to stop."
    )
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535, description="The port for GET /metrics (Prometheus); 0 takes a free one."
    )
    metrics_host: str = Field(default="127.0.0.1", description="The loopback address on which metrics are served.")

    _canonical_public_url = field_validator("public_url")(canonical_origin)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Nothing but what is handed over: configuration.py reads the rest, and knows where each value came from."""
        return (init_settings,)

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split(cls, proxies: object) -> object:
        """In a variable they stand side by side, with commas."""
        return proxies.replace(",", " ").split() if isinstance(proxies, str) else proxies

    @field_validator("metrics_host")
    @classmethod
    def _metrics_stay_here(cls, host: str) -> str:
        address = "127.0.0.1" if host == "localhost" else host
        try:
            is_loopback = ipaddress.ip_address(address).is_loopback
        except ValueError:
            is_loopback = False
        if not is_loopback:
            raise ValueError("metrics are for this machine only: 127.0.0.1 or ::1")
        return address

    @field_validator("data")
    @classmethod
    def _home_is_a_folder(cls, folder: Path) -> Path:
        return folder.expanduser()

    @model_validator(mode="after")
    def _metrics_have_their_own_port(self) -> Self:
        if self.metrics_port and self.metrics_port == self.port:
            raise ValueError("metrics_port must be another one than port")
        return self

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        if self.tls_cert is not None and self.public_url is None:
            raise ValueError("with tls_cert, public_url says which https address the certificate is for")
        return self
