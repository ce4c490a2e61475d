"""What the pages' tests share: a server, and the testing kit's own fixtures."""

from collections.abc import Iterator

import pytest

from sottovoce.testing.fixtures import sottovoce_aio_world as sottovoce_aio_world
from sottovoce.testing.fixtures import sottovoce_sync_world as sottovoce_sync_world
from sottovoce.testing.fixtures import sottovoce_world as sottovoce_world
from tests.servers import running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server for all tests of a file: each uses names of its own."""
    with running_server(tmp_path_factory.mktemp("docs") / "server") as running:
        yield running.url
