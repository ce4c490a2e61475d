"""What a client needs of a store, whoever keeps it. `sottovoce.testing.store_conformance` tries whether it is
kept."""

from contextlib import AbstractContextManager
from typing import Protocol

from .database import Tables


class StoreContract(Protocol):
    """A store of one device. Not for two threads at once: its owner runs one transaction after another."""

    @property
    def is_restored(self) -> bool:
        """Whether this opening found that the store was put back from a copy. Then it has started anew already."""

    @property
    def is_in_transaction(self) -> bool:
        """Whether one is open."""

    def transaction(self) -> AbstractContextManager[Tables]:
        """All that the block writes becomes durable when it ends, or nothing if it raises; what is kept in memory
        follows. Raises StoreFailed."""

    def tidy(self) -> None:
        """Leave nothing readable of what was wiped. Raises StoreFailed."""

    def close(self) -> None:
        """Let others open it. Closing twice does nothing."""
