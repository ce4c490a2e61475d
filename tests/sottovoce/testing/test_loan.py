"""A store in memory goes from client to client, and each reaches it for its own time only."""

import pytest

from sottovoce import errors
from sottovoce.store.contract import StoreContract
from sottovoce.store.database import open_memory_store
from sottovoce.testing.loan import Loan


def test_a_store_keeps_what_one_client_wrote_for_the_next() -> None:
    store = open_memory_store()
    first: StoreContract = Loan(store)
    with first.transaction() as tables:
        assert first.is_in_transaction
        tables.prekeys.make_one_time(3)
    first.close()
    second = Loan(store)
    with second.transaction() as tables:
        assert len(tables.prekeys.unpublished(10)) == 3
    store.close()


def test_a_client_that_is_closed_reaches_its_store_no_more() -> None:
    store = open_memory_store()
    loan = Loan(store)
    loan.close()
    loan.close()
    with pytest.raises(errors.StoreFailed):
        loan.transaction()
    assert not Loan(store).is_in_transaction
    store.close()
