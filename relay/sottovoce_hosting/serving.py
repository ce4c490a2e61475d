"""Serving: from services to answered connections, and back to nothing in an orderly way.

Everything a server does between its first socket and its last connection. Processes and signals stand in process.py.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import TypeAlias

import trio

from .binding import Address, Listener, bind, raise_file_limit
from .errors import name_of, place_of
from .guard import Deadlines, Guard, check_patch_points
from .logs import log
from .service import Origins, Service
from .settings import HostingSettings
from .web import make_app

#: Makes the services of a process, still closed, once it is known where the process is reached.
OpenServices: TypeAlias = Callable[[Origins], Sequence[AbstractAsyncContextManager[Service]]]


async def serve(
    open_services: OpenServices,
    settings: HostingSettings,
    *,
    stop: trio.Event,
    deadlines: Deadlines = Deadlines(),  # noqa: B008 - frozen
    task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Bind, open the services, and serve until `stop` is set; then drain, close, and return.

    For `nursery.start`: its value is the Address, once connections are answered. Raises StartError, and what opening a
    service raises (perhaps in exception groups). Cancellation: connections are cut off, services are closed.
    """
    check_patch_points()
    max_connections = raise_file_limit(settings.max_connections)
    async with AsyncExitStack() as stack:
        listeners, address = await bind(settings)
        for listener in listeners:
            stack.push_async_callback(listener.aclose)
        services = [await stack.enter_async_context(opening) for opening in open_services(address.origins)]
        guard = Guard(make_app(services), max_connections, deadlines)
        async with trio.open_nursery() as connections:
            try:
                await _accept_until(stop, guard, listeners, connections, partial(task_status.started, address))
                with trio.move_on_after(settings.drain_seconds):
                    await _drain(services, guard)
            finally:
                guard.cut_off()


async def _accept_until(
    stop: trio.Event,
    guard: Guard,
    listeners: list[Listener],
    connections: trio.Nursery,
    started: Callable[[], None],
) -> None:
    async with trio.open_nursery() as accepting:
        accepting.start_soon(partial(trio.serve_listeners, guard.handle, listeners, handler_nursery=connections))
        started()
        await stop.wait()
        accepting.cancel_scope.cancel()


async def _drain(services: Sequence[Service], guard: Guard) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(guard.retire)
        for service in services:
            nursery.start_soon(_drain_one, service)
    await guard.wait_empty()


async def _drain_one(service: Service) -> None:
    try:
        await service.drain()
    except* Exception as errors:
        log.error("a service failed while draining", service=service.name, error=name_of(errors), at=place_of(errors))
