"""The relay's settings: what every server has, who may make queues, and what these may hold: at most the protocol's
limits."""

from collections.abc import Mapping
from typing import Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from sottovoce_hosting.settings import HostingSettings
from sottovoce_wire import limits
from sottovoce_wire.frames import Ttl

from .envelopes import Quotas

#: A first frame later than this is Goodbye(TOO_SLOW). Below the 10 seconds after which the server itself hangs up.
FIRST_FRAME_SECONDS: Final = 9
#: A connection on which nothing was heard for so long is Goodbye(TOO_SLOW); clients ping every 30 seconds.
IDLE_SECONDS: Final = 120
#: How long a connection may take to hear Goodbye and go.
GOODBYE_SECONDS: Final = 5
#: An envelope is never delivered after its time, and deleted so much later: an acknowledgement that is on its way when
#: the time runs out still counts, and is not reported as a loss.
SWEEP_GRACE_SECONDS: Final = IDLE_SECONDS
#: Between two sweeps, and between two batches of one.
SWEEP_SECONDS: Final = 30
SWEEP_PAUSE_SECONDS: Final = 0.05
#: A wall clock that moved by more against the monotonic clock, between two looks, has jumped; and how long it is then
#: not believed.
JUMP_SECONDS: Final = 5 * 60
CALM_SECONDS: Final = 10 * 60
#: How long what was deleted may stand in the database's log.
LOG_SECONDS: Final = 5
#: Seconds of a day: queues remember the day on which their owner was seen, and no more.
DAY: Final = 86_400
#: Characters of a code: fewer could be guessed.
_MIN_CODE: Final = 16


class RelaySettings(HostingSettings):
    """Everything that can be chosen about a relay."""

    registration: Literal["open", "invite", "closed"] = Field(
        default="open",
        description="Who may make queues: open (anybody), invite (who knows the code) or closed (nobody).",
    )
    registration_code: SecretStr | None = Field(
        default=None, description="The secret code for invite, at least 16 characters."
    )
    max_envelope: int = Field(
        default=limits.MAX_ENVELOPE, ge=1024, le=limits.MAX_ENVELOPE, description="Bytes of an envelope, at most."
    )
    queue_envelopes: int = Field(
        default=limits.QUEUE_ENVELOPES, ge=1, le=limits.QUEUE_ENVELOPES, description="Envelopes in a queue, at most."
    )
    queue_bytes: int = Field(
        default=limits.QUEUE_BYTES,
        ge=limits.MAX_ENVELOPE,
        le=limits.QUEUE_BYTES,
        description="Bytes of all envelopes in a queue, at most.",
    )

    max_lifetime: int = Field(
        default=30 * limits.DAY, ge=1, le=30 * limits.DAY, description="Seconds that any envelope is kept, at most."
    )
    idle_queue_days: int = Field(
        default=90, ge=31, description="Days without their owner after which queues are deleted."
    )
    queues_per_hour: int = Field(
        default=60, ge=1, description="New queues an hour from one address block, after a burst as large."
    )
    queue_min_free_bytes: int = Field(
        default=256 * limits.MIB, ge=0, description="Free bytes on the disk below which no new queue is made."
    )
    hold_ms: int = Field(
        default=25,
        ge=0,
        le=1000,
        description="Milliseconds that an envelope for a connected owner is kept from the disk, at most; 0 writes all.",
    )
    connection_rate: float = Field(
        default=1000,
        gt=0,
        description="Envelopes a second that one connection may send, after a burst of ten times that.",
    )
    address_rate: float = Field(default=5000, gt=0, description="The same for one address block.")
    stranger_rate: float = Field(
        default=20, gt=0, description="Envelopes a second into one queue under stranger and demoted keys; burst 2,000."
    )
    invite_rate: float = Field(default=20, gt=0, description="The same under one invite key; burst 500.")
    contact_rate: float = Field(default=1000, gt=0, description="The same under contact and group keys; burst 10,000.")

    @field_validator("registration_code")
    @classmethod
    def _code_can_be_given(cls, code: SecretStr | None) -> SecretStr | None:
        if code is None:
            return None
        text = code.get_secret_value()
        if not text.isprintable() or not _MIN_CODE <= len(text) <= limits.MAX_REGISTRATION_CODE:
            raise ValueError(f"a code has {_MIN_CODE} to {limits.MAX_REGISTRATION_CODE} printable characters")
        return code

    @model_validator(mode="after")
    def _code_and_invite_go_together(self) -> Self:
        if self.registration == "invite" and self.registration_code is None:
            raise ValueError('registration = "invite" needs a registration_code, or a registration_code_file')
        if self.registration == "open" and self.registration_code is not None:
            raise ValueError('registration_code keeps nobody out unless registration = "invite"')
        return self

    @property
    def lifetimes(self) -> Mapping[Ttl, int]:
        """Seconds that an envelope of each class is kept."""
        return {ttl: min(ttl.seconds, self.max_lifetime) for ttl in Ttl}

    @property
    def quotas(self) -> Quotas:
        """What one queue may hold."""
        return Quotas(max_envelope=self.max_envelope, envelopes=self.queue_envelopes, size=self.queue_bytes)
