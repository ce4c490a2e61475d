"""The pytest fixture `sottovoce_world`: in a conftest.py, `pytest_plugins = ["sottovoce.testing.fixtures"]`.

Needs pytest and pytest-trio; nothing else of this package does.
"""

from collections.abc import AsyncIterator

import pytest

from .world import World, world


@pytest.fixture
async def sottovoce_world() -> AsyncIterator[World]:
    """A new world for each test. A test that asks for pytest-trio's `autojump_clock` too waits for nothing."""
    async with world() as made:
        yield made
