"""A bench collects garbage before each measurement. Here that would go through all that a thousand tests have left."""

import gc

import pytest


@pytest.fixture(autouse=True, scope="module")
def _short_collections() -> None:
    gc.collect()
    gc.freeze()
