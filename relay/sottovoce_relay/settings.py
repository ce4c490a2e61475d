"""The relay's settings: what every server has, and what its queues may hold. At most the protocol's limits."""

from typing import Final

from pydantic import Field

from sottovoce_hosting.settings import HostingSettings
from sottovoce_wire import limits

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


class RelaySettings(HostingSettings):
    """Everything that can be chosen about a relay."""

    max_envelope: int = Field(default=limits.MAX_ENVELOPE, ge=1024, le=limits.MAX_ENVELOPE)
    queue_envelopes: int = Field(default=limits.QUEUE_ENVELOPES, ge=1, le=limits.QUEUE_ENVELOPES)
    queue_bytes: int = Field(default=limits.QUEUE_BYTES, ge=limits.MAX_ENVELOPE, le=limits.QUEUE_BYTES)

    @property
    def quotas(self) -> Quotas:
        """What one queue may hold."""
        return Quotas(max_envelope=self.max_envelope, envelopes=self.queue_envelopes, size=self.queue_bytes)
