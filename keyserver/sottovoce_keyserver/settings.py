"""The keyserver's settings: what every server has, and where its users' queues live."""

from pydantic import Field, field_validator

from sottovoce_hosting.settings import HostingSettings, canonical_origin


class KeyserverSettings(HostingSettings):
    """Everything that can be chosen about a keyserver."""

    relay_url: str | None = Field(
        default=None,
        description="The address of the relay that these clients use, such as https://relay.example; else this one.",
    )

    _canonical_relay = field_validator("relay_url")(canonical_origin)
