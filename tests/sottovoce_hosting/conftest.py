"""A served probe for every test that needs connections."""

from functools import partial

import pytest
import trio

from tests.sottovoce_hosting.probe import Start, start_probe


@pytest.fixture
def start(nursery: trio.Nursery) -> Start:
    return partial(start_probe, nursery)
