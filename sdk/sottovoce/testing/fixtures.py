"""The pytest fixtures of worlds: in a conftest.py, `pytest_plugins = ["sottovoce.testing.fixtures"]`.

Needs pytest, and `sottovoce_world` pytest-trio; nothing else of this package does.
"""

from collections.abc import AsyncIterator, Iterator

import pytest

from .faces import AioWorld, SyncWorld, aio_world, sync_world
from .world import World, world


@pytest.fixture
async def sottovoce_world() -> AsyncIterator[World]:
    """A new world for each test. A test that asks for pytest-trio's `autojump_clock` too waits for nothing."""
    async with world() as made:
        yield made


@pytest.fixture
def sottovoce_sync_world() -> Iterator[SyncWorld]:
    """A new world for each test of a program that blocks."""
    with sync_world() as made:
        yield made


@pytest.fixture
def sottovoce_aio_world() -> Iterator[AioWorld]:
    """A new world for each test of a program that runs on asyncio, whichever plugin runs it, if any."""
    with aio_world() as made:
        yield made
