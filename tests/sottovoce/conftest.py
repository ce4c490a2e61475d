"""Fixtures of the SDK's tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sottovoce import backoff
from tests.servers import ServerProcess, running_server
from tests.sottovoce.people import Person, make_person


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Callable[[str], Person]]:
    """Makes people, each on a store file of the name given."""
    with ExitStack() as open_stores:

        def make(name: str) -> Person:
            made = make_person(tmp_path / f"{name}.db")
            open_stores.callback(made.store.close)
            return made

        yield make


@pytest.fixture
def alice(person: Callable[[str], Person]) -> Person:
    """A person."""
    return person("alice")


@pytest.fixture
def bob(person: Callable[[str], Person]) -> Person:
    """Another."""
    return person("bob")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A running server process of this test's own."""
    with running_server(tmp_path / "server") as process:
        yield process


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A running server process that the tests of a module share; they take names of their own."""
    with running_server(tmp_path_factory.mktemp("shared") / "server") as process:
        yield process


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that try again at once, so that no test waits for them."""
    monkeypatch.setattr(backoff, "FIRST", 0.02)
    monkeypatch.setattr(backoff, "LONGEST", 0.1)
