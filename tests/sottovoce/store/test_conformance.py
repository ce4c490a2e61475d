"""The stores of this project keep the contract of stores; and its suite notices one that does not."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sottovoce.store.account import RootLock
from sottovoce.store.contract import StoreContract
from sottovoce.store.database import Store, Tables, open_memory_store, open_store
from sottovoce.store.unlock import Passphrase
from sottovoce.testing.store_conformance import StoreConformance


class TestFile(StoreConformance):
    @pytest.fixture(autouse=True)
    def _path(self, tmp_path: Path) -> None:
        self.path = tmp_path / "store.db"

    def open(self) -> StoreContract:
        return open_store(self.path)


class TestFileWithAPassphrase(TestFile):
    def open(self) -> StoreContract:
        return open_store(self.path, Passphrase("correct horse"))


class TestMemory(StoreConformance):
    def open(self) -> StoreContract:
        return open_memory_store()


class Forgetful(Store):
    """What is kept in memory does not follow when rows are taken back."""

    def _taken_back(self, *_: object) -> None:
        pass


class Hasty(Store):
    """What a block wrote before it raised is committed."""

    @contextmanager
    def transaction(self) -> Iterator[Tables]:
        raised = None
        with super().transaction() as tables:
            try:
                yield tables
            except Exception as error:
                raised = error
        if raised is not None:
            raise raised


@pytest.mark.parametrize(
    ("kind", "caught"),
    [
        (Forgetful, "test_a_ratchet_that_moved_in_a_transaction_that_failed_has_not_moved"),
        (Forgetful, "test_the_table_of_tags_follows_what_is_taken_back"),
        (Hasty, "test_a_transaction_that_raises_leaves_nothing_and_the_next_one_works"),
        (Store, None),
    ],
)
def test_the_suite_notices_a_store_that_does_not_keep_it(kind: type[Store], caught: str | None) -> None:
    opened: list[Store] = []

    class Suite(StoreConformance):
        def open(self) -> StoreContract:
            opened.append(kind(open_memory_store()._connection, RootLock(bytes(32))))
            return opened[-1]

    failed = set()
    for name in dir(Suite):
        if name.startswith("test_"):
            try:
                getattr(Suite(), name)()
            except AssertionError:
                failed.add(name)
    for store in opened:
        store.close()
    assert (caught in failed) if caught else failed == set()
