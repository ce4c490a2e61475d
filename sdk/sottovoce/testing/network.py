"""A network without sockets: it leads the clients of one process to a relay and a keyserver in memory.

A `sottovoce.network.Network` for each person. No thread, and no timer but for a slow network: what is sent has arrived.
"""

import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from .. import _http, errors
from ..network import Http, Link
from .bad_keyserver import KeyserverFaults
from .clock import Clock
from .faults import Faults
from .keyserver import MemoryKeyserver
from .relay import Envelope, MemoryRelay
from .wire import Asked, Wire

#: The origin of the servers of every world.
ORIGIN: Final = "https://sottovoce.test"
#: Seconds after which clients give a request up.
PATIENCE: Final = _http.CONNECT_TIMEOUT + _http.ANSWER_WITHIN


class MemoryNetwork:
    """The servers of one world, at `ORIGIN`, and everybody's connections to them. `nursery` is where delays wait."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.wire = Wire()
        self.clock = Clock(lambda: self.relay.sweep())
        self.keyserver = MemoryKeyserver(ORIGIN, ORIGIN, self.clock.now)
        self.faults = Faults(
            self._recipient_of,
            lambda kept: self.relay.keep(kept),
            self._later,
            self._hang_up,
            KeyserverFaults(self.keyserver),
        )
        self.relay = MemoryRelay(ORIGIN, self.clock.now, self.faults.tamper)
        self.nursery = nursery
        self._links: set[_Link] = set()

    def of(self, who: str) -> "Way":
        """The network as one person's client sees it."""
        return Way(self, who)

    def dial(self, who: str, origin: str) -> "_Link":
        """Connect somebody to the relay. Raises ServerUnreachable."""
        if origin != ORIGIN or self.faults.is_offline(who):
            raise errors.ServerUnreachable(f"nothing answers at {origin}")
        link = _Link(self, who)
        self._links.add(link)
        return link

    def ended(self, link: "_Link") -> None:
        """The link is over."""
        self._links.discard(link)

    def ask(self, who: str, origin: str, method: str, path: str, body: bytes, headers: dict[str, str]) -> Asked:
        """Ask the keyserver. Raises ServerUnreachable."""
        if origin != ORIGIN or self.faults.is_offline(who) or self.faults.keyserver.is_away(who):
            raise errors.ServerUnreachable(f"no answer from {origin}")
        status, answer = self.faults.keyserver.answer(who, method, path, body, headers)
        asked = Asked(self.clock.now(), who, path, body, status, answer)
        self.wire.asked(asked)
        return asked

    def _recipient_of(self, envelope: Envelope) -> str | None:
        return self.wire.owner_of(envelope.queue)

    def _later(self, seconds: float, envelope: Envelope) -> None:
        async def wait() -> None:
            await trio.sleep(seconds)
            self.relay.keep([envelope])

        self.nursery.start_soon(wait)

    def _hang_up(self, who: str | None) -> None:
        for link in [link for link in self._links if who in (None, link.who)]:
            link.cut()


class Way:
    """One person's way to the servers: a `sottovoce.network.Network`."""

    def __init__(self, network: MemoryNetwork, who: str) -> None:
        self._network = network
        self._who = who

    async def with_link(self, origin: str, own: str, talk: Callable[[Link], Awaitable[None]]) -> None:
        """As `Network.with_link`."""
        await trio.lowlevel.checkpoint()
        link = self._network.dial(self._who, origin)
        try:
            await talk(link)
        finally:
            link.close()

    def http(self, origin: str) -> Http:
        """As `Network.http`."""
        return _Requests(self._network, self._who, origin)


class _Link:
    """A connection to the relay. What the relay pushes is bounded by the credit that the client gave."""

    def __init__(self, network: MemoryNetwork, who: str) -> None:
        self.who = who
        self._network = network
        self._pushed, self._arriving = trio.open_memory_channel[bytes](math.inf)
        self._connection = network.relay.connect(who, self._push)
        self._out, self._in = _Line(network, who), _Line(network, who)
        self._over = False

    async def send(self, message: bytes) -> None:
        """As `Link.send`."""
        await trio.lowlevel.checkpoint()
        if self._over:
            raise _lost()
        self._network.wire.said(self._network.clock.now(), self.who, message)
        self._out.carry(lambda: self._connection.hear(message))

    async def receive(self) -> bytes:
        """As `Link.receive`."""
        try:
            return await self._arriving.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise _lost() from None

    def close(self) -> None:
        """Hang up: the relay learns of it after what was said before, and what it says meanwhile is lost."""
        self._over = True
        self._pushed.close()
        self._arriving.close()
        self._out.carry(self._connection.close)

    def cut(self) -> None:
        """End it, as a network does: without a word, and what is under way is lost."""
        self._out.lose()
        self._connection.close()
        self._in.lose()
        self._hear(None)
        self._arriving.close()

    def _push(self, message: bytes | None) -> None:
        if message is not None:
            self._network.wire.heard(self._network.clock.now(), self.who, message)
        self._in.carry(lambda: self._hear(message))

    def _hear(self, message: bytes | None) -> None:
        if message is None:
            self._over = True
            self._pushed.close()
            self._network.ended(self)
        elif not self._over:
            self._pushed.send_nowait(message)


class _Line:
    """One direction of somebody's connection: all arrives in order, at once unless the network is slow."""

    def __init__(self, network: MemoryNetwork, who: str) -> None:
        self._network = network
        self._who = who
        self._under_way: deque[tuple[float, Callable[[], None]]] = deque()

    def carry(self, arrive: Callable[[], None]) -> None:
        takes = self._network.faults.takes(self._who)
        if takes == 0 and not self._under_way:
            arrive()
            return
        self._under_way.append((trio.current_time() + takes, arrive))
        if len(self._under_way) == 1:
            self._network.nursery.start_soon(self._run)

    def lose(self) -> None:
        """What is under way never arrives."""
        self._under_way.clear()

    async def _run(self) -> None:
        while self._under_way:
            first = due, arrive = self._under_way[0]
            await trio.sleep_until(due)
            if self._under_way and self._under_way[0] is first:  # not lost meanwhile
                self._under_way.popleft()
                arrive()


class _Requests:
    """Requests to the keyserver."""

    def __init__(self, network: MemoryNetwork, who: str, origin: str) -> None:
        self._network = network
        self._who = who
        self._origin = origin

    async def request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """As `Http.request`."""
        await trio.lowlevel.checkpoint()
        takes = self._network.faults.keyserver.takes(self._who)
        asked = self._network.ask(self._who, self._origin, method, path, body, headers)
        if takes:
            await trio.sleep(min(takes, PATIENCE))
        if takes > PATIENCE:
            raise errors.ServerUnreachable(f"no answer from {self._origin}")
        return asked.status, asked.answer

    async def aclose(self) -> None:
        """Nothing is open."""


def _lost() -> errors.ServerUnreachable:
    return errors.ServerUnreachable(f"the connection to {ORIGIN} was lost")
