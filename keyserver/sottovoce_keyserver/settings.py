"""The keyserver's settings: what every server has, and where its users' queues live."""

from pydantic import field_validator

from sottovoce_hosting.settings import HostingSettings, canonical_origin


class KeyserverSettings(HostingSettings):
    """Everything that can be chosen about a keyserver."""

    #: The origin of the relay that clients of this keyserver use; None for the keyserver's own.
    relay_url: str | None = None

    _canonical_relay = field_validator("relay_url")(canonical_origin)
