"""Fixtures of the SDK's tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

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
