"""When the sweeper believes the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from sottovoce_relay.settings import CALM_SECONDS, JUMP_SECONDS
from sottovoce_relay.sweeper import SteadyClock

if TYPE_CHECKING:
    from trio.testing import MockClock


class Wall:
    """A wall clock that goes with trio's and can be set."""

    def __init__(self) -> None:
        self.ahead = 1_800_000_000.0

    def __call__(self) -> float:
        return trio.current_time() + self.ahead


async def test_a_clock_that_goes_steadily_or_drifts_a_little_is_believed(autojump_clock: MockClock) -> None:
    wall = Wall()
    clock = SteadyClock(wall)
    for _ in range(100):
        await trio.sleep(30)
        wall.ahead += JUMP_SECONDS / 10
        assert clock.now() == wall()


@pytest.mark.parametrize("jump", [-(10**9), -JUMP_SECONDS - 1, JUMP_SECONDS + 1, 10**9])
async def test_a_clock_that_jumped_is_believed_again_after_ten_calm_minutes(
    jump: float, autojump_clock: MockClock
) -> None:
    wall = Wall()
    clock = SteadyClock(wall)
    await trio.sleep(30)
    wall.ahead += jump
    assert clock.now() is None
    await trio.sleep(CALM_SECONDS - 1)
    assert clock.now() is None
    await trio.sleep(1)
    assert clock.now() == wall()


async def test_a_clock_that_jumps_again_is_in_doubt_from_then(autojump_clock: MockClock) -> None:
    wall = Wall()
    clock = SteadyClock(wall)
    wall.ahead += 10**9
    assert clock.now() is None
    await trio.sleep(CALM_SECONDS - 1)
    wall.ahead -= 10**9
    assert clock.now() is None
    await trio.sleep(CALM_SECONDS - 1)
    assert clock.now() is None
    await trio.sleep(1)
    assert clock.now() == wall()
