"""The relay as a service of a process: opens its database, puts the parts together, offers the WebSocket.

What is done with a connection stands in gateway.py, with an envelope in intake.py and writer.py, with an expired one in
sweeper.py.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio
from quart_trio import QuartTrio

from sottovoce_hosting.database import Database, open_database
from sottovoce_hosting.rates import Rates
from sottovoce_hosting.service import Origins, Service, WebSocketHandler
from sottovoce_wire import limits
from sottovoce_wire.frames import KeyClass

from . import storage
from .bus import Bus
from .gateway import Gateway, Relay
from .inbox import Inbox
from .intake import Intake, Terms
from .mailboxes import Mailboxes
from .metrics import Metrics
from .registration import Registration
from .settings import RelaySettings
from .space import Space
from .sweeper import SteadyClock, Sweeper, empty_log_for_ever
from .writer import Writer

PATH: Final = "/v1/relay"
#: The database's file in the data folder, and the revisions of its tables.
DATABASE: Final = "relay.db"
MIGRATIONS: Final = Path(__file__).with_name("migrations")
_HOUR: Final = 3600


class RelayService:
    """A running relay, as its process sees it. Made by `open_relay`."""

    name = "relay"

    def __init__(self, relay: Relay, gateway: Gateway, space: Space, drain_seconds: float) -> None:
        self.registry = relay.metrics.registry
        self.websockets: dict[str, WebSocketHandler] = {PATH: gateway.serve}
        self._gateway = gateway
        self._intake = relay.intake
        self._writer = relay.writer
        self._space = space
        self._drain_seconds = drain_seconds

    def add_routes(self, app: QuartTrio) -> None:
        """The relay has no HTTP routes of its own."""

    def not_ready(self) -> str | None:
        """Why envelopes cannot be taken in now, or None."""
        return self._writer.failure or ("the disk is nearly full: free some space" if self._space.is_short else None)

    async def drain(self) -> None:
        """Answer what was asked, say Goodbye to everybody, and write what still came. At most `drain_seconds` long.

        Cancellation: waits for its deadline all the same.
        """
        with trio.move_on_after(self._drain_seconds, shield=True):
            self._intake.let_go_all()
            await self._writer.flush()
            await self._gateway.drain()
            await self._writer.flush()


@asynccontextmanager
async def open_relay(
    settings: RelaySettings, origins: Origins, clock: Callable[[], float] = time.time
) -> AsyncIterator[Service]:
    """Open the relay whose data is in `settings.data`; it runs while the block does. `clock` gives unix seconds.

    Raises LockHeld if another process has it open, DatabaseError if it cannot be opened.
    """
    async with open_database(settings.data / DATABASE, MIGRATIONS) as database, trio.open_nursery() as nursery:
        first_seq = 1 + await database.read(storage.last_seq)
        space = Space(settings.data, settings.queue_min_free_bytes)
        space.look()
        relay = _assemble(settings, origins, clock, database, space, first_seq)
        _show(relay)
        gateway = Gateway(relay)
        sweeper = Sweeper(
            relay.writer, relay.mailboxes, relay.bus, relay.metrics, SteadyClock(clock), settings.idle_queue_days
        )
        nursery.start_soon(relay.writer.run)
        nursery.start_soon(relay.intake.let_go_for_ever)
        nursery.start_soon(space.watch_for_ever)
        nursery.start_soon(sweeper.sweep_for_ever)
        nursery.start_soon(empty_log_for_ever, database, relay.writer)
        yield RelayService(relay, gateway, space, settings.drain_seconds)
        nursery.cancel_scope.cancel()


def _assemble(
    settings: RelaySettings,
    origins: Origins,
    clock: Callable[[], float],
    database: Database,
    space: Space,
    first_seq: int,
) -> Relay:
    bus, inbox, mailboxes, metrics = Bus(), Inbox(), Mailboxes(), Metrics(trio.current_time)
    intake = Intake(mailboxes, bus, inbox, terms_of(settings), metrics, space, clock, first_seq)
    registration = Registration(
        settings.registration,
        settings.registration_code.get_secret_value() if settings.registration_code else None,
        Rates(settings.queues_per_hour / _HOUR, settings.queues_per_hour),
        lambda: space.takes_queues,
    )
    return Relay(
        origins=origins,
        max_envelope=settings.max_envelope,
        clock=clock,
        database=database,
        bus=bus,
        inbox=inbox,
        mailboxes=mailboxes,
        intake=intake,
        writer=Writer(database, inbox, intake, mailboxes, bus, metrics, space.drop_ballast, clock),
        registration=registration,
        metrics=metrics,
        connection_rates=Rates(settings.connection_rate, round(10 * settings.connection_rate)),
        block_rates=Rates(settings.address_rate, round(10 * settings.address_rate)),
    )


def terms_of(settings: RelaySettings) -> Terms:
    """What the relay grants, as it is configured."""
    contact = Rates(settings.contact_rate, limits.QUEUE_ENVELOPES)
    return Terms(
        quotas=settings.quotas,
        lifetimes=settings.lifetimes,
        hold_seconds=settings.hold_ms / 1000,
        rates={
            KeyClass.STRANGER: Rates(settings.stranger_rate, limits.STRANGER_ENVELOPES),
            KeyClass.INVITE: Rates(settings.invite_rate, limits.INVITE_ENVELOPES),
            KeyClass.CONTACT: contact,
            KeyClass.GROUP: contact,
        },
    )


def _show(relay: Relay) -> None:
    gauge = relay.metrics.gauge
    gauge("sottovoce_relay_received_queues", "Queues whose owner is connected.", lambda: len(relay.bus))
    gauge("sottovoce_relay_waiting", "What waits for the writer.", lambda: len(relay.inbox))
    gauge("sottovoce_relay_held_bytes", "Bytes of envelopes kept from the disk.", lambda: relay.intake.held_bytes)
    gauge("sottovoce_relay_mailboxes", "Queues in memory.", lambda: len(relay.mailboxes))
