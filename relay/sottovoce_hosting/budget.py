"""Bytes that many connections may hold together. Who holds what, and who waits, is decided by them."""

import trio


class Budget:
    """Once more than `size` bytes are held, it is spent until a quarter is free. Those that hold little go on: all
    together hold at most `size`, and a little for each."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held = 0
        self._is_spent = False
        self._waiting = trio.lowlevel.ParkingLot()
        self._others: set[trio.lowlevel.ParkingLot] = set()

    @property
    def held(self) -> int:
        """Bytes that are held now."""
        return self._held

    @property
    def is_spent(self) -> bool:
        """Whether those that hold much have to wait."""
        return self._is_spent

    def change(self, by: int) -> None:
        """Hold so many bytes more, or give them back."""
        self._held += by
        if self._held > self._size:
            self._is_spent = True
        elif self._is_spent and self._held <= self._size * 3 // 4:
            self._is_spent = False
            self._waiting.unpark_all()
            while self._others:
                self._others.pop().unpark_all()

    async def wait_for_room(self) -> None:
        """Wait until it is not spent. Cancellation: nothing changes."""
        while self._is_spent:
            await self._waiting.park()

    def wake(self, lot: trio.lowlevel.ParkingLot) -> None:
        """Unpark this lot, once, when it is not spent any more: for who waits for something else as well."""
        self._others.add(lot)
