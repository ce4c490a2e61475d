"""Servers for the tests of a file, without the limits that strangers meet: the tests take names of their own."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sottovoce.testing.fixtures import sottovoce_world as sottovoce_world
from tests.faults.sdk.between import BEHIND
from tests.relay_clients import UNLIMITED
from tests.servers import ServerProcess
from tests.sottovoce.conftest import impatient as impatient


@contextmanager
def unlimited_server(factory: pytest.TempPathFactory, **settings: str) -> Iterator[ServerProcess]:
    """A server process of its own data, with these settings besides."""
    process = ServerProcess(factory.mktemp("world") / "server")
    given = {f"SOTTOVOCE_SERVER_{name.upper()}": value for name, value in {"log_level": "warning", **settings}.items()}
    try:
        with pytest.MonkeyPatch.context() as environment:
            for name, value in {**UNLIMITED, **given}.items():
                environment.setenv(name, value)
            process.start()
        yield process
    finally:
        process.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The server that clients know."""
    with unlimited_server(tmp_path_factory) as process:
        yield process


@pytest.fixture(scope="module")
def hidden_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server where no client looks for it: `between.bad_server` stands before it."""
    with unlimited_server(tmp_path_factory, host=BEHIND) as process:
        yield process
