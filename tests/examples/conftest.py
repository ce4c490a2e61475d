"""Fixtures of the examples' tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import ServerProcess, running_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A running server process of this test's own."""
    with running_server(tmp_path / "server") as process:
        yield process
