"""Serving: from services to answered connections, and back to nothing in an orderly way.

Everything a server does between its first socket and its last connection. Processes and signals stand in process.py.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from functools import partial
from math import ceil
from typing import TypeAlias

import trio

from .addresses import Addresses, Doors
from .binding import Address, Listener, bind, raise_file_limit
from .errors import name_of, place_of
from .guard import Crowds, Deadlines, Guard, check_patch_points
from .logs import log
from .metrics import Handler, ProcessMetrics, listen_for_metrics, serving_metrics, url_of
from .rates import Rates
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
        metrics_listeners = await listen_for_metrics(settings)
        for listener in metrics_listeners:
            stack.push_async_callback(listener.aclose)
        services = [await stack.enter_async_context(opening) for opening in open_services(address.origins)]
        guard = Guard(make_app(services, _request_rates(settings)), max_connections, deadlines, _crowds(settings))
        process = ProcessMetrics()
        registries = [process.registry, *(service.registry for service in services)]
        await stack.enter_async_context(serving_metrics(metrics_listeners, registries))
        address = replace(address, metrics=url_of(metrics_listeners))
        async with trio.open_nursery() as connections:
            try:
                handle = process.counting(guard.handle)
                await _accept_until(stop, handle, listeners, connections, partial(task_status.started, address))
                with trio.move_on_after(settings.drain_seconds):
                    await _drain(services, guard)
            finally:
                guard.cut_off()


def _crowds(settings: HostingSettings) -> Crowds:
    most = settings.max_connections_per_block
    # All of a block may come at once, such as after a restart; but not again and again.
    doors = Doors(most, Rates(settings.connections_per_second, burst=most))
    return Crowds(Addresses(settings.trusted_proxies), doors)


def _request_rates(settings: HostingSettings) -> Rates:
    return Rates(settings.requests_per_second, burst=ceil(4 * settings.requests_per_second))


async def _accept_until(
    stop: trio.Event,
    handle: Handler,
    listeners: list[Listener],
    connections: trio.Nursery,
    started: Callable[[], None],
) -> None:
    async with trio.open_nursery() as accepting:
        accepting.start_soon(partial(trio.serve_listeners, handle, listeners, handler_nursery=connections))
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
