"""A store in memory that outlives its clients: each borrows it, so that a person can crash and come back."""

from contextlib import AbstractContextManager

from .. import errors
from ..store.database import Store, Tables


class Loan:
    """A store lent to one client: once that is closed, the store is out of its reach, and stays open.

    A `StoreContract`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._is_over = False

    def transaction(self) -> AbstractContextManager[Tables]:
        """As `StoreContract.transaction`. Raises StoreFailed once the loan is over."""
        if self._is_over:
            raise errors.StoreFailed("the client has been closed")
        return self._store.transaction()

    @property
    def is_restored(self) -> bool:
        """As `StoreContract.is_restored`: nobody keeps copies."""
        return False

    @property
    def is_in_transaction(self) -> bool:
        """As `StoreContract.is_in_transaction`."""
        return self._store.is_in_transaction

    def tidy(self) -> None:
        """There is no log."""

    def close(self) -> None:
        """Give the store back."""
        self._is_over = True
